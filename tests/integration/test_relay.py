"""From the store to an API: players before their events, each event once, exclusions first, nothing lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from connector import app as application, clock, config, relay as relay_module
from connector.destinations import customerio_items
from connector.emulators.options import Faults
from connector.errors import Halted, Transient
from connector.store import due, feeds, reports
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connector.destinations.contract import Item, Refusal
    from connector.emulators import serve
    from connector.store.database import Database

Writer = Any
Look = Any
SUBSCRIBED: Final = ("deposit_confirmed", "withdrawal_confirmed")


@dataclass
class Recorder:
    """A destination that notes what is delivered, and lets a test act between two batches."""

    inner: Any
    log: list[tuple[str, int, str, bytes]]
    before: Callable[[Sequence[Item]], None]

    def deliver(self, batch: Sequence[Item], *, urgent: bool = False) -> Sequence[Refusal | None]:
        """Note the items, then deliver them."""
        self.log.extend((item.kind, item.player_id, item.name, item.body) for item in batch)
        self.before(batch)
        found: Sequence[Refusal | None] = self.inner.deliver(batch, urgent=urgent)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def nothing(_: Sequence[Item]) -> None:
    """Do nothing between two batches."""


class Feed:
    """An application that only delivers, driven step by step."""

    def __init__(
        self, store: Database, emulator: serve.Running, *, brands: dict[str, Any] | None = None, **changes: Any
    ) -> None:
        destination = {
            "name": "customerio",
            "kind": "customerio_track",
            "url": emulator.url,
            "site_id": "site",
            "api_key": "key",
            "events": list(SUBSCRIBED),
            "rate": 10_000,
            "lanes": 2,
            "timeout": "5s",
            **changes,
        }
        source = {"name": "casino", "url": "postgresql://nobody@127.0.0.1:9/none", "streams": {"deposits": {}}}
        source |= {"brands": brands or {}}
        document = {
            "store": {"url": store.url},
            "tenant": "kaasino",
            "sources": [source],
            "destinations": [destination],
            "web": None,
        }
        self.app = application.build(config.parse(document, streams=list(STREAMS)))
        self.log: list[tuple[str, int, str, bytes]] = []
        self.act: Callable[[Sequence[Item]], None] = nothing
        for relay in self.app.relays:
            relay.destination = Recorder(relay.destination, self.log, self._before)

    def _before(self, batch: Sequence[Item]) -> None:
        self.act(batch)

    @property
    def exclusions(self) -> Any:
        """The lane that goes before all others."""
        return self.app.relays[0]

    def drain(self, *, failures: int = 60) -> int:
        """Step every lane until none has more to do; returns how many steps failed on the way."""
        failed = 0
        for relay in self.app.relays:
            while True:
                try:
                    if not relay.run_once().busy:
                        break
                except Transient:
                    failed += 1
                    assert failed < failures
        return failed

    def sent(self, kind: str) -> list[dict[str, Any]]:
        """Return what was delivered of one kind, in order."""
        return [json.loads(body) for sent, _, _, body in self.log if sent == kind]

    def close(self) -> None:
        """Close everything."""
        self.app.close()


@pytest.fixture
def feed_of(store: Database, emulator: serve.Running) -> Iterator[Callable[..., Feed]]:
    """Give a maker of applications that deliver the test's store to the emulator."""
    made: list[Feed] = []

    def make(**changes: Any) -> Feed:
        made.append(Feed(store, emulator, **changes))
        return made[-1]

    yield make
    for feed in made:
        feed.close()


@pytest.fixture
def feed(feed_of: Callable[..., Feed]) -> Feed:
    """Give such an application with two lanes."""
    return feed_of()


def go_wrong(emulator: serve.Running, **faults: Any) -> None:
    """Set the emulator's faults."""
    assert httpx.patch(f"{emulator.url}/_control/faults", json={**asdict(Faults()), **faults}).is_success


def attributes(emulator: serve.Running, player: str) -> dict[str, str]:
    """Return a person's attributes as the API shows them."""
    person = emulator.workspace.find("id", f"kaasino:{player}")
    assert person is not None
    return dict(person.attributes)


def totals(look: Look) -> dict[str, int]:
    """Return the destination's counters."""
    (row,) = look(
        "select sum(accepted)::int a, sum(refused)::int r, sum(dropped)::int d, sum(expired)::int e from crm.feeds"
    )
    return {"accepted": row["a"], "refused": row["r"], "dropped": row["d"], "expired": row["e"]}


