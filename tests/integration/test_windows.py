"""Totals and windows are exact at any moment: the store against an independent computation, while time walks on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock, edges as loop
from connector.store import database, edges, pending
from tests.integration.oracle import COUNTS, EFFECTS, KINDS, Row, midnight
from tests.integration.world import World, assert_exact, edges_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from connector.store.database import Database

Writer = Any
Look = Any
Frames = Any
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "40"))
#: More examples than usual take longer than a test may otherwise.
pytestmark = pytest.mark.timeout(0 if "CONNECTOR_EXAMPLES" in os.environ else 120)
#: SEK has a rate once somebody quotes it, FUN is play money, None means the player's own.
CURRENCIES: Final = ("EUR", "GBP", "TRX", "FUN", "SEK", None)
PLAYERS: Final = ("a", "b", "c")
TINY: Final = timedelta(microseconds=1)
DELTAS: Final = (timedelta(0), TINY, -TINY, timedelta(minutes=1), timedelta(hours=-1), timedelta(hours=7, seconds=1))
#: Zones with days of 23 and 25 hours near these dates, one whose missing hour is the one after midnight, and odd ones.
PLACES: Final = (
    ("Europe/Madrid", (2026, 3, 29)),
    ("Europe/Madrid", (2026, 10, 25)),
    ("America/New_York", (2026, 3, 8)),
    ("America/New_York", (2026, 11, 1)),
    ("Pacific/Auckland", (2026, 4, 5)),
    ("Pacific/Auckland", (2026, 9, 27)),
    ("America/Santiago", (2026, 9, 6)),
    ("Asia/Kathmandu", (2026, 1, 1)),
    ("UTC", (2026, 12, 31)),
)
SEARCH: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="CONNECTOR_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


# Histories ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """A row to be: its time is so many days from now, or from a local midnight near now, and a little."""

    player: str
    kind: str
    currency: str | None
    milli: int
    days: int
    local: bool
    delta: timedelta

    def row(self, key: str, world: World) -> Row:
        """Return the row as of now."""
        start = midnight(world.now, world.zone, self.days) if self.local else world.now + timedelta(days=self.days)
        amount = Decimal(self.milli) / 1000
        stake = amount * 2 if self.kind == "win" and self.milli % 2 else None
        return Row(key, self.player, self.kind, start + self.delta, amount, self.currency, stake)


def specs(kinds: Sequence[str]) -> st.SearchStrategy[Spec]:
    """Return rows of these kinds."""
    return st.builds(
        Spec,
        player=st.sampled_from(PLAYERS),
        kind=st.sampled_from(kinds),
        currency=st.sampled_from(CURRENCIES),
        milli=st.integers(1, 99_999),
        days=st.sampled_from([0, 0, -1, -2, -6, -7, -8, -29, -30, -31, -90, -91, 1, 2]),
        local=st.booleans(),
        delta=st.one_of(
            st.just(0 * TINY), st.sampled_from(DELTAS), st.integers(-(10**11), 10**11).map(lambda n: n * TINY)
        ),
    )


ANY_ROWS: Final = specs(list(KINDS))
SPECS: Final = st.one_of(specs(["deposit", "withdrawal", "deposit reversed", "withdrawal reversed"]), ANY_ROWS)
QUOTES: Final = st.tuples(
    *(st.just("quote"), st.sampled_from(["SEK", "SEK", "GBP"]), st.sampled_from([-200, -7, -1, 0, 1])),
    st.integers(1, 5000),
)
REPORTS: Final = st.tuples(
    *(st.just("report"), st.sampled_from(PLAYERS), st.sampled_from([-91, -8, -1, 0, 1])),
    st.sampled_from(["EUR", None, "GBP", "SEK", "FUN"]),
    st.dictionaries(st.sampled_from([*EFFECTS, *COUNTS]), st.integers(0, 999).map(Decimal), min_size=1),
)
PROFILES: Final = st.tuples(
    st.just("profile"), st.sampled_from(PLAYERS), st.sampled_from(["EUR", "GBP", "FUN", "SEK", None])
)
Step = tuple[Any, ...]
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("page"), st.lists(SPECS, min_size=1, max_size=8), st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 9), st.lists(SPECS, max_size=3), st.booleans()),
        PROFILES,
        QUOTES,
        REPORTS,
        st.tuples(st.just("wait"), st.integers(1, 10**11)),
        st.tuples(st.just("edge"), st.integers(0, 30), st.integers(-1, 1)),
        st.tuples(st.just("edge"), st.just(0), st.integers(-1, 1)),
        st.tuples(st.just("midnight"), st.integers(1, 3), st.integers(-1, 1)),
        st.tuples(st.just("jump"), st.integers(1, 100)),
        st.tuples(st.just("follow")),
    ),
    min_size=2,
    max_size=14,
)


ARRIVALS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("page"), st.lists(ANY_ROWS, min_size=3, max_size=12), st.booleans()),
        st.tuples(st.just("again"), st.integers(0, 9), st.lists(ANY_ROWS, max_size=8), st.booleans()),
        PROFILES,
        QUOTES,
        REPORTS,
    ),
    min_size=3,
    max_size=8,
)


def rows_of(world: World, specs: Sequence[Spec]) -> list[Row]:
    """Return new rows, and keep them as a page that may come again."""
    first = sum(len(page) for page in world.pages)
    rows = [spec.row(f"k{first + number}", world) for number, spec in enumerate(specs)]
    world.pages.append(rows)
    return rows


def take(world: World, step: Step) -> None:
    """Carry out one step of a history."""
    name, *rest = step
    if name == "page":
        world.page(rows_of(world, rest[0]), fresh=rest[1])
    elif name == "again" and world.pages:
        old = world.pages[rest[0] % len(world.pages)]
        world.page([*reversed(old), *rows_of(world, rest[1])], fresh=rest[2])
    elif name == "profile":
        world.profile(*rest)
    elif name == "quote":
        world.quote(rest[0], world.now + timedelta(days=rest[1]), Decimal(rest[2]) / 10_000)
    elif name == "report":
        world.report(rest[0], world.now + timedelta(days=rest[1]), *rest[2:])
    elif name == "wait":
        world.walk(world.now + timedelta(microseconds=rest[0]))
    elif name == "edge" and (ahead := edges_ahead(world)):
        world.walk(ahead[rest[0] % len(ahead)] + rest[1] * TINY)
    elif name == "midnight":
        world.walk(midnight(world.now, world.zone, rest[0]) + rest[1] * TINY)
    elif name == "jump":
        world.walk(world.now + timedelta(days=rest[0]))
    elif name == "follow":
        world.follow()
    if name in ("profile", "quote"):
        world.follow()  # before what waited for it is settled
    world.settle()


@pytest.fixture
def world_of(
    store: Database, writer: Writer, look: Look, frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[tuple[str, tuple[int, int, int]]], World]]:
    """Give a maker of empty worlds at a place and time; the store's clock is the newest world's."""
    made: list[World] = []
    monkeypatch.setattr(clock, "now", lambda: made[-1].now)
    monkeypatch.setattr(loop, "PLAYERS", 2)  # so that a run is cut, and goes on where it stopped
    monkeypatch.setattr(pending, "PIECE", 3)

    def make(place: tuple[str, tuple[int, int, int]]) -> World:
        if made:
            made[-1].close()
        zone, day = ZoneInfo(place[0]), datetime(*place[1], 12, tzinfo=UTC)
        made.append(World(store, writer, look, frames, zone, midnight(day, zone, -1) + timedelta(hours=15)))
        return made[-1]

    yield make
    for world in made[-1:]:
        world.close()


# What is the same ---------------------------------------------------------------------------------------------------


@given(place=st.sampled_from(PLACES), steps=STEPS)
@SEARCH
def test_no_window_moves_on_unseen(
    world_of: Callable[..., World], place: tuple[str, tuple[int, int, int]], steps: list[Step]
) -> None:
    """Who looks only at players marked as changed knows every window of every player, at any moment, to the microsecond."""
    world = world_of(place)
    for step in steps:
        take(world, step)
        assert_exact(world, world.seen(list(world.ids().values())))
    world.follow()
    assert_exact(world, world.picture)
    for step in (*[("edge", 0, 0)] * 6, ("midnight", 1, 0), ("jump", 29), ("edge", 0, 0), ("jump", 100)):
        take(world, step)
        world.follow()
        assert_exact(world, world.picture)


@pytest.mark.parametrize("left", [0, 1], ids=["no other edge", "another edge"])
def test_a_payment_that_comes_while_an_edge_is_passed_is_not_forgotten(
    world_of: Callable[..., World], monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Between the look at a player's next edge and the lock under which it is noted, a page can commit."""
    world = world_of(("UTC", (2026, 3, 10)))
    old = world.now - timedelta(days=89) if left else world.now - timedelta(days=90, hours=-1)
    world.page([Row("old", "a", "deposit", old, Decimal(5), "EUR")], fresh=True)
    ordered = database.ordered

    def late(connection: Any) -> None:
        monkeypatch.setattr(edges, "ordered", ordered)
        world.page([Row("late", "a", "deposit", world.now - timedelta(hours=1), Decimal(7), "EUR")], fresh=True)
        ordered(connection)

    monkeypatch.setattr(edges, "ordered", late)
    world.walk(edges_ahead(world)[0])
    for step in (*[("midnight", 1, 0)] * 2, ("jump", 7), ("jump", 30), ("jump", 60)):
        world.follow()
        assert_exact(world, world.picture)
        take(world, step)


