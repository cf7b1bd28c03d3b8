"""Realtime segments hold at any moment what a whole refresh would find, and each change of them is told once."""

from __future__ import annotations

import os
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import audience, clock
from connector.errors import Transient
from connector.segments import definition
from connector.segments.draft import Draft
from connector.store import pending, player_days, reports, segment_drafts, segment_feed, segments
from tests.integration.daily import CURRENCIES, NAMES, PLAYERS, TENANT, ZONES, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.store.database import Database

Writer = Any
Look = Any
Frames = Any
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "20"))


def event(name: str, days: int, aggregation: str, op: str, value: int) -> dict[str, Any]:
    """Return an event condition."""
    window = {"kind": "rolling", "days": days}
    return {"type": "event", "event": name, "window": window, "aggregation": aggregation, "op": op, "value": value}


def trait(field: str, op: str, value: Any) -> dict[str, Any]:
    """Return a trait condition."""
    return {"type": "trait", "field": field, "op": op, "value": value}


def since(days: int) -> dict[str, Any]:
    """Return the time at which a window begins."""
    return {"kind": "rolling", "days": days}


SEGMENTS: Final = {
    "depositors": ("AND", trait("total_deposited", ">=", 30_000), event("login", 3, "count", ">=", 1)),
    "players": ("AND", event("bet_placed", 2, "count", ">=", 2)),
    "fresh": ("AND", trait("last_seen_at", ">=", since(2))),
    "gone": ("AND", trait("last_seen_at", "<", since(3)), event("deposit_confirmed", 4, "count", "=", 0)),
    "spenders": (
        "OR",
        event("deposit_confirmed", 1, "sum", ">", 20_000),
        event("withdrawal_requested", 5, "max", ">", 1),
    ),
    "small": ("OR", event("bet_placed", 3, "last", "<=", 20_000), event("bet_placed", 30, "min", "=", 0)),
    "anyone": ("OR", trait("country", "!=", "ES")),
}
ROWS: Final = st.tuples(
    st.sampled_from(PLAYERS),
    st.sampled_from(NAMES),
    st.sampled_from([0, 0, 0, -1, -2, -24, -25, -49, 3, 26]),
    st.sampled_from(CURRENCIES),
    st.one_of(st.none(), st.integers(0, 500)),
)
PAGES: Final = st.tuples(st.just("page"), st.lists(ROWS, min_size=1, max_size=8))
STEPS: Final = st.lists(
    st.one_of(
        PAGES,
        PAGES,
        st.tuples(st.just("profile"), st.sampled_from(PLAYERS), st.sampled_from(["EUR", "SEK", "FUN"])),
        st.tuples(st.just("quote"), st.sampled_from([-30, -1, 0])),
        st.tuples(st.just("midnight"), st.integers(1, 3), st.integers(-1, 1)),
        st.tuples(st.just("midnight"), st.just(1), st.just(0)),
        st.tuples(st.just("wait"), st.integers(1, 80)),
        st.tuples(st.just("zone"), st.sampled_from(ZONES)),
        st.tuples(st.just("edit"), st.sampled_from(sorted(SEGMENTS)), st.sampled_from(sorted(SEGMENTS))),
        st.tuples(st.just("cut"), st.integers(1, 3)),
    ),
    min_size=3,
    max_size=12,
)


class Audience:
    """A world with segments, and the loop that keeps them."""

    def __init__(self, world: World, database: Database) -> None:
        self.world, self.loop = world, audience.Audience(TENANT, database)
        self.numbers: dict[str, int] = {}

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The writer's connection."""
        found: psycopg.Connection[Any] = self.world.writer.connection
        return found

    def create(self, name: str, like: str | None = None, strategy: str = "realtime") -> int:
        """Make a segment."""
        made = segment_drafts.create(self.connection, TENANT, draft(name, like or name, strategy))
        self.numbers[name] = made.segment_id
        return made.segment_id

    def take(self, step: tuple[Any, ...]) -> None:
        """Carry out one step of a history."""
        name, *rest = step
        if name == "midnight":
            zone = ZoneInfo(self.world.zone)
            day = self.world.now.astimezone(zone).date() + timedelta(days=rest[0])
            moment = datetime.combine(day, time(), zone).astimezone(UTC) + timedelta(microseconds=rest[1])
            self.world.now = max(self.world.now, moment)
        elif name == "edit":
            segment_drafts.edit(self.connection, TENANT, self.numbers[rest[0]], draft(*rest, "realtime"))
        elif name == "cut":
            for _ in range(rest[0]):
                self.loop.run_once()
        else:
            self.world.take(step)

    def drain(self) -> None:
        """Let the loop do all there is to do."""
        while self.loop.run_once().busy:
            pass

    def members(self) -> dict[int, set[int]]:
        """Return the players of every segment."""
        rows = self.world.look("select player_id, unnest(segment_ids) as segment_id from crm.players")
        return {
            number: {row["player_id"] for row in rows if row["segment_id"] == number}
            for number in self.numbers.values()
        }

    def told(self) -> list[tuple[int, str, bool]]:
        """Return what the ledger tells of memberships: player, segment, entered."""
        query = """
            select player_id, properties ->> 'segment' as segment, name = 'custom_segment_entered' as entered
            from crm.events where stream = 'segments' order by seq
        """
        return [tuple(row.values()) for row in self.world.look(query)]