def deposits(*numbers: int, players: int = 5, **changes: Any) -> list[dict[str, Any]]:
    """Return deposits of now, spread over players."""
    at = clock.now()
    return [{"key": f"d{n}", "external_id": str(n % players), "occurred_at": at, **changes} for n in numbers]


def players(count: int = 5, **changes: Any) -> list[dict[str, Any]]:
    """Return that many profiles."""
    return [{"external_id": str(n), "email": f"player{n}@example.com", **changes} for n in range(count)]


# Order and content --------------------------------------------------------------------------------------------------


def test_a_player_is_identified_before_the_events(feed: Feed, writer: Writer, emulator: serve.Running) -> None:
    """However they were committed: all of a player's profile goes before any of the player's events, which keep their order."""
    writer.events(*deposits(*range(20)))
    writer.profiles(*players())
    writer.events(*deposits(*range(20, 40)))
    feed.drain()

    for player in {player for _, player, _, _ in feed.log}:
        kinds = [kind for kind, owner, _, _ in feed.log if owner == player]
        assert kinds == ["profile"] + ["event"] * 8
        keys = [
            json.loads(body)["attributes"]["transaction_id"]
            for kind, owner, _, body in feed.log
            if (kind, owner) == ("event", player)
        ]
        assert keys == sorted(keys, key=lambda key: int(key[1:]))
    counts = emulator.workspace.counts()
    assert (counts["people"], counts["events"], counts["duplicates"], counts["refused"]) == (5, 40, 0, 0)


def test_an_event_says_what_happened(feed: Feed, writer: Writer) -> None:
    """Its id is a ULID of the business time, amounts are exact numbers in the row's currency, times unix seconds."""
    at = clock.now().replace(microsecond=678901)
    writer.profiles(*players(1))
    event = {
        "amount": Decimal("1234567890.123456789"),
        "currency": "GBP",
        "properties": json.dumps({"payment_method": "card", "fee": "0.10"}),
    }
    writer.events({"key": "00042", "external_id": "0", "occurred_at": at, **event})
    feed.drain()

    body = next(body for kind, _, _, body in feed.log if kind == "event")
    (sent,) = feed.sent("event")
    assert b'"amount":1234567890.123456789' in body
    assert b'"fee":0.1' in body
    assert sent["identifiers"] == {"id": "kaasino:0"}
    assert (sent["name"], sent["timestamp"]) == ("deposit_confirmed", int(at.timestamp()))
    assert (sent["attributes"]["transaction_id"], sent["attributes"]["currency"]) == ("00042", "GBP")
    assert len(sent["id"]) == 26


def test_values_of_a_shape_go_out_by_their_names(feed: Feed, writer: Writer) -> None:
    """A destination sees no difference between them and properties that name themselves."""
    shape = ("payment_method", "note", "fee")
    writer.profiles(*players(1))
    writer.events(*deposits(0, players=1, properties=None, packed="card\x1f\x1f0.10"), shape=shape)
    writer.events(*deposits(1, players=1, properties='{"payment_method":"card","fee":"0.10"}'))
    feed.drain()
    first, second = (dict(event["attributes"], transaction_id="") for event in feed.sent("event"))
    assert first == second
    assert (first["payment_method"], first["fee"]) == ("card", 0.1)
    assert "note" not in first


