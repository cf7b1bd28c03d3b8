"""The way over a range: whatever differs is found, exactly once, and what agrees is asked for once."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from connector import buckets
from connector.buckets import GREATEST, Bucket, Sums, Walk, merged, within
from connector.event import key_parts, row_key

EXAMPLES: Final = settings(max_examples=200, deadline=None)
MARKS: Final = st.sets(st.integers(0, 5000), max_size=60)


@dataclass
class Sides:
    """The marks of rows at the source and in the store, and what a walk over them has done."""

    there: list[int]
    here: list[int]
    asked: int = 0
    seen: list[Bucket] = field(default_factory=list)
    found: set[int] = field(default_factory=set)

    def walk(self, walk: Walk, *, slow: int | None = None) -> None:
        """Do what an audit does; buckets with more rows than `slow` can't be read in time."""
        while (bucket := walk.take()) is not None:
            self.asked += 1
            there, here = (self._sums(marks, bucket) for marks in (self.there, self.here))
            if slow is not None and there.rows > slow and bucket.high - bucket.low > walk.tick:
                walk.failed(bucket)
            elif there.agrees(here):
                walk.agreed(bucket, there.rows)
                self.seen.append(bucket)
            elif walk.differed(bucket, max(there.rows, here.rows)):
                inside = [set(self._within(marks, bucket)) for marks in (self.there, self.here)]
                self.found |= inside[0] ^ inside[1]
                self.seen.append(bucket)

    def _sums(self, marks: list[int], bucket: Bucket) -> Sums:
        found = self._within(marks, bucket)
        return Sums(len(found), Decimal(0), sum(hash(("digest", mark)) for mark in found))

    @staticmethod
    def _within(marks: list[int], bucket: Bucket) -> list[int]:
        return marks[bisect_left(marks, bucket.low) : bisect_left(marks, bucket.high)]


@EXAMPLES
@given(
    st.sets(st.integers(0, 5000), max_size=300),
    MARKS,
    MARKS,
    st.sampled_from([1, 7, 100]),
    st.integers(1, 6000),
    st.sampled_from([1, 5, 50]),
    st.none() | st.integers(1, 40),
)
def test_what_is_missing_on_either_side_is_found(
    both: set[int], there: set[int], here: set[int], tick: int, width: int, leaf: int, slow: int | None
) -> None:
    """Exactly that; and the buckets that were judged cover the range once, without a gap or an overlap."""
    sides = Sides(sorted(both | there), sorted(both | here))
    end = 5001 // tick * tick + tick
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "LEAF_ROWS", leaf)
        sides.walk(Walk([Bucket(0, end)], tick, width, target=50), slow=slow)
    assert sides.found == (both | there) ^ (both | here)
    edges = sorted((bucket.low, bucket.high) for bucket in sides.seen)
    assert [low for low, _ in edges] == [0, *(high for _, high in edges[:-1])]
    assert edges[-1][1] == end
    assert all(bucket.low % tick == 0 for bucket in sides.seen)


@EXAMPLES
@given(st.integers(1, 20_000), st.integers(1, 1000), st.integers(1, 10**9))
def test_equal_sides_are_asked_once_a_bucket(rows: int, apart: int, width: int) -> None:
    """However far apart the rows are, and however wrong the first width was."""
    marks = list(range(0, rows * apart, apart))
    sides = Sides(marks, marks)
    target = 1000
    sides.walk(Walk([Bucket(0, rows * apart)], 1, width, target=target))
    assert sides.found == set()
    assert sides.asked <= 4 * rows / target + 15


def test_one_difference_costs_a_few_sums_more() -> None:
    """Only the bucket that differs is cut."""
    marks = list(range(100_000))
    equal, other = Sides(marks, marks), Sides(marks, [mark for mark in marks if mark != 77_777])
    for sides in (equal, other):
        sides.walk(Walk([Bucket(0, 100_000)], 1, 100_000))
    assert other.found == {77_777}
    assert (equal.asked, other.asked) == (1, 1 + buckets.WAYS + buckets.WAYS)


def test_marks_that_the_store_cannot_tell_apart_stay_together() -> None:
    """All above 64 signed bits are one bucket."""
    walk = Walk([Bucket(GREATEST - 10, GREATEST + 10**6)], 1, 4)
    taken = []
    while (bucket := walk.take()) is not None:
        taken.append(bucket)
        walk.agreed(bucket, 1)
    assert taken[-1] == Bucket(GREATEST, GREATEST + 10**6)
    assert all(bucket.high <= GREATEST for bucket in taken[:-1])
    assert Walk([], 1, 1).differed(taken[-1], 10**6)


@EXAMPLES
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50))),
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 50),
)
def test_ranges_are_merged_and_cut(pairs: list[tuple[int, int]], low: int | None, high: int | None) -> None:
    """The same marks as before, each once."""
    ranges = [Bucket(*pair) for pair in pairs]
    wanted = {mark for item in ranges for mark in range(item.low, item.high)}
    wanted = {mark for mark in wanted if (low is None or mark >= low) and (high is None or mark < high)}
    marks = [mark for item in within(merged(ranges), low, high) for mark in range(item.low, item.high)]
    assert marks == sorted(wanted)


def test_what_cannot_be_told_does_not_agree() -> None:
    """Unless there is nothing at all."""
    known = Sums(1, Decimal("1.50"), 7)
    assert known.agrees(Sums(1, Decimal("1.5"), 7))
    for other in (Sums(1, None, 7), Sums(1, Decimal("1.5")), Sums(2, Decimal("1.5"), 7), Sums(1, Decimal("NaN"), 7)):
        assert not known.agrees(other)
        assert not other.agrees(known)
    assert Sums(0).agrees(Sums(0, Decimal(0), 0))


@EXAMPLES
@given(st.lists(st.text("ab|\\\n", max_size=6), min_size=1, max_size=4))
def test_a_key_is_taken_apart_as_it_was_joined(parts: list[str]) -> None:
    """Bars, backslashes and line breaks included."""
    names = [f"c{n}" for n in range(len(parts))]
    joined = pl.DataFrame([parts], schema=dict.fromkeys(names, pl.String), orient="row").select(row_key(names)).item()
    assert key_parts(joined, len(parts)) == tuple(parts)
