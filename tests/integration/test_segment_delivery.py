"""Memberships at a destination: an attribute or a manual segment, in step whatever becomes of a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from psycopg.types.json import Jsonb

from connector import checks, clock
from connector.store import segment_feed
from connector.store.database import ordered
from tests.integration.test_relay import Feed, attributes, go_wrong, players

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.emulators import serve
    from connector.store.database import Database

Writer = Any
Look = Any
TENANT: Final = "kaasino"


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
def vip(writer: Writer) -> int:
    """Give the number of a segment that no loop looks at."""
    query = (
        "insert into crm.segments (tenant, name, definition, members) values (%s, 'VIP', %s, 0) returning segment_id"
    )
    (number,) = writer.connection.execute(query, (TENANT, Jsonb({}))).fetchone() or (0,)
    return int(number)


def move(writer: Writer, number: int, player: str, *, entered: bool) -> None:
    """Let a player enter or leave a segment."""
    connection = writer.connection
    with connection.transaction():
        ordered(connection)
        what = "array_append" if entered else "array_remove"
        query = (
            f"update crm.players set segment_ids = {what}(segment_ids, %s) where external_id = %s returning player_id"
        )
        (player_id,) = connection.execute(query.encode(), (number, player)).fetchone() or (0,)
        segment_feed.announce(connection, TENANT, [(player_id, number, entered)], clock.now())


def members(emulator: serve.Running, number: int) -> set[str]:
    """Return who is in a manual segment."""
    names = (f"kaasino:{n}" for n in range(10))
    found = {name: emulator.workspace.find("id", name) for name in names}
    return {name for name, person in found.items() if person is not None and number in person.segments}


def test_a_membership_is_an_attribute(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running, vip: int
) -> None:
    """It is "true" while the player is in the segment, and gone when not."""
    feed = feed_of(segments={"VIP": "vip_player"})
    writer.profiles(*players(2))
    feed.drain()
    assert "vip_player" not in attributes(emulator, "1")
    move(writer, vip, "1", entered=True)
    feed.drain()
    assert attributes(emulator, "1")["vip_player"] == "true"
    assert "vip_player" not in attributes(emulator, "0")
    move(writer, vip, "1", entered=False)
    feed.drain()
    assert "vip_player" not in attributes(emulator, "1")
    assert "email" in attributes(emulator, "1")


def test_a_membership_is_kept_in_step_with_a_manual_segment(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running, vip: int, look: Look
) -> None:
    """Those who are in it when the destination first hears of them, who enter and who leave; the excluded stay."""
    number = emulator.workspace.create_segment("VIPs").id
    feed = feed_of(segments={"VIP": number})
    writer.profiles(*players(3))
    move(writer, vip, "1", entered=True)
    feed.drain()
    assert members(emulator, number) == {"kaasino:1"}
    move(writer, vip, "2", entered=True)
    writer.profiles(*players(3, status_raw="BLOCKED", status="blocked", eligible=False))
    feed.drain()
    assert members(emulator, number) == {"kaasino:1", "kaasino:2"}
    move(writer, vip, "1", entered=False)
    feed.drain()
    assert members(emulator, number) == {"kaasino:2"}
    names = {row["player_id"]: row["names"] for row in look("select player_id, names from crm.delivered_profiles")}
    assert [f"segment:{number}" in names[player] for player in sorted(names)] == [False, False, True]
    assert all("segment" not in json.dumps(sent["attributes"]) for sent in feed.sent("profile"))


@pytest.mark.parametrize(
    "faults",
    [
        {"reset_rate": 0.4},
        {"error_rate": 0.4, "error_statuses": [429], "retry_after": None},
        {"error_rate": 0.4, "error_statuses": [503], "error_applies": True},
    ],
    ids=["lost reply", "429", "503 although applied"],
)
def test_what_nobody_knows_the_outcome_of_is_said_again(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running, vip: int, faults: dict[str, Any]
) -> None:
    """Requests may do their work and answer nothing, or be refused for a while: the segment is in step all the same."""
    number = emulator.workspace.create_segment("VIPs").id
    feed = feed_of(segments={"VIP": number})
    writer.profiles(*players(6))
    for player in ("0", "1", "2", "3"):
        move(writer, vip, player, entered=True)
    go_wrong(emulator, **faults)
    failed = feed.drain(failures=200)
    for player, entered in (("0", False), ("4", True), ("1", False)):
        move(writer, vip, player, entered=entered)
        failed += feed.drain(failures=200)
    assert failed
    assert members(emulator, number) == {"kaasino:2", "kaasino:3", "kaasino:4"}


def test_a_manual_segment_that_is_not_there_is_a_dead_letter(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running, vip: int, look: Look
) -> None:
    """The profile itself arrives, the others too; once the segment is there, the next change puts the player in."""
    feed = feed_of(segments={"VIP": 1})
    writer.profiles(*players(2))
    move(writer, vip, "1", entered=True)
    feed.drain()
    assert attributes(emulator, "1")["email"] == "player1@example.com"
    letters = look("select player_id, reason, message from crm.dead_letters")
    assert {(letter["player_id"], letter["reason"]) for letter in letters} == {(2, "segment")}
    assert "destinations[].segments" in letters[0]["message"]
    number = emulator.workspace.create_segment("VIPs").id
    writer.profiles(*players(2, country="ES"))
    feed.drain()
    assert members(emulator, number) == {"kaasino:1"}


def test_entering_and_leaving_are_events_that_can_be_subscribed_to(
    feed_of: Callable[..., Feed], writer: Writer, vip: int
) -> None:
    """They come behind the profile that says it, and not at all for a player who may not be marketed to."""
    feed = feed_of(segments={"VIP": "vip"}, events=["custom_segment_entered", "custom_segment_left"])
    writer.profiles(*players(1), {"external_id": "x", "status_raw": "BLOCKED", "eligible": False})
    feed.drain()
    for player in ("0", "x"):
        move(writer, vip, player, entered=True)
    feed.drain()
    move(writer, vip, "0", entered=False)
    feed.drain()
    sent = feed.sent("event")
    assert [event["name"] for event in sent] == ["custom_segment_entered", "custom_segment_left"]
    assert {event["identifiers"]["id"] for event in sent} == {"kaasino:0"}
    assert {key: sent[0]["attributes"][key] for key in ("segment", "segment_id")} == {
        "segment": "VIP",
        "segment_id": vip,
    }
    assert len({event["id"] for event in sent}) == 2
    mine = [kind for kind, player, _, _ in feed.log if player == 1]
    assert mine == ["profile", "profile", "event", "profile", "event"]


def test_a_segment_that_is_not_there_yet_is_warned_of(
    feed_of: Callable[..., Feed], writer: Writer, emulator: serve.Running
) -> None:
    """It may be made at any time: nothing stops for it."""
    feed = feed_of(segments={"Nobody's": "nobody"})
    writer.profiles(*players(1))
    feed.drain()
    assert "nobody" not in attributes(emulator, "0")
    found = [finding for finding in checks.check(feed.app.settings) if "Nobody's" in finding.text]
    assert [finding.level for finding in found] == ["warn"]
