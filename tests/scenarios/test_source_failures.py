"""The source fails in every way a machine can; afterwards every row of the view is in the store exactly once."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest

from connector.sources.dialect import Settings

Make = Any
DIALECTS: Final = ("postgresql", "mysql", "odbc")
#: A page of deposits, in bytes on the wire, is more than this on every dialect.
HALF_A_PAGE: Final = 20_000
PAGE_ROWS: Final = 500
CUTS: Final = 10
HASTY: Final = Settings(statement_timeout=0.5, connect_timeout=0.5)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_connection_cut_at_any_byte_costs_its_page_alone(
    dialect: str, casino_of: Make, proxy_to: Make, reading: Make, drive: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a handshake, a query or a page: what was committed stays, the rest is read again, nothing stops."""
    monkeypatch.setattr("connector.cycle.PASS_SECONDS", 0)  # one page a pass, or all is read before much can fail
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    casino = casino_of(dialect)
    proxy = proxy_to(casino.operator.url)
    cycle = reading(casino.settings(url=proxy.through(casino.operator.url), page_rows=50))
    struck = 0
    while struck < CUTS and casino.stored() < casino.rows:
        proxy.cut_after(rng.choice((rng.randrange(4_000), rng.randrange(30_000))))
        struck += bool(drive(cycle, passes=1))
    proxy.restore()
    assert drive(cycle) == []
    assert struck >= CUTS // 3
    casino.assert_whole()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_source_that_goes_silent_in_mid_page_is_given_up(
    dialect: str, casino_of: Make, proxy_to: Make, reading: Make, drive: Make, limit_of: Make
) -> None:
    """Nothing arrives and nothing is reset: the read ends as a time-out, the page halves, and it is read later."""
    casino = casino_of(dialect, rows=PAGE_ROWS)
    proxy = proxy_to(casino.operator.url)
    cycle = reading(casino.settings(url=proxy.through(casino.operator.url), page_rows=PAGE_ROWS))
    desk = cycle.sit_down()
    desk.reader.sample()
    desk.reader.settings = HASTY
    proxy.stall_after(HALF_A_PAGE)
    (silent,) = drive(cycle, passes=1)
    assert proxy.struck.is_set()
    assert "no answer within 1 s" in str(silent)
    assert limit_of(cycle) == PAGE_ROWS // 2

    (away,) = drive(cycle, passes=1)  # a new connection is accepted and gets no word either
    assert "no answer within 1 s" in str(away)
    proxy.resume()
    assert drive(cycle) == []
    casino.assert_whole()


@pytest.mark.parametrize("dialect", ["mysql", "odbc"])
def test_a_page_too_large_for_a_slow_network_is_made_smaller(
    dialect: str, casino_of: Make, proxy_to: Make, reading: Make, drive: Make
) -> None:
    """It would take longer than a statement may; halved until it does not, it gets through."""
    casino = casino_of(dialect, rows=1_200)
    proxy = proxy_to(casino.operator.url)
    cycle = reading(casino.settings(url=proxy.through(casino.operator.url), page_rows=1_200))
    desk = cycle.sit_down()
    desk.reader.sample()
    desk.reader.settings = HASTY
    proxy.slow(90_000)
    failures = drive(cycle)
    assert failures
    assert all("no answer within 1 s" in str(failure) for failure in failures)
    casino.assert_whole()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_source_that_refuses_connections_is_tried_again(
    dialect: str, casino_of: Make, proxy_to: Make, reading: Make, drive: Make
) -> None:
    """Every pass fails as something that passes, and one line says what is refused."""
    casino = casino_of(dialect, rows=PAGE_ROWS)
    proxy = proxy_to(casino.operator.url)
    cycle = reading(casino.settings(url=proxy.through(casino.operator.url), page_rows=50))
    proxy.refuse()
    assert [len(drive(cycle, passes=1)) for _ in range(3)] == [1, 1, 1]
    proxy.cut_after(HALF_A_PAGE)
    drive(cycle, passes=1)
    proxy.refuse()
    assert [len(drive(cycle, passes=1)) for _ in range(3)] == [1, 1, 1]
    proxy.restore()
    assert drive(cycle) == []
    casino.assert_whole()