def draft(name: str, like: str, strategy: str) -> Draft:
    """Return a segment to be made."""
    operator, *conditions = SEGMENTS[like]
    tree = definition.parse({"operator": operator, "conditions": conditions})
    return Draft(name=name, description="", definition=tree, refresh_strategy=strategy, schedule="0 4 * * *")


@pytest.fixture
def audience_of(
    store: Database, writer: Writer, look: Look, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Audience]]:
    """Give a maker of empty worlds; the store's clock is the newest world's."""
    made: list[Audience] = []
    monkeypatch.setattr(clock, "now", lambda: made[-1].world.now if made else datetime(2026, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(audience, "PLAYERS", 2)
    monkeypatch.setattr(player_days, "PIECE", 5)
    monkeypatch.setattr(pending, "PIECE", 3)

    def make() -> Audience:
        for old in made:
            old.loop.close()
        made.append(Audience(World(writer, look, frames), store))
        return made[-1]

    yield make
    for old in made:
        old.loop.close()


def assert_true(here: Audience) -> None:
    """Compare every membership to a whole refresh, and the counts to the members."""
    before = here.members()
    counts = {row["segment_id"]: row["members"] for row in here.world.look("select * from crm.segments")}
    assert counts == {number: len(players) for number, players in before.items()}
    today = here.world.now.astimezone(ZoneInfo(here.world.zone)).date()
    for name, number in here.numbers.items():
        done = segments.refresh(here.connection, TENANT, number, today)
        assert (done.entered, done.left, done.first) == ([], [], False), name


@given(first=PAGES, steps=STEPS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="CONNECTOR_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_realtime_memberships_are_what_a_refresh_finds(
    audience_of: Callable[[], Audience], first: Any, steps: list[Any]
) -> None:
    """After any history and at any moment, days, settled amounts, zones and edited segments included."""
    here = audience_of()
    here.take(first)
    for name in SEGMENTS:
        here.create(name)
    here.drain()
    assert here.told() == []  # whom a first refresh finds is no news
    known = here.members()
    edited = False
    for step in steps:
        here.take(step)
        edited = edited or step[0] == "edit"
        if step[0] != "cut":
            here.drain()
            assert_true(here)
    here.drain()
    assert_true(here)
    for player, segment, entered in here.told():
        members = known[here.numbers[segment]]
        assert edited or (player in members) != entered
        (members.add if entered else members.discard)(player)
    assert edited or known == here.members()


def test_who_enters_or_leaves_is_marked_and_told_once(audience_of: Callable[[], Audience], look: Look) -> None:
    here = audience_of()
    number = here.create("players")
    here.take(("page", [("a", "bet_placed", 0, "EUR", 1)]))
    here.drain()
    (mark,) = look("select change_seq from crm.player_changes union all select 0 order by 1 desc limit 1")
    here.take(("page", [("a", "bet_placed", 0, "EUR", 1), ("b", "login", 0, "EUR", None)]))
    here.drain()
    here.drain()

    assert here.told() == [(1, "players", True)]
    (event,) = look("select * from crm.events where stream = 'segments'")
    assert (event["source"], event["history"], event["properties"]) == (
        *("connector", False),
        {"segment_id": number, "segment": "players"},
    )
    changed = look("select player_id from crm.player_changes where change_seq > %s", mark["change_seq"])
    assert [row["player_id"] for row in changed] == [1]
    assert look("select members from crm.segments") == [{"members": 1}]
    here.take(("midnight", 2, 0))
    here.drain()
    assert here.told() == [(1, "players", True), (1, "players", False)]
    assert look("select members from crm.segments") == [{"members": 0}]
    assert look("select * from crm.segment_due") == []


def test_what_is_told_of_memberships_counts_nowhere_else(
    audience_of: Callable[[], Audience], look: Look, writer: Writer
) -> None:
    """Not in totals, not in days, not among the streams that status knows."""
    here = audience_of()
    here.create("players")
    here.drain()
    totals = "select session_count, bet_count, total_wagered, last_seen_at from crm.players"
    here.take(("page", [("a", "bet_placed", 0, "EUR", 1)] * 2))
    before = look(totals)
    here.drain()
    assert len(here.told()) == 1
    assert look(totals) == before
    assert [row["name_id"] for row in look("select distinct name_id from crm.player_days")] == [15]
    assert reports.status(writer.connection, TENANT, {})["streams"] == {}


def test_a_pass_that_was_killed_is_repeated_whole(
    audience_of: Callable[[], Audience], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = audience_of()
    here.create("players")
    here.drain()
    here.take(("page", [("a", "bet_placed", 0, "EUR", 1)] * 2))
    with monkeypatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise psycopg.OperationalError("gone")

        patch.setattr(segment_feed, "announce", die)
        with pytest.raises(Transient):
            here.drain()
    assert here.members() == {1: set()}
    here.drain()
    assert here.told() == [(1, "players", True)]


def test_nothing_is_counted_for_a_tenant_without_segments(audience_of: Callable[[], Audience], look: Look) -> None:
    """And whoever makes one later finds it filled from all that the store holds, those of before as no news."""
    here = audience_of()
    here.take(("page", [("a", "bet_placed", -1, "EUR", 1)] * 2))
    here.drain()
    assert look("select * from crm.segment_feed") == []
    number = here.create("players")
    here.drain()
    segment_drafts.delete(here.connection, TENANT, number)
    here.take(("page", [("b", "bet_placed", -1, "EUR", 1)] * 2))
    here.drain()
    assert {row["player_id"] for row in look("select * from crm.player_days")} == {1}
    here.numbers.clear()
    number = here.create("players")
    here.drain()
    assert here.members() == {number: {1, 2}}
    assert here.told() == []


def test_a_refresh_that_takes_long_goes_on_in_the_next_pass(
    audience_of: Callable[[], Audience], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom it found before the cut is no more news than the rest."""
    here = audience_of()
    for player in ("a", "b", "c"):
        here.take(("page", [(player, "bet_placed", 0, "EUR", 1)] * 2))
    here.create("players")
    monkeypatch.setattr(audience, "REFRESH_SECONDS", -1.0)
    monkeypatch.setattr(segments, "_PIECE", 1)
    passes = 0
    while here.loop.run_once().busy:
        passes += 1
    assert passes > 3
    assert here.members() == {1: {1, 2, 3}}
    assert here.told() == []


def test_a_schedule_is_kept(audience_of: Callable[[], Audience]) -> None:
    """At four o'clock by the reporting time zone, and not before; who enters then is news."""
    here = audience_of()
    here.world.zone = "America/New_York"
    here.world.use()
    here.create("players", strategy="scheduled")
    here.take(("midnight", 1, 0))
    here.world.now += timedelta(hours=4, microseconds=1)
    here.drain()
    here.take(("page", [("a", "bet_placed", -1, "EUR", 1)] * 2))
    here.world.now += timedelta(hours=23)
    here.drain()
    assert here.members() == {1: set()}
    here.world.now += timedelta(hours=1)
    here.drain()
    assert here.members() == {1: {1}}
    assert here.told() == [(1, "players", True)]


def test_a_segment_that_can_not_be_refreshed_says_why_and_holds_up_nobody(
    audience_of: Callable[[], Audience], look: Look
) -> None:
    here = audience_of()
    here.create("players")
    here.create("fresh")
    here.connection.execute("update crm.segments set definition = '{\"operator\": \"AND\"}' where name = 'players'")
    here.take(("page", [("a", "bet_placed", 0, "EUR", 1)]))
    here.drain()
    assert here.members() == {1: set(), 2: {1}}
    (row,) = look("select error, next_refresh_at - %s as wait from crm.segments where name = 'players'", here.world.now)
    assert "conditions" in row["error"]
    assert row["wait"] == timedelta(minutes=10)
