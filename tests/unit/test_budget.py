"""What a backfill may cost its source: shares of time, rows a second, hours, the brake."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from connector.budget import Brake, Flow, Terms, Turn, fitting, minutes_until

seconds = st.floats(0.001, 20.0)


@given(st.floats(0.01, 1.0), st.lists(st.tuples(seconds, st.floats(0.0, 5.0)), min_size=2, max_size=30))
def test_between_any_two_queries_no_more_than_the_share_was_query_time(
    share: float, queries: list[tuple[float, float]]
) -> None:
    """However long each takes, and however long nobody asks: time that was not used is not saved up."""
    turn, now, taken = Turn(share), 0.0, []
    for took, idle in queries:
        now = max(now + idle, turn.free_at)
        taken.append((now, took))
        turn.took(now, now + took)
        now += took
    for first in range(len(taken)):
        busy = 0.0
        for (began, took), (later, _) in zip(taken[first:], taken[first + 1 :], strict=False):
            busy += took
            assert busy <= share * (later - taken[first][0]) + 1e-6, (began, later)


@given(st.floats(0.01, 16.0))
def test_sessions_together_have_the_whole_budget(busy: float) -> None:
    """Each rests, or none does; no session is given more than all of its time."""
    terms = Terms(busy)
    assert 0 < terms.share <= 1
    assert math.isclose(terms.share * terms.sessions, busy)


@given(st.floats(1.0, 1000.0), st.lists(st.tuples(st.integers(0, 5000), st.floats(0.0, 3.0)), min_size=1, max_size=30))
def test_rows_never_come_faster_than_the_rate(rate: float, pages: list[tuple[int, float]]) -> None:
    """Whoever waits until the flow is free has read no more than the rate allows since any page before."""
    flow, now, read = Flow(rate), 0.0, []
    for rows, idle in pages:
        now = max(now + idle, flow.free_at)
        read.append((now, rows))
        flow.read(now, rows)
    for first in range(len(read)):
        rows = 0
        for (_, count), (later, _) in zip(read[first:], read[first + 1 :], strict=False):
            rows += count
            assert rows <= rate * (later - read[first][0]) + 1e-6


def test_without_a_rate_nobody_waits() -> None:
    flow = Flow(None)
    flow.read(0.0, 10**9)
    assert flow.free_at == -math.inf
    assert Terms().page_rows(20_000) == 20_000
    assert Terms(rate=50.0).page_rows(20_000) == 50


@given(st.lists(st.one_of(st.none(), st.floats(0.0, 100.0)), min_size=1, max_size=30))
def test_the_brake_holds_while_the_lag_is_large_or_grows(lags: list[float | None]) -> None:
    """What the server does not tell holds nobody; a second more or less is noise."""
    brake, before = Brake(30.0), 0.0
    for lag in lags:
        known = lag or 0.0
        assert brake.look(lag) == (known > 30.0 or (known > before and known > 1.0))
        before = known


@pytest.mark.parametrize(
    ("hours", "minute", "wait"),
    [
        (None, 0, 0),
        ((60, 120), 59, 1),
        ((60, 120), 60, 0),
        ((60, 120), 119, 0),
        ((60, 120), 120, 1380),
        ((1320, 240), 1319, 1),
        ((1320, 240), 1439, 0),
        ((1320, 240), 239, 0),
        ((1320, 240), 240, 1080),
    ],
)
def test_hours_begin_with_their_first_minute(hours: tuple[int, int] | None, minute: int, wait: int) -> None:
    assert minutes_until(hours, minute) == wait


@given(st.integers(1, 20_000), st.floats(0.0, 60.0), st.floats(0.01, 1.0))
def test_a_page_shrinks_to_its_second_and_no_further_than_helps(limit: int, took: float, busy: float) -> None:
    """It never grows while it takes more than half of its time, and never beyond the most."""
    found = fitting(limit, took, Terms(busy), most=20_000)
    assert 1 <= found <= 20_000
    assert found <= limit or took < busy / 2
    assert found >= min(limit, 2500)


def test_a_page_that_takes_twice_its_time_is_halved() -> None:
    assert fitting(20_000, 1.0, Terms(0.5), most=20_000) == 10_000
    assert fitting(10_000, 0.2, Terms(0.5), most=20_000) == 20_000
