"""A stretch of a cursor cut into ranges, and what is left of one cut again. Pure.

Marks say where to cut; the bounds themselves are texts as the source writes them. Neighbours share their bound: rows on
it are read twice and stored once.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from connector.position import SECOND, Kind, Position, cursor_text, mark_of

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a job is cut into at first, and what none of these is narrower than: a range costs two queries, however empty.
_FIRST_RANGES: Final = 16
_DAY: Final = 86_400 * SECOND
_IDS: Final = 200_000
#: What is left of a range is cut into no more than this at once.
_MOST_PIECES: Final = 64

Bounds = tuple[str, str]


def split(since: str, until: str, *, kind: Kind) -> list[Bounds]:
    """Cut [since, until] evenly into ranges that together cover it."""
    first, last = mark_of(since, kind), mark_of(until, kind)
    return _cut(since, until, max(_IDS if kind == "id" else _DAY, (last - first) // _FIRST_RANGES + 1), kind=kind)


def remainder(bounds: Bounds, last: Position, *, rows: int, most: int, kind: Kind) -> list[Bounds]:
    """Cut what is left of a range after so many rows: about `most` in each, if it goes on like that.

    The first one begins at the cursor of the last row itself: rows tied with it may be left.
    """
    first, end = (mark_of(text, kind) for text in bounds)
    behind, ahead = last.mark - first, end - last.mark
    expected = rows * ahead // behind if behind > 0 else most * _FIRST_RANGES
    pieces = max(1, min(_MOST_PIECES, -(-expected // most)))
    return _cut(last.cursor, bounds[1], max(1, -(-ahead // pieces)), kind=kind)


def _cut(since: str, until: str, step: int, *, kind: Kind) -> list[Bounds]:
    first, last = mark_of(since, kind), mark_of(until, kind)
    inner: Sequence[int] = range(first + step, last, step)
    texts = [since, *(str(mark) if kind == "id" else cursor_text(mark, like=since) for mark in inner), until]
    return list(itertools.pairwise(texts))