@pytest.mark.parametrize("currency", ["EUR", "SEK", "FUN"])
def test_what_is_settled_after_the_profile_is_told_too(world_of: Callable[..., World], currency: str) -> None:
    """More waited for the currency than the profile's page settles: the rest follows, and marks the player again."""
    world = world_of(("UTC", (2026, 3, 10)))
    world.page([Row(f"k{n}", "a", "deposit", world.now - n * TINY, Decimal(5)) for n in range(8)], fresh=True)
    take(world, ("profile", "a", currency))
    world.follow()
    assert_exact(world, world.picture)


def test_a_rate_and_an_operators_word_hold_at_their_very_instant(world_of: Callable[..., World]) -> None:
    """A rate prices what happens at it, and totals as of an instant hold what happened then, whatever comes first."""
    world = world_of(("UTC", (2026, 3, 10)))
    at = world.now - timedelta(days=1)
    around = [at - TINY, at, at + TINY]

    def page(name: str) -> None:
        world.page(
            [Row(f"{name}{n}", "a", "deposit", when, Decimal(7), "SEK") for n, when in enumerate(around[:2])]
            + [Row(f"{name}b{n}", "b", "deposit", when, Decimal(5), "EUR") for n, when in enumerate(around)],
            fresh=False,
        )

    page("before")
    take(world, ("quote", "SEK", -1, 1000))
    take(world, ("report", "b", -1, "EUR", {"deposited": Decimal(100), "deposit_count": Decimal(9)}))
    page("after")
    world.follow()
    assert_exact(world, world.picture)
    assert world.books.totals("a")["total_deposited"] == 2 * 70
    assert world.books.totals("b")["total_deposited"] == 10_000 + 2 * 500


@given(place=st.sampled_from(PLACES), steps=ARRIVALS)
@SEARCH
def test_totals_are_those_of_the_rows(
    world_of: Callable[..., World], place: tuple[str, tuple[int, int, int]], steps: list[Step]
) -> None:
    """Whatever came, in any order and however often, rates late, and what the operator counts: lifetime totals in both currencies, counts, and first and last times."""
    world = world_of(place)
    for step in steps:
        take(world, step)
    money: dict[str, dict[str, dict[str, Any]]] = {}
    for row in world.look("select p.external_id, m.* from crm.player_money m join crm.players p using (player_id)"):
        kept = {name: n for name, n in row.items() if n and name not in ("external_id", "player_id", "currency")}
        if kept:
            money.setdefault(row["external_id"], {})[row["currency"]] = kept
    for row in world.look("select * from crm.players"):
        player = row["external_id"]
        expected = world.books.totals(player)
        assert {name: row[name] for name in expected} == expected, player
        assert money.get(player, {}) == world.books.money(player), player