def test_only_subscribed_events_of_now_are_sent(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """Bets that nobody asked for, history, and what is older than max_age stay here; the last is counted."""
    writer.profiles(*players())
    old = clock.now() - timedelta(hours=25)
    writer.events(*deposits(1, 2))
    writer.events(*deposits(3, 4, 5, history=True))
    writer.events(*deposits(6, 7, name="bet_placed", effect="wagered"))
    writer.events(*deposits(8, 9, 10, 11, occurred_at=old))
    feed.drain()

    assert {event["attributes"]["transaction_id"] for event in feed.sent("event")} == {"d1", "d2"}
    assert emulator.workspace.counts()["people"] == 5
    assert totals(look) == {"accepted": 7, "refused": 0, "dropped": 0, "expired": 4}


def test_events_bear_the_names_the_destination_wants(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running
) -> None:
    """A mapping renames; an empty list sends profiles only."""
    writer.profiles(*players(1))
    writer.events(*deposits(1, players=1))
    feed_of(events={"deposit_confirmed": "Deposit Approved"}).drain()
    assert emulator.workspace.counts()["events_by_name"] == {"Deposit Approved": 1}


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        ["reset", "reset", "ok", "reset"],
        ["429", "500", "reset_before", "503", "ok", "502", "429"],
        ["ok", "reset", "500", "ok", "reset", "429", "reset_before"] * 2,
    ],
    ids=["replies lost", "refused for now", "everything"],
)
def test_each_event_arrives_once_whatever_the_network_does(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look, script: list[str]
) -> None:
    """What is sent again bears the same id, so that the API recognises it; nothing is skipped, nothing refused."""
    writer.profiles(*players())
    feed.drain()
    go_wrong(emulator, script=script, retry_after=0.0)
    for start in range(0, 60, 10):
        writer.events(*deposits(*range(start, start + 10)))
        feed.drain()

    ids = {event["attributes"]["transaction_id"]: event["id"] for event in feed.sent("event")}
    assert len(ids) == len({event["id"] for event in feed.sent("event")}) == 60
    counts = emulator.workspace.counts()
    assert (counts["events"], counts["people"]) == (60, 5)
    assert totals(look) == {"accepted": 60 + 5 + 6 * 5, "refused": 0, "dropped": 0, "expired": 0}
    assert look("select * from crm.dead_letters") == []


def test_chance_errors_lose_and_double_nothing(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running
) -> None:
    """A third of the requests fail, some after they were applied: every player and event is there once."""
    feed = feed_of(lanes=3)
    go_wrong(emulator, error_rate=0.2, error_applies=True, reset_rate=0.15, retry_after=0.0)
    writer.profiles(*players(30))
    writer.events(*deposits(*range(200), players=30))
    feed.drain(failures=200)
    counts = emulator.workspace.counts()
    assert (counts["people"], counts["events"], counts["refused"]) == (30, 200, 0)


