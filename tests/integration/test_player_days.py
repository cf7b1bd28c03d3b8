"""The daily roll-up is what a plain count of the ledger says, however it was cut, settled, killed or begun anew."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock
from connector.store import pending, player_days, segment_feed
from tests.integration.daily import CURRENCIES, DAYS, NAMES, NOW, PLAYERS, TENANT, ZONES, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.store.database import Database

Writer = Any
Look = Any
Frames = Any
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "30"))
#: Player, name, hours from now (both sides of midnights and of what is kept), currency, amount.
EVENTS: Final = st.tuples(
    st.sampled_from(PLAYERS),
    st.sampled_from(NAMES),
    st.sampled_from([0, 0, -1, -1, -2, -24, -25, 3, -24 * 30, -24 * 364, -24 * 365, -24 * 366, -24 * 369]),
    st.sampled_from(CURRENCIES),
    st.one_of(st.none(), st.integers(0, 500)),
)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("page"), st.lists(EVENTS, min_size=1, max_size=8)),
        st.tuples(st.just("page"), st.lists(EVENTS, min_size=1, max_size=8)),
        st.tuples(st.just("profile"), st.sampled_from(PLAYERS), st.sampled_from(["EUR", "SEK", "FUN"])),
        st.tuples(st.just("quote"), st.sampled_from([-400, -30, -1, 0])),
        st.tuples(st.just("roll"), st.integers(1, 5), st.integers(1, 6)),
        st.tuples(st.just("killed"), st.integers(1, 5)),
        st.tuples(st.just("zone"), st.sampled_from(ZONES)),
        st.tuples(st.just("play"), st.sampled_from([("FUN",), ("FUN", "GBP"), ()])),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("rest")),
    ),
    min_size=3,
    max_size=14,
)


@pytest.fixture
def world_of(writer: Writer, look: Look, frames: Frames, monkeypatch: pytest.MonkeyPatch) -> Callable[[], World]:
    """Give a maker of empty worlds; the store's clock is the newest world's."""
    made: list[World] = []
    monkeypatch.setattr(clock, "now", lambda: made[-1].now)
    monkeypatch.setattr(pending, "PIECE", 3)

    def make() -> World:
        made.append(World(writer, look, frames))
        return made[-1]

    return make


@given(steps=STEPS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="CONNECTOR_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_days_are_what_the_ledger_says(world_of: Callable[[], World], steps: list[Any]) -> None:
    """Whatever came late, was settled later, was cut or killed, and whichever zone and play money hold by now."""
    world = world_of()
    for step in steps:
        take_and_compare(world, step)
    world.finish()
    assert world.stored() == world.expected()
    assert not player_days.advance(world.writer.connection, TENANT, world.now)
    assert world.stored() == world.expected()


def take_and_compare(world: World, step: Any) -> None:
    """Carry out a step; what is current is right at once."""
    world.take(step)
    feed = player_days.feed(world.writer.connection, TENANT, world.now)
    (head,) = world.look("select coalesce(max(seq), 0) as seq from crm.event_rows")
    if feed is not None and feed.built and not feed.stale and feed.event_seq == head["seq"]:
        assert world.stored() == world.expected()


@pytest.mark.parametrize("first", ["settled", "rolled"])
def test_an_amount_that_is_settled_while_the_days_are_rolled_up_is_counted_once(
    world_of: Callable[[], World], store: Database, first: str, wait: Any
) -> None:
    """Whoever comes second waits for the first, and sees what it did."""
    world = world_of()
    world.page([("a", "deposit_confirmed", 0, None, 5)])
    with store.connect() as other:
        for _ in range(2):  # the days have a zone, and no row yet
            player_days.advance(other, TENANT, world.now)
        thread = threading.Thread(target=world.writer.profiles, args=({"external_id": "a"},))
        if first == "rolled":
            with other.transaction():
                player_days.advance(other, TENANT, world.now)
                thread.start()
                wait(lambda: blocked(world), what="the settling waits for the roll-up")
        else:
            thread = threading.Thread(target=player_days.advance, args=(other, TENANT, world.now))
            with world.writer.connection.transaction():
                world.writer.profiles({"external_id": "a"})
                thread.start()
                wait(lambda: blocked(world), what="the roll-up waits for the settling")
        thread.join(20)
    world.finish()
    assert [row[:2] for row in world.stored().values()] == [(1, 500)]


def test_the_days_begin_behind_who_settles_meanwhile(world_of: Callable[[], World], store: Database, wait: Any) -> None:
    """Who settled before there was anybody that counts has committed before anything is counted."""
    world = world_of()
    world.page([("a", "deposit_confirmed", 0, None, 5)])
    with store.connect() as other:
        thread = threading.Thread(target=player_days.advance, args=(other, TENANT, world.now))
        with world.writer.connection.transaction():
            world.writer.profiles({"external_id": "a"})
            thread.start()
            wait(lambda: blocked(world, "advisory"), what="the beginning waits for the settling")
        thread.join(20)
    world.finish()
    assert [row[:2] for row in world.stored().values()] == [(1, 500)]


def blocked(world: World, *kinds: str) -> bool:
    """Return whether a session waits for another's lock, of a row by default."""
    query = "select count(*) n from pg_locks where not granted and locktype = any(%s)"
    return bool(world.look(query, list(kinds or ("transactionid", "tuple")))[0]["n"])


def test_those_whom_a_piece_touches_are_due(world_of: Callable[[], World]) -> None:
    """By an event, by a mark of any kind, by an amount that is settled; not by their own membership."""
    world = world_of()
    world.page([("a", "deposit_confirmed", 0, "EUR", 5)])
    world.finish()
    assert due(world) == []  # the first look at everybody comes by whole refreshes
    world.page([("b", "bet_placed", 0, "SEK", 5)])
    world.finish()
    assert due(world) == ["b"]
    clear(world)
    world.take(("quote", -1))
    assert due(world) == ["b"]
    world.take(("profile", "c", "EUR"))
    world.finish()
    assert due(world) == ["b", "c"]
    clear(world)
    with world.writer.connection.transaction():
        world.writer.connection.execute(
            "insert into crm.segments (tenant, name, definition, members) values (%s, 's', '{}', 0)", (TENANT,)
        )
        segment_feed.announce(world.writer.connection, TENANT, [(1, 1, True)], world.now)
    world.finish()
    assert due(world) == []


def due(world: World) -> list[str]:
    """Return who is due."""
    query = "select external_id from crm.segment_due join crm.players using (player_id) order by 1"
    return [row["external_id"] for row in world.look(query)]


def clear(world: World) -> None:
    """Look at nobody."""
    world.look("delete from crm.segment_due returning 1")


def test_days_that_no_window_reaches_are_forgotten_in_pieces(world_of: Callable[[], World]) -> None:
    world = world_of()
    world.page([("a", "login", -24 * days, "EUR", None) for days in (0, 1, 2, 300)])
    world.finish()
    world.now += timedelta(days=366)
    today = world.now.date()
    pieces = 0
    while player_days.prune(world.writer.connection, TENANT, today, limit=1):
        pieces += 1
    assert pieces == 3
    assert [row["day"] for row in world.look(DAYS)] == [NOW.date()]


def test_the_audience_of_another_tenant_counts_nothing_of_this_one(
    world_of: Callable[[], World], store: Database
) -> None:
    world = world_of()
    world.page([("a", "login", 0, "EUR", None)])
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute(
            "insert into crm.tenants (tenant, base_currency) values ('other', 'EUR') on conflict do nothing"
        )
        while player_days.advance(connection, "other", world.now):
            pass
    assert world.stored() == {}
