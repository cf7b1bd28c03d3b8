"""The way to the store fails in mid-transaction: no page is lost, and none is counted twice."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from connector.store import database

Make = Any
ROWS: Final = 300
CUTS: Final = 10


@pytest.fixture
def crossing(casino_of: Make, proxy_to: Make, reading: Make) -> Make:
    """Give a maker of a casino, a proxy before its store, and a loop that writes through it."""

    def make(**options: Any) -> Any:
        casino = casino_of("postgresql", **options)
        proxy = proxy_to(casino.store.url)
        return casino, proxy, reading(casino.settings(store=proxy.through(casino.store.url), page_rows=100))

    return make


@pytest.mark.parametrize("up", [True, False], ids=["on the way there", "on the way back"])
def test_a_store_connection_cut_at_any_byte_costs_its_page_alone(crossing: Make, drive: Make, *, up: bool) -> None:
    """Wherever it breaks, a page is there with its position or leaves no trace."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    casino, proxy, cycle = crossing()
    struck = 0
    while struck < CUTS and casino.stored() < casino.rows:
        proxy.cut_after(rng.randrange(40_000 if up else 6_000), up=up)
        struck += bool(drive(cycle, passes=1))
    proxy.restore()
    assert drive(cycle) == []
    assert struck >= CUTS // 3
    casino.assert_whole()


def test_a_commit_that_was_not_heard_is_made_again(crossing: Make, drive: Make) -> None:
    """The transaction was whole but for its COMMIT: nothing of it is there."""
    casino, proxy, cycle = crossing(rows=0)
    drive(cycle)
    casino.deposit(ROWS)
    proxy.cut_before(b"COMMIT")
    (failure,) = drive(cycle, passes=1)
    assert proxy.struck.is_set()
    assert "the store is not available" in str(failure)
    assert casino.stored() == 0
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_commit_whose_answer_is_lost_is_not_made_twice(crossing: Make, drive: Make) -> None:
    """The page is in the store and the connector was not told: it asks for its position before it reads on."""
    casino, proxy, cycle = crossing(rows=0)
    drive(cycle)
    casino.deposit(ROWS)
    proxy.cut_answer(b"COMMIT")
    (failure,) = drive(cycle, passes=1)
    assert proxy.struck.is_set()
    assert "the store is not available" in str(failure)
    assert casino.stored() == 100
    assert drive(cycle) == []
    casino.assert_whole()


@pytest.mark.parametrize(
    "statement", [b"into crm.leases", b"update crm.leases", b"insert into crm.checkpoints", b"update crm.checkpoints"]
)
def test_any_other_answer_may_be_lost_as_well(crossing: Make, drive: Make, statement: bytes) -> None:
    """A lease, or the first position of a stream, that was written without a word is found again."""
    casino, proxy, cycle = crossing(rows=ROWS)
    proxy.cut_answer(statement)
    failures = drive(cycle)
    assert proxy.struck.is_set()
    assert len(failures) == 1
    casino.assert_whole()


@pytest.mark.parametrize("statement", [b"copy ", b"update crm.leases set expires_at", b"COMMIT"])
def test_a_session_that_the_network_forgot_is_replaced_at_once(
    crossing: Make, drive: Make, monkeypatch: pytest.MonkeyPatch, statement: bytes
) -> None:
    """Nobody tells either side: the connector gives up waiting, and ends its old session, whose locks it would meet."""
    casino, proxy, cycle = crossing(rows=0)
    drive(cycle)
    casino.deposit(ROWS)
    monkeypatch.setattr(database, "SILENCE_SECONDS", 1.0)
    proxy.strand_before(statement)
    (failure,) = drive(cycle, passes=1)
    assert proxy.struck.is_set()
    assert "no answer within 1 s" in str(failure)
    assert casino.look("select * from pg_stat_activity where state like 'idle in transaction%%' and xact_start < now()")
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_store_that_goes_silent_is_waited_for(crossing: Make, drive: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything stands still for a while and then goes on: what was under way is given up, and nothing doubles."""
    casino, proxy, cycle = crossing(rows=0)
    drive(cycle)
    casino.deposit(ROWS)
    monkeypatch.setattr(database, "SILENCE_SECONDS", 1.0)
    proxy.stall_after(200)
    (failure,) = drive(cycle, passes=1)
    assert proxy.struck.is_set()
    assert "no answer within 1 s" in str(failure)
    proxy.resume()
    assert drive(cycle) == []
    casino.assert_whole()