def test_a_refused_item_is_a_dead_letter_with_the_reason(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """The API's words and the item lie with it; the others of its batch are accepted and the feed goes on."""
    go_wrong(emulator, refuse_names=["withdrawal_confirmed"], refuse_ids=["kaasino:3"])
    writer.profiles(*players())
    writer.events(*deposits(0, 1, 2), *deposits(10, 11, 12, name="withdrawal_confirmed", effect="withdrawn"))
    feed.drain()

    letters = look("select * from crm.dead_letters order by id")
    assert sorted((row["kind"], row["name"]) for row in letters) == [("event", "withdrawal_confirmed")] * 3 + [
        ("profile", "identify")
    ]
    assert all(row["reason"] and row["payload"]["identifiers"]["id"].startswith("kaasino:") for row in letters)
    assert {row["payload"]["attributes"].get("transaction_id") for row in letters} == {"d10", "d11", "d12", None}
    assert emulator.workspace.counts()["events"] == 3
    assert totals(look) == {"accepted": 7, "refused": 4, "dropped": 0, "expired": 0}
    feed.drain()
    assert len(look("select * from crm.dead_letters")) == 4


def test_a_request_refused_as_a_whole_is_halved(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """Down to the culprit: what can be accepted is, a lone item that is refused becomes a dead letter."""
    writer.profiles(*players())
    feed.drain()
    go_wrong(emulator, script=["ok", "400", "ok", "400", "413", "422"])  # the player first, whose sums have changed
    writer.events(*deposits(*range(0, 40, 10), players=10))
    feed.drain()
    assert emulator.workspace.counts()["events"] + len(look("select * from crm.dead_letters")) == 4
    assert totals(look)["accepted"] == 5 + 1 + emulator.workspace.counts()["events"]


def test_an_item_too_large_for_the_api_is_a_dead_letter(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """It is not even sent, and the others are."""
    writer.profiles(*players())
    writer.events(*deposits(1), *deposits(2, properties=json.dumps({"note": "x" * 33_000})), *deposits(3))
    feed.drain()
    (letter,) = look("select * from crm.dead_letters")
    assert (letter["reason"], letter["payload"]["attributes"]["transaction_id"]) == ("too_large", "d2")
    assert emulator.workspace.counts()["events"] == 2


def test_many_events_go_in_batches_the_api_takes(feed: Feed, writer: Writer, emulator: serve.Running) -> None:
    """Measured before an item is added: no request is refused for its size."""
    writer.profiles(*players())
    writer.events(*deposits(*range(700), properties=json.dumps({"note": "ü" * 1000})))
    feed.drain()
    assert emulator.workspace.counts()["events"] == 700
    answers = httpx.get(f"{emulator.url}/_control/requests").json()["by_route"].values()
    assert all(counted.keys() == {"200"} for counted in answers)
    assert emulator.workspace.options.max_batch_bytes > customerio_items.BATCH_BYTES


def test_a_full_step_is_followed_by_the_next(feed_of: Callable[..., Feed], writer: Writer) -> None:
    """A lane that has more events than one step takes does not rest in between."""
    feed = feed_of(lanes=1)
    writer.profiles(*players())
    writer.events(*deposits(*range(2500)))
    feed.drain()
    assert len(feed.sent("event")) == 2500


def test_refused_credentials_stop_the_destination_and_say_so(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """Nothing is dropped: with the right key everything goes out."""
    emulator.workspace.configure({"site_id": "site", "api_key": "other"})
    writer.profiles(*players())
    writer.events(*deposits(1, 2, 3))
    for relay in feed.app.relays:
        with pytest.raises(Halted, match="401"):
            relay.run_once()
    report = reports.status(writer.connection, "kaasino", {"customerio": list(SUBSCRIBED)})["destinations"][
        "customerio"
    ]
    assert report["state"] == "stopped"
    assert "credentials" in report["error"]
    assert (report["pending"], report["accepted"]) == (8, 0)

    emulator.workspace.configure({"api_key": "key"})
    feed.drain()
    assert (emulator.workspace.counts()["people"], emulator.workspace.counts()["events"]) == (5, 3)
    report = reports.status(writer.connection, "kaasino", {"customerio": list(SUBSCRIBED)})["destinations"][
        "customerio"
    ]
    assert (report["state"], report["error"], report["pending"]) == ("running", None, 0)
    assert totals(look)["accepted"] == 8


def test_a_redirect_to_another_region_stops_the_destination(
    feed: Feed, writer: Writer, emulator: serve.Running
) -> None:
    """Personal data never follows it."""
    go_wrong(emulator, redirect_status=301)
    writer.profiles(*players())
    with pytest.raises(Halted, match="region"):
        feed.drain()
    assert emulator.workspace.counts()["people"] == 0


# Players without a profile ------------------------------------------------------------------------------------------


def test_events_of_a_stub_wait_for_the_profile(feed: Feed, writer: Writer, emulator: serve.Running, look: Look) -> None:
    """They hold nobody else up, and follow the profile when it comes."""
    writer.events(*deposits(0, 1, 2, 5, 6, 7))
    writer.profiles(*players(2))
    feed.drain()
    assert emulator.workspace.counts()["events"] == 4
    assert len(look("select * from crm.parked_events")) == 2

    writer.profiles(*players(3))
    feed.drain()
    player = next(row["player_id"] for row in look("select * from crm.players where external_id = '2'"))
    assert [kind for kind, owner, _, _ in feed.log if owner == player] == ["profile", "event", "event"]
    assert look("select * from crm.parked_events") == []
    assert emulator.workspace.counts()["events"] == 6


def test_a_profile_that_comes_during_a_step_still_goes_before_its_events(
    feed_of: Callable[..., Feed], writer: Writer
) -> None:
    """A commit between a step's look at players and its look at waiting events does not let these overtake."""
    feed = feed_of(lanes=1)
    writer.events(*deposits(0, 1, players=2))
    writer.profiles(*players(1))
    feed.drain()
    writer.profiles({"external_id": "0", "email": "new@example.com"})

    def arrive(_: Sequence[Item]) -> None:
        feed.act = nothing
        writer.profiles({"external_id": "1"})

    feed.act = arrive
    feed.drain()
    feed.drain()
    owner = feed.log[-1][1]
    assert [kind for kind, player, _, _ in feed.log if player == owner] == ["profile", "event"]


# History ------------------------------------------------------------------------------------------------------------

#: Puts all history up for sending, as `backfill --send-events` does.
PARK_HISTORY: Final = """
    insert into crm.parked_events (tenant, destination, player_id, seq, history)
    select 'kaasino', 'customerio', player_id, seq, true from crm.event_rows where history returning seq
"""


def test_a_player_who_changes_meanwhile_does_not_interrupt_history(
    feed_of: Callable[..., Feed], writer: Writer, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That player's events wait for the profile; the rest of history follows at once, not at the next tidying."""
    monkeypatch.setattr(relay_module, "HISTORY_STEP", 4)
    feed = feed_of(lanes=1)
    writer.profiles(*players(3))
    writer.events(*deposits(*range(12), players=3, history=True, occurred_at=clock.now() - timedelta(days=30)))
    feed.drain()
    look(PARK_HISTORY)
    writer.profiles({"external_id": "0", "email": "new@example.com"})

    def change(_: Sequence[Item]) -> None:
        feed.act = nothing
        writer.profiles({"external_id": "1", "email": "newer@example.com"})

    feed.act = change
    feed.app.relays[1]._tidy_at = 0.0
    feed.drain()
    assert len(feed.sent("event")) == 12
    for player in range(3):
        sent = [event for event in feed.sent("event") if event["identifiers"] == {"id": f"kaasino:{player}"}]
        keys = [int(event["attributes"]["transaction_id"][1:]) for event in sent]
        assert keys == sorted(keys)


def test_a_step_reads_no_more_than_it_sends_however_much_waits(feed: Feed, writer: Writer, store: Database) -> None:
    """Also where the planner knows nothing of a table yet: at a first load it has been empty a moment before."""
    writer.profiles(*players(20))
    writer.events(*deposits(*range(2000), players=20, history=True, occurred_at=clock.now() - timedelta(days=30)))
    with store.connect() as connection:
        connection.execute("analyze crm.delivered_profiles")
        connection.execute(
            "insert into crm.delivered_profiles (tenant, destination, player_id, hash)"
            " select 'kaasino', 'customerio', n, '' from generate_series(40000, 1, -1) n"
        )
        connection.execute(PARK_HISTORY)
        connection.execute("analyze crm.parked_events")
        lane = feed.app.relays[1].lane
        feeds.open_lane(connection, lane)
        values = {**feeds.vars_of(lane), "after": 0, "changes": 0, "limit": 50}
        for statement in (feeds._LANE_CHANGES, due._PARKED_HISTORY):
            ((plan,),) = connection.execute(f"explain (analyze, format json) {statement}", values).fetchall()
            assert max(read_rows(plan[0]["Plan"])) <= 1000, statement  # of 40,000 profiles, of 2,000 events


def read_rows(node: dict[str, Any]) -> Iterator[float]:
    """Yield how many rows each node of a plan has looked at."""
    yield (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    for child in node.get("Plans", []):
        yield from read_rows(child)


# Exclusions ---------------------------------------------------------------------------------------------------------

EXCLUDED: Final = {
    "status": "self_excluded",
    "status_raw": "SELF_EXCLUDED",
    "eligible": False,
}


def test_an_excluded_player_is_unsubscribed_before_everything(
    feed: Feed, writer: Writer, emulator: serve.Running, look: Look
) -> None:
    """The exclusion lane alone tells it; events of that player that are queued are dropped and counted."""
    writer.profiles(*players())
    feed.drain()
    writer.events(*deposits(*range(10)))
    writer.profiles({"external_id": "3", "email": "player3@example.com", **EXCLUDED})

    feed.exclusions.run_once()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    assert attributes(emulator, "3")["self_excluded"] == "true"
    assert attributes(emulator, "3")["disabled"] == "self_excluded"
    assert emulator.workspace.counts()["events"] == 0

    feed.drain()
    assert {event["identifiers"]["id"] for event in feed.sent("event")} == {f"kaasino:{n}" for n in (0, 1, 2, 4)}
    assert totals(look)["dropped"] == 2


def test_an_exclusion_is_told_again_after_a_batch_in_flight(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running
) -> None:
    """A slower identify of the old state does not have the last word."""
    feed = feed_of(lanes=1)
    writer.profiles(*players())
    feed.exclusions.run_once()

    def exclude(_: Sequence[Item]) -> None:
        feed.act = nothing
        writer.profiles({"external_id": "3", **EXCLUDED})
        feed.exclusions.run_once()
        assert attributes(emulator, "3")["unsubscribed"] == "true"

    feed.act = exclude  # runs while the lane holds the old state of all players
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "true"
    assert attributes(emulator, "3")["self_excluded"] == "true"


def test_what_an_exclusion_took_back_stays_away_behind_a_batch_in_flight(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running
) -> None:
    """The slower identify brings back a phone that has gone: it is not forgotten that the API has it again."""
    feed = feed_of(lanes=1)
    reached = {"external_id": "0", "phone": "+4915112345678"}
    writer.profiles(reached)
    feed.drain()
    writer.profiles({**reached, "first_name": "Kim"})

    def exclude(_: Sequence[Item]) -> None:
        feed.act = nothing
        writer.profiles({"external_id": "0", "first_name": "Kim", **EXCLUDED})
        feed.exclusions.run_once()
        assert "phone" not in attributes(emulator, "0")

    feed.act = exclude
    feed.drain()
    feed.drain()  # the lane's next look
    assert "phone" not in attributes(emulator, "0")
    assert attributes(emulator, "0")["self_excluded"] == "true"


def test_lifting_an_exclusion_takes_our_unsubscription_back(
    feed: Feed, writer: Writer, emulator: serve.Running
) -> None:
    """And only ours: a player who was never excluded is told nothing about subscriptions."""
    writer.profiles(*players())
    writer.profiles({"external_id": "3", **EXCLUDED})
    feed.drain()
    writer.profiles({"external_id": "3"}, {"external_id": "4", "email": "other@example.com"})
    feed.drain()
    assert attributes(emulator, "3")["unsubscribed"] == "false"
    assert "self_excluded" not in attributes(emulator, "3")
    assert "unsubscribed" not in attributes(emulator, "4")


# Profiles that change, or do not ------------------------------------------------------------------------------------


def test_an_unchanged_profile_is_not_sent_again(feed: Feed, writer: Writer) -> None:
    """A user who is only touched changes nothing that a destination sees."""
    writer.profiles(*players())
    feed.drain()
    assert len(feed.sent("profile")) == 5
    writer.profiles(*players(source_updated_at=clock.now()))
    feed.drain()
    assert len(feed.sent("profile")) == 5
    writer.profiles(*players(1, first_name="Alex"))
    feed.drain()
    assert [profile["attributes"]["first_name"] for profile in feed.sent("profile")[5:]] == ["Alex"]


def test_an_attribute_that_went_away_is_removed(feed: Feed, writer: Writer, emulator: serve.Running) -> None:
    """It is sent as null once, and not again."""
    writer.profiles({"external_id": "0", "first_name": "Alex", "phone": "+4915112345678"})
    feed.drain()
    assert attributes(emulator, "0")["phone"] == "+4915112345678"
    writer.profiles({"external_id": "0", "first_name": "Alex"})
    feed.drain()
    assert "phone" not in attributes(emulator, "0")
    assert feed.sent("profile")[-1]["attributes"]["phone"] is None
    writer.profiles({"external_id": "0", "first_name": "Kim"})
    feed.drain()
    assert "phone" not in feed.sent("profile")[-1]["attributes"]


def test_a_refused_profile_still_owes_its_removals(feed: Feed, writer: Writer, emulator: serve.Running) -> None:
    """What was to be removed by an identify that the API refused is removed by the next one."""
    writer.profiles({"external_id": "0", "first_name": "Alex", "phone": "+4915112345678"})
    feed.drain()
    go_wrong(emulator, refuse_ids=["kaasino:0"])
    writer.profiles({"external_id": "0", "first_name": "Alex"})
    feed.drain()
    go_wrong(emulator)
    writer.profiles({"external_id": "0", "first_name": "Kim"})
    feed.drain()
    assert "phone" not in attributes(emulator, "0")


@pytest.mark.parametrize("known", [0, 1], ids=["new", "known"])
def test_an_attribute_whose_outcome_is_unknown_is_removed_all_the_same(
    feed: Feed, writer: Writer, emulator: serve.Running, known: int
) -> None:
    """It went with a reply that was lost, and is gone again before the profile could be sent anew."""
    writer.profiles(*players(known))
    feed.drain()
    go_wrong(emulator, script=["reset"])
    writer.profiles(*players(1, phone="+4915112345678"))
    assert any(_fails(relay) for relay in feed.app.relays[1:])
    assert attributes(emulator, "0")["phone"] == "+4915112345678"
    writer.profiles(*players(1))
    feed.drain()
    assert "phone" not in attributes(emulator, "0")


def test_a_profile_of_unknown_outcome_is_sent_anew_from_the_newest_state(
    feed: Feed, writer: Writer, emulator: serve.Running
) -> None:
    """After a lost reply nothing is taken for known, even where the player changed back meanwhile."""
    writer.profiles(*players(1, first_name="Alex"))
    feed.drain()
    go_wrong(emulator, script=["reset"])
    writer.profiles(*players(1, first_name="Kim"))
    lane = next(relay for relay in feed.app.relays[1:] if _fails(relay))
    assert attributes(emulator, "0")["first_name"] == "Kim"
    writer.profiles(*players(1, first_name="Alex"))
    while lane.run_once().busy:
        pass
    feed.drain()
    assert attributes(emulator, "0")["first_name"] == "Alex"


def _fails(relay: Any) -> bool:
    try:
        relay.run_once()
    except Transient:
        return True
    return False


def test_profiles_are_sent_again_after_the_refresh(feed_of: Callable[..., Feed], writer: Writer, look: Look) -> None:
    """What was sent longer ago than `refresh` is sent whole once more."""
    feed = feed_of(refresh="1h")
    writer.profiles(*players(3))
    feed.drain()
    feed.drain()
    assert len(feed.sent("profile")) == 3
    look("update crm.delivered_profiles set sent_at = now() - interval '2 hours' where true returning 1")
    for relay in feed.app.relays:
        relay._tidy_at = 0.0
    feed.drain()
    feed.drain()
    assert len(feed.sent("profile")) == 6


# Lanes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "then"), [(4, 2), (1, 3), (3, 4)])
def test_another_number_of_lanes_loses_and_doubles_nothing(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running, look: Look, first: int, then: int
) -> None:
    """All lanes go on from the lowest position of any; what the API has is recognised, counters are kept."""
    before = feed_of(lanes=first)
    writer.profiles(*players(12))
    writer.events(*deposits(*range(24), players=12))
    before.drain()
    assert emulator.workspace.counts()["duplicates"] == 0
    writer.events(*deposits(*range(24, 48), players=12))
    before.app.relays[1].run_once()  # one lane is ahead of the others
    before.close()

    after = feed_of(lanes=then)
    writer.events(*deposits(*range(48, 60), players=12))
    after.drain()
    counts = emulator.workspace.counts()
    assert (counts["events"], counts["people"]) == (60, 12)
    again = len(after.sent("event")) - (60 - 24)
    assert -24 <= again <= 0  # nothing is sent twice that all lanes had settled
    assert sum(row["lanes"] == then for row in look("select * from crm.feeds where lane >= 0")) == then
    assert len(look("select * from crm.feeds where lane >= 0")) == then
    assert totals(look)["accepted"] >= 72


def test_a_restart_sends_nothing_twice(feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running) -> None:
    """A new process goes on where the last one settled."""
    writer.profiles(*players())
    writer.events(*deposits(*range(10)))
    first = feed_of()
    first.drain()
    first.close()
    again = feed_of()
    again.drain()
    assert again.log == []
    writer.events(*deposits(*range(10, 15)))
    again.drain()
    assert Counter(kind for kind, *_ in again.log) == {"profile": 5, "event": 5}
    assert emulator.workspace.counts()["duplicates"] == 0


def test_the_exclusion_lane_leaves_the_other_lanes_where_they_stand(store: Database, look: Look) -> None:
    """It has no share of the players: another number of lanes is nothing to it."""
    lanes = [feeds.Lane("kaasino", "api", number, 2) for number in (-1, 0, 1)]
    with store.connect() as connection:
        for lane in lanes:
            feeds.open_lane(connection, lane)
        look("update crm.feeds set event_seq = 5 + lane, change_seq = 7 + lane where lane >= 0 returning 1")
        feeds.open_lane(connection, feeds.Lane("kaasino", "api", -1, 4))
        feeds.open_lane(connection, feeds.Lane("kaasino", "api", -1, 4))
    found = look("select event_seq, change_seq from crm.feeds where lane >= 0 order by lane")
    assert [(row["event_seq"], row["change_seq"]) for row in found] == [(5, 7), (6, 8)]


def test_a_profile_that_does_not_come_is_reported(feed: Feed, writer: Writer, store: Database, look: Look) -> None:
    """Events that have waited for five minutes are a question to the operator."""
    writer.events(*deposits(0, 1, 2))
    feed.drain()
    with store.connect() as connection:
        (report,) = reports.status(connection, "kaasino", {})["destinations"].values()
        assert (report["state"], report["error"]) == ("running", None)
        look("update crm.parked_events set parked_at = now() - interval '6 minutes' where true returning 1")
        (report,) = reports.status(connection, "kaasino", {})["destinations"].values()
    assert report["state"] == "running"
    assert report["error"].startswith("3 player(s) have events and no profile")
