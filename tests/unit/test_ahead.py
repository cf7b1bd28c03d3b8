"""Pages in three hands: in order, two ahead at most, a failure in its own place."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest
from hypothesis import given, strategies as st

from connector.ahead import ahead


@given(last=st.integers(0, 30))
def test_every_page_comes_once_and_in_order(last: int) -> None:
    with closing(ahead(0, lambda page: page + 1 if page < last else None, lambda page: page * 10)) as pages:
        assert list(pages) == [page * 10 for page in range(last + 1)]


@given(fails=st.integers(1, 12), stage=st.sampled_from(["read", "finish"]))
def test_a_failure_is_raised_after_the_pages_before_it(fails: int, stage: str) -> None:
    def following(page: int) -> int:
        if stage == "read" and page + 1 == fails:
            raise ConnectionError
        return page + 1

    def finish(page: int) -> int:
        if stage == "finish" and page == fails:
            raise ConnectionError
        return page

    with closing(ahead(0, following, finish)) as pages:
        assert [next(pages) for _ in range(fails)] == list(range(fails))
        with pytest.raises(ConnectionError):
            next(pages)


@given(stop=st.integers(0, 12))
def test_nothing_is_read_or_finished_more_than_two_pages_before_what_was_taken(stop: int) -> None:
    read, finished = [0], [-1]

    def following(page: int) -> int:
        read[0] = page + 1
        return page + 1

    def finish(page: int) -> int:
        finished[0] = page
        return page

    with closing(ahead(0, following, finish)) as pages:
        for page in pages:
            assert page <= finished[0] <= page + 1
            assert read[0] <= page + 2
            if page == stop:
                break


def test_one_page_is_read_while_another_is_finished_and_the_caller_has_a_third() -> None:
    together = threading.Barrier(3, timeout=30)

    def following(page: int) -> int | None:
        if page + 1 == 2:
            together.wait()
        return page + 1 if page < 2 else None

    def finish(page: int) -> int:
        if page == 1:
            together.wait()
        return page

    with closing(ahead(0, following, finish)) as pages:
        assert next(pages) == 0
        together.wait()
        assert list(pages) == [1, 2]
