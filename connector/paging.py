"""How many rows a page is asked for: as many as are read and committed in good time. Pure."""

from __future__ import annotations

from typing import Final

#: What a page should take to commit, at most: other streams and their news wait behind it.
COMMIT_SECONDS: Final = 1.0
#: What a page's texts should come to, at most; several pages are in memory at once.
BYTES: Final = 16 << 20
#: A first page is small: nobody knows yet what its rows cost, and the store has something to do sooner.
FIRST: Final = 5_000
#: Fewer rows than these are not asked for: a page has costs of its own.
LEAST: Final = 100


def fitted(limit: int, most: int, *, rows: int, seconds: float, size: int) -> int:
    """Return the next page's rows after one of `rows`, `size` bytes and `seconds` to commit, asked for with `limit`.

    What a row took tells what fits; a page never grows to more than its double, nor beyond `most`, and a page with next
    to nothing in it tells nothing.
    """
    if rows < min(LEAST, limit):
        return min(most, limit * 2)
    in_time = rows * COMMIT_SECONDS / seconds if seconds > 0 else most
    in_size = rows * BYTES / size if size > 0 else most
    return max(min(LEAST, most), min(limit * 2, int(min(in_time, in_size, most))))


def halved(limit: int) -> int:
    """Return the next page's rows after a transient failure: a shorter read meets fewer conflicts and time-outs."""
    return min(limit, max(LEAST, limit // 2))
