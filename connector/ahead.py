"""Pages in three hands: while one is committed, the next is normalised and the one after that is read. Pure of both."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

R = TypeVar("R")
T = TypeVar("T")


def ahead(first: R, following: Callable[[R], R | None], finish: Callable[[R], T]) -> Generator[T]:
    """Yield `finish(page)` of the first page and of each that `following(the one before)` gives, until that is None.

    Each of the two is called on a thread of its own, in order, and at most two pages before the one that was yielded
    last: one is being finished, one read. What they raise is raised in the place of its page. When the caller stops
    early, what is under way is waited for and thrown away. Close it.
    """
    with ThreadPoolExecutor(1, "read-ahead") as reader, ThreadPoolExecutor(1, "normalise-ahead") as finisher:

        def after(before: Future[R | None]) -> R | None:
            page = before.result()
            return None if page is None else following(page)

        def finished(read: Future[R | None]) -> T | None:
            page = read.result()
            return None if page is None else finish(page)

        read = reader.submit(following, first)
        done: Future[T | None] = finisher.submit(finish, first)
        while (page := done.result()) is not None:
            done, read = finisher.submit(finished, read), reader.submit(after, read)
            yield page
