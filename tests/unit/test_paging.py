"""Pages grow and shrink with what their rows cost."""

from __future__ import annotations

from hypothesis import given, strategies as st

from connector.paging import BYTES, COMMIT_SECONDS, LEAST, fitted, halved

most_ = st.integers(1, 200_000)
costs = st.floats(0, 0.1)


@given(most=most_, data=st.data(), second=costs, size=st.integers(0, 1 << 20))
def test_a_page_stays_within_its_bounds_and_at_most_doubles(
    most: int, data: st.DataObject, second: float, size: int
) -> None:
    """Whatever a page took, the next has at least a row and at most what is configured."""
    limit = data.draw(st.integers(1, most))
    rows = data.draw(st.integers(0, limit))
    found = fitted(limit, most, rows=rows, seconds=rows * second, size=rows * size)
    assert 1 <= found <= min(most, max(2 * limit, LEAST))
    assert 1 <= halved(limit) <= limit


@given(most=most_, data=st.data(), second=costs, size=st.integers(1, 1 << 20))
def test_full_pages_come_to_what_is_read_and_committed_in_good_time(
    most: int, data: st.DataObject, second: float, size: int
) -> None:
    """From any size, a few full pages lead to the greatest that keeps to time and bytes, or to the least there is."""
    limit = data.draw(st.integers(1, most))
    for _ in range(20):
        limit = fitted(limit, most, rows=limit, seconds=limit * second, size=limit * size)
    wanted = min(most, BYTES // size, int(min(most, COMMIT_SECONDS / second)) if second else most)
    assert abs(limit - max(min(LEAST, most), wanted)) <= 1


@given(most=most_, data=st.data())
def test_a_halved_page_grows_back_while_next_to_nothing_comes(most: int, data: st.DataObject) -> None:
    """A failure long ago is not remembered by quiet streams."""
    limit = halved(data.draw(st.integers(1, most)))
    for _ in range(20):
        limit = fitted(limit, most, rows=0, seconds=0.01, size=0)
    assert limit == most
