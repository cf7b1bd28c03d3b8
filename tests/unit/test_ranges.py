"""Ranges cover what they are cut from: no gap, whatever the cursor and wherever the cut."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given, strategies as st

from connector.position import Position, cursor_text, mark_of
from connector.ranges import remainder, split

if TYPE_CHECKING:
    from connector.position import Kind

MICROSECOND = 1000
marks = st.integers(0, 2 * 10**15).map(lambda number: number * MICROSECOND)
ids = st.integers(-(10**6), 10**15)


def _texts(kind: Kind, numbers: list[int]) -> list[str]:
    return [str(n) if kind == "id" else cursor_text(n, like="2026-01-01 00:00:00+00") for n in sorted(numbers)]


def _covers(parts: list[tuple[str, str]], since: str, until: str, kind: Kind) -> None:
    assert (parts[0][0], parts[-1][1]) == (since, until)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(parts))
    bounds = [mark_of(text, kind) for part in parts for text in part]
    assert bounds == sorted(bounds)


@given(st.lists(marks, min_size=2, max_size=2))
def test_a_span_of_time_is_cut_into_few_ranges(numbers: list[int]) -> None:
    since, until = _texts("time", numbers)
    parts = split(since, until, kind="time")
    _covers(parts, since, until, "time")
    assert len(parts) <= 16


@given(st.lists(ids, min_size=2, max_size=2))
def test_a_span_of_ids_is_cut_into_few_ranges(numbers: list[int]) -> None:
    since, until = _texts("id", numbers)
    parts = split(since, until, kind="id")
    _covers(parts, since, until, "id")
    assert len(parts) <= 16


@given(st.lists(ids, min_size=3, max_size=3), st.integers(0, 10**9), st.integers(1, 200_000))
def test_the_rest_of_a_range_begins_at_the_row_that_was_read_last(numbers: list[int], rows: int, most: int) -> None:
    """Rows tied with it may be left, so its own cursor is in the first piece."""
    since, at, until = _texts("id", numbers)
    parts = remainder((since, until), Position(at, ("k",), int(at)), rows=rows, most=most, kind="id")
    _covers(parts, at, until, "id")
    assert len(parts) <= 64


@given(st.lists(marks, min_size=3, max_size=3), st.integers(0, 10**9))
def test_the_rest_of_a_span_of_time_is_cut_as_well(numbers: list[int], rows: int) -> None:
    since, at, until = _texts("time", numbers)
    last = Position(at, ("k",), mark_of(at, "time"))
    _covers(remainder((since, until), last, rows=rows, most=200_000, kind="time"), at, until, "time")


def test_pieces_are_as_many_as_the_rows_so_far_make_likely() -> None:
    """A tenth of the span held 200,000 rows: nine times as many are left."""
    parts = remainder(("0", "1000"), Position("100", ("k",), 100), rows=200_000, most=200_000, kind="id")
    assert len(parts) == 9
