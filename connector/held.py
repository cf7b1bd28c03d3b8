"""What was read above `sealed`, so that a sweep can tell what is new to it. Pure, bounded, lost with the process.

Ids that are their own key are kept as their gaps: an id that was never seen is suspect until it is sealed. All other
streams keep a 64-bit hash of each row's (cursor, key), or of all of it where rows change. Both may forget for room: a
forgotten row is read again and the store knows it already.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connector.position import Kind, Position

#: 16 MB of hashes, about half an hour of a stream of 1,000 rows/s.
MOST_KEYS: Final = 2_000_000
MOST_GAPS: Final = 50_000
_WHOLE: Final = re.compile(r"int|serial|^(numeric|decimal)\(\d+,\s*0\)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gap:
    """Ids that were not there when their neighbours were read, both ends included; `low` None: from the beginning."""

    low: int | None
    high: int


@dataclass
class Gaps:
    """The ledger of ids never seen, in order. `last`: the greatest id accounted for."""

    last: int | None = None
    gaps: list[Gap] = field(default_factory=list)

    def add(self, ids: pl.Series) -> None:
        """Account for ids read in order, all above `last`: what lies between them was not there."""
        numbers = ids.cast(pl.Int128)
        first = int(numbers[0])
        if self.last is None or first > self.last + 1:
            self.gaps.append(Gap(None if self.last is None else self.last + 1, first - 1))
        jumps = pl.DataFrame({"id": numbers, "step": numbers.diff()}).filter(pl.col("step") > 1)
        self.gaps += [Gap(int(number) - int(step) + 1, int(number) - 1) for number, step in jumps.iter_rows()]
        self.last = int(numbers[-1])
        while len(self.gaps) > MOST_GAPS:  # neighbours become one, with the row between them: it is read again
            pairs = zip(self.gaps[::2], [*self.gaps[1::2], self.gaps[-1]], strict=False)
            self.gaps = [Gap(one.low, other.high) for one, other in pairs]

    def reach(self, mark: int) -> None:
        """Account for ids up to a mark that was read before: those not found again are gaps like any other."""
        if self.last is not None and self.last < mark:
            self.gaps.append(Gap(self.last + 1, mark))
        elif self.last is None:
            self.gaps.append(Gap(None, mark))
        self.last = mark if self.last is None else max(self.last, mark)

    def within(self, after: int | None, until: int) -> list[Gap]:
        """Return the gaps in (after, until], cut to it."""
        start = 0 if after is None else bisect_right(self.gaps, after, key=lambda gap: gap.high)
        found = []
        for gap in self.gaps[start:]:
            if gap.low is not None and gap.low > until:
                break
            low = gap.low if after is None else max(after + 1, gap.low if gap.low is not None else after + 1)
            found.append(Gap(low, min(until, gap.high)))
        return found

    def fill(self, ids: Iterable[int]) -> None:
        """Take ids that have appeared out of their gaps."""
        for number in ids:
            index = bisect_left(self.gaps, number, key=lambda gap: gap.high)
            if index == len(self.gaps):
                continue
            gap = self.gaps[index]
            if gap.low is not None and gap.low > number:
                continue
            left = [Gap(gap.low, number - 1)] if gap.low is None or gap.low < number else []
            right = [Gap(number + 1, gap.high)] if number < gap.high else []
            self.gaps[index : index + 1] = [*left, *right]

    def release(self, sealed: int) -> None:
        """Forget what is sealed."""
        cut = bisect_right(self.gaps, sealed, key=lambda gap: gap.high)
        del self.gaps[:cut]
        if self.gaps and (self.gaps[0].low is None or self.gaps[0].low <= sealed):
            self.gaps[0] = Gap(sealed + 1, self.gaps[0].high)


@dataclass
class Keys:
    """Hashes of the rows read, by page; a page is released when the greatest of its marks is sealed."""

    columns: tuple[str, ...]
    pages: deque[tuple[int, int, pl.Series]] = field(default_factory=deque)
    count: int = 0

    def add(self, rows: pl.DataFrame, least: int, greatest: int) -> None:
        """Hold rows whose marks lie in [least, greatest]; the oldest pages make room."""
        hashes = self._hashes(rows)
        self.pages.append((least, greatest, hashes))
        self.count += hashes.len()
        while self.count > MOST_KEYS and len(self.pages) > 1:
            self.count -= self.pages.popleft()[2].len()

    def absent(self, rows: pl.DataFrame, least: int, greatest: int) -> pl.DataFrame:
        """Return those of rows with marks in [least, greatest] that are not held."""
        near = [hashes for first, last, hashes in self.pages if first <= greatest and last >= least]
        return rows.filter(~self._hashes(rows).is_in(pl.concat(near).implode())) if near else rows

    def release(self, sealed: int) -> None:
        """Forget the pages that are sealed."""
        self.pages = deque(page for page in self.pages if page[1] > sealed)
        self.count = sum(hashes.len() for _, _, hashes in self.pages)

    def _hashes(self, rows: pl.DataFrame) -> pl.Series:
        return rows.select_seq(self.columns).hash_rows()


Held = Gaps | Keys


@dataclass
class Pass:
    """How far the looks at one age have come: done up to `reached`, one up to `target` is under way at `at`."""

    due: float = 0.0
    reached: int | None = None
    target: int | None = None
    at: Position | None = None


def ledger(kind: Kind, cursor: str, key: tuple[str, ...], type_name: str, sealed: int | None) -> Held:
    """Return an empty ledger for a stream that is sealed up to a mark: gaps where whole ids are their own key."""
    if kind == "id" and key == (cursor,) and _WHOLE.search(type_name):
        return Gaps(sealed)
    return Keys(tuple(dict.fromkeys((cursor, *key))))
