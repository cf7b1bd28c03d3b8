"""An exclusion under load: at the API before all that waits, whatever is in flight and fails; and what lifting it may say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from connector import clock
from connector.errors import Transient
from tests.integration.test_relay import EXCLUDED, Feed, attributes, deposits, go_wrong, nothing, players, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connector.destinations.contract import Item, Refusal
    from connector.emulators import serve
    from connector.store.database import Database

Writer = Any
Look = Any
ID: Final = "kaasino:3"
#: So that a thousand events are several batches.
LONG: Final = json.dumps({"note": "x" * 1500})
#: What becomes of a request that is under way when the player is excluded.
OUTCOMES: Final = ("accepted", "reply lost", "never arrived", "429", "503 after applying")


@pytest.fixture
def feed(store: Database, emulator: serve.Running) -> Iterator[Feed]:
    """Give an application that delivers in one lane, so that every batch holds every player."""
    made = Feed(store, emulator, lanes=1)
    yield made
    made.close()


def events_of(emulator: serve.Running) -> list[str]:
    """Return the transaction ids of the player's events that the API took, in order."""
    with emulator.workspace.reading() as state:
        return [str(event.attributes["transaction_id"]) for event in state.ledger.events if event.customer_id == ID]


def exclude(feed: Feed, writer: Writer, emulator: serve.Running) -> list[str]:
    """Exclude the player, let the exclusion lane run, and return the player's events that the API had by then."""
    writer.profiles({"external_id": "3", "email": "player3@example.com", **EXCLUDED})
    feed.exclusions.run_once()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    assert attributes(emulator, "3")["self_excluded"] == "true"
    return events_of(emulator)


class Interrupted:
    """A destination whose request number `at` is under way while something else happens, and then ends in some way."""

    def __init__(self, inner: Any, at: int, outcome: str, meanwhile: Callable[[], None]) -> None:
        self.inner, self.left, self.outcome, self.meanwhile = inner, at, outcome, meanwhile

    def deliver(self, batch: Sequence[Item], *, urgent: bool = False) -> Sequence[Refusal | None]:
        """Deliver; in the one request the API applies, or does not, before the rest of the world goes on."""
        if urgent or batch[0].kind != "event":
            return list(self.inner.deliver(batch, urgent=urgent))
        self.left -= 1
        if self.left != 0:
            return list(self.inner.deliver(batch))
        applied = self.outcome in ("accepted", "reply lost", "503 after applying")
        answer = list(self.inner.deliver(batch)) if applied else []
        self.meanwhile()
        if self.outcome == "accepted":
            return answer
        raise Transient(self.outcome)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_nothing_of_an_excluded_player_is_taken_after_the_exclusion(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look, outcome: str
) -> None:
    """A batch with that player's events is under way and fails, thousands wait behind it, some of them encoded already."""
    writer.profiles(*players())
    feed.drain()
    for start in range(0, 4000, 1000):
        writer.events(*deposits(*range(start, start + 1000), properties=LONG))
    before: list[str] = []
    lane = feed.app.relays[1]
    lane.destination = Interrupted(lane.destination, 2, outcome, lambda: before.extend(exclude(feed, writer, emulator)))
    feed.drain()

    assert 0 < len(before) < 800
    assert events_of(emulator) == before
    assert (attributes(emulator, "3")["unsubscribed"], attributes(emulator, "3")["self_excluded"]) == ("true", "true")
    assert emulator.workspace.counts()["events"] == 4 * 800 + len(before)
    counted = totals(look)
    assert counted["refused"] == 0
    assert counted["dropped"] >= 800 - len(before)  # and more where the store has not learnt what the API took
    assert look("select * from crm.dead_letters") == []


@pytest.mark.parametrize("script", [["reset"], ["reset_before", "503"], ["429", "reset", "500"]], ids=" ".join)
def test_the_exclusion_has_the_last_word_over_a_failing_identify(
    feed: Feed, writer: Writer, emulator: serve.Running, script: list[str]
) -> None:
    """The old state is in flight with all players, arrives or is lost, and is sent again: the player stays unsubscribed."""
    writer.profiles(*players())
    feed.exclusions.run_once()

    def meanwhile(_: Sequence[Item]) -> None:
        feed.act = nothing
        exclude(feed, writer, emulator)
        go_wrong(emulator, script=script, retry_after=0.0)

    feed.act = meanwhile
    feed.drain()
    assert (attributes(emulator, "3")["unsubscribed"], attributes(emulator, "3")["self_excluded"]) == ("true", "true")
    assert "unsubscribed" not in attributes(emulator, "4")


