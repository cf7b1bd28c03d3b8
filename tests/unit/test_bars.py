"""What is said of a job that is under way."""

from __future__ import annotations

from hypothesis import given, strategies as st

from connector.cli.bars import Speed, duration, line
from connector.store.backfills import Progress


def test_what_can_not_be_told_yet_is_not_told() -> None:
    """A first look knows no speed; a job without marks no share."""
    speed = Speed()
    speed.note(0.0, 100, None)
    assert line(Progress(2, 1, 100), speed, None) == "?, 100 rows, ? rows/s, ? left"
    speed.note(10.0, 2100, None)
    assert line(Progress(2, 1, 2100), speed, "the replica lags by 40 s") == (
        "?, 2,100 rows, 200 rows/s, ? left; waits: the replica lags by 40 s"
    )


def test_a_wait_is_told_before_anything_else_is_known() -> None:
    """Before its hours nothing is known of the job; while it is compared, how far that is."""
    assert line(None, Speed(), None) == ""
    assert line(None, Speed(), "its hours begin in 90 min") == "waits: its hours begin in 90 min"
    assert line(Progress(1, 1, 9, 1.0), Speed(), None, compared=5000) == "5,000 rows compared with the source"


def test_speed_and_time_left_are_those_of_the_last_minute() -> None:
    """A fast beginning that lies further back does not flatter."""
    speed = Speed()
    for now, rows, share in ((0.0, 0, 0.0), (100.0, 1_000_000, 0.5), (160.0, 1_060_000, 0.6)):
        speed.note(now, rows, share)
    assert line(Progress(16, 9, 1_060_000, 0.6), speed, None) == "60%, 1,060,000 rows, 1,000 rows/s, 4 min left"


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 10**9), st.floats(0, 1)), max_size=20))
def test_no_order_of_looks_makes_it_fail(looks: list[tuple[float, int, float]]) -> None:
    speed = Speed()
    for now, rows, share in sorted(looks):
        speed.note(now, rows, share)
        assert (speed.seconds_left or 0.0) >= 0.0
        assert line(Progress(1, 0, rows, share), speed, None)


def test_a_job_that_hardly_moves_has_no_end_in_sight() -> None:
    speed = Speed()
    speed.note(0.0, 0, 0.0)
    speed.note(1.0, 1, 5e-324)
    assert line(Progress(1, 0, 1, 5e-324), speed, None) == "0%, 1 rows, 1 rows/s, ? left"


def test_a_time_is_told_as_exactly_as_anybody_wants_it() -> None:
    assert [duration(seconds) for seconds in (0.2, 89, 100, 3700, 9000)] == [
        "1 s",
        "89 s",
        "2 min",
        "62 min",
        "2 h 30 min",
    ]
