"""A range cut into buckets of marks: as wide as is cheap while both sides agree, finer only where they differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

#: Rows of a bucket that is compared by its sums, and of one that is compared row by row.
BUCKET_ROWS: Final = 100_000
LEAF_ROWS: Final = 5_000
#: A bucket that differs is cut into so many; the next bucket is at most so many times as wide as the one before.
WAYS: Final = 8
#: The greatest mark that the store can write: all above it look the same there.
GREATEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Bucket:
    """Marks from `low` up to, but not including, `high`."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What is known of a bucket's rows on one side: their number, amounts and key digests; None: it can't be told."""

    rows: int
    amount: Decimal | None = None
    digest: int | None = None

    def agrees(self, other: Sums) -> bool:
        """Return whether both sides hold the same rows, as far as sums can tell; what can't be told does not agree."""
        if self.rows == other.rows == 0:
            return True
        told = None not in (self.amount, self.digest, other.amount, other.digest)
        return told and (self.rows, self.amount, self.digest) == (other.rows, other.amount, other.digest)


@dataclass(frozen=True, slots=True)
class AmountColumn:
    """A view's column that holds the amounts of its rows, or of those whose `type_column` says one of `types`.

    `otherwise` is the column that holds them where this one is null.
    """

    column: str
    type_column: str | None = None
    types: tuple[str, ...] = ()
    otherwise: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of amounts, the one that goes first, first."""
        return (self.column,) if self.otherwise is None else (self.column, self.otherwise)


@dataclass
class Walk:
    """The way over some ranges. Take a bucket, then say what became of it: `agreed`, `differed` or `failed`.

    `tick` is the least width; bounds of ranges are multiples of it. `target` is how many rows a bucket should have.
    """

    ranges: list[Bucket]
    tick: int
    width: int
    target: int = BUCKET_ROWS
    _open: list[Bucket] = field(default_factory=list)
    _first: bool = False

    def __post_init__(self) -> None:
        self.ranges = [part for whole in self.ranges for part in _told_apart(whole)]

    def take(self) -> Bucket | None:
        """Return the next bucket, in order; None when all have been taken."""
        self._first = not self._open
        if self._open:
            return self._open.pop()
        if not self.ranges:
            return None
        whole = self.ranges.pop(0)
        high = min(whole.high, whole.low + max(1, self.width // self.tick) * self.tick)
        if high == whole.high or not self._divisible(whole):
            return whole
        self.ranges.insert(0, Bucket(high, whole.high))
        return Bucket(whole.low, high)

    def agreed(self, bucket: Bucket, rows: int) -> None:
        """Note that both sides agree on a bucket of so many rows."""
        self._adapt(bucket, rows)

    def differed(self, bucket: Bucket, rows: int) -> bool:
        """Return whether a bucket on which they differ is small enough to compare row by row; else it is cut."""
        self._adapt(bucket, rows)
        if rows <= LEAF_ROWS or not self._divisible(bucket):
            return True
        self._cut(bucket, WAYS)
        return False

    def failed(self, bucket: Bucket) -> None:
        """Take a bucket again that could not be read in time, in halves."""
        self.width = max(self.tick, (bucket.high - bucket.low) // 2)
        self._cut(bucket, 2)

    def _adapt(self, bucket: Bucket, rows: int) -> None:
        """Make the next bucket about as wide as `target` rows are."""
        if self._first:
            width = bucket.high - bucket.low
            wanted = width * self.target // max(rows, 1)
            self.width = max(self.tick, self.width // WAYS, min(wanted, self.width * WAYS))

    def _divisible(self, bucket: Bucket) -> bool:
        return bucket.high - bucket.low > self.tick and bucket.low < GREATEST

    def _cut(self, bucket: Bucket, ways: int) -> None:
        if not self._divisible(bucket):
            self._open.append(bucket)
            return
        step = max(self.tick, -(-(bucket.high - bucket.low) // ways // self.tick) * self.tick)
        lows = range(bucket.low, bucket.high, step)
        self._open += [Bucket(low, min(low + step, bucket.high)) for low in reversed(lows)]


def merged(ranges: Iterable[Bucket]) -> list[Bucket]:
    """Return the ranges in order, none empty, none touching another."""
    done: list[Bucket] = []
    for item in sorted(ranges, key=lambda item: item.low):
        if item.low >= item.high:
            continue
        if done and item.low <= done[-1].high:
            done[-1] = Bucket(done[-1].low, max(done[-1].high, item.high))
        else:
            done.append(item)
    return done


def within(ranges: Iterable[Bucket], low: int | None, high: int | None) -> list[Bucket]:
    """Return the ranges cut to [low, high); None: no bound."""
    cut = (
        Bucket(
            item.low if low is None else max(low, item.low),
            item.high if high is None else min(high, item.high),
        )
        for item in ranges
    )
    return [item for item in cut if item.low < item.high]


def _told_apart(whole: Bucket) -> list[Bucket]:
    if whole.low < GREATEST < whole.high:
        return [Bucket(whole.low, GREATEST), Bucket(GREATEST, whole.high)]
    return [whole]