def test_a_large_backlog_does_not_hold_an_exclusion_up(feed: Feed, writer: Writer, emulator: serve.Running) -> None:
    """One step of the exclusion lane, one request, while all that came before it still waits."""
    writer.profiles(*players(50))
    feed.drain()
    for start in range(0, 20_000, 5_000):
        writer.events(*deposits(*range(start, start + 5_000), players=50), fresh=True)
    writer.profiles(*players(50, first_name="Kim"))
    asked = emulator.workspace.counts()["accepted"]
    assert exclude(feed, writer, emulator) == []
    assert emulator.workspace.counts()["accepted"] == asked + 1


# Lifting ------------------------------------------------------------------------------------------------------------


def opt_out_at_the_api(emulator: serve.Running) -> None:
    """Let the person unsubscribe at Customer.io itself."""
    body = {"unsubscribed": True}
    answer = httpx.put(f"{emulator.url}/api/v1/customers/{ID}", json=body, auth=("site", "key"))
    assert answer.is_success


def test_lifting_says_nothing_of_a_subscription_that_was_never_ours(
    feed: Feed, writer: Writer, emulator: serve.Running
) -> None:
    """A player who unsubscribed at the API, and whom no exclusion of ours touched, stays so whatever is sent."""
    writer.profiles(*players())
    feed.drain()
    opt_out_at_the_api(emulator)
    writer.profiles({"external_id": "3", "first_name": "Kim"})
    writer.events(*deposits(3, 8))
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    assert all("unsubscribed" not in profile["attributes"] for profile in feed.sent("profile"))


@pytest.mark.parametrize("told", ["before", "during"])
def test_lifting_leaves_a_player_unsubscribed_who_opted_out(
    feed: Feed, writer: Writer, emulator: serve.Running, told: str
) -> None:
    """Mail disabled at the platform, before or during the exclusion: our unsubscription is not taken back."""
    disabled = {"external_id": "3", "email_disabled": True}
    writer.profiles(*players(), *([disabled] if told == "before" else []))
    feed.drain()
    exclude(feed, writer, emulator)
    feed.drain()
    writer.profiles({**disabled, **EXCLUDED})
    feed.drain()
    writer.profiles(disabled)
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    assert "self_excluded" not in attributes(emulator, "3")

    writer.profiles({"external_id": "3", "email_disabled": False})
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "false"


@pytest.mark.parametrize("told", ["never", "before"])
def test_an_exclusion_whose_reply_was_lost_is_lifted_all_the_same(
    feed: Feed, writer: Writer, emulator: serve.Running, told: str
) -> None:
    """The player is free again before it could be sent anew: the API has it, so it is taken back."""
    writer.profiles(*players(5 if told == "before" else 3))
    feed.drain()
    writer.profiles({"external_id": "3", "email": "player3@example.com", **EXCLUDED})
    go_wrong(emulator, script=["reset"])
    with pytest.raises(Transient):
        feed.exclusions.run_once()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    writer.profiles({"external_id": "3", "email": "player3@example.com"})
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "false"


@pytest.mark.parametrize("script", [["reset"], ["503", "reset_before"]], ids=" ".join)
def test_lifting_arrives_through_failures_once_only(
    feed: Feed, writer: Writer, emulator: serve.Running, script: list[str]
) -> None:
    """After it the subscription is Customer.io's own again: what the player says there is never overwritten."""
    writer.profiles(*players())
    exclude(feed, writer, emulator)
    feed.drain()
    go_wrong(emulator, script=script, retry_after=0.0)
    writer.profiles({"external_id": "3"})
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "false"
    opt_out_at_the_api(emulator)
    writer.profiles({"external_id": "3", "first_name": "Kim"})
    writer.events({**deposits(3)[0], "occurred_at": clock.now()})
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
