"""What was read above `sealed`: no row that is new may look known, whatever was forgotten for room."""

from __future__ import annotations

from typing import Final

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from connector import held
from connector.held import Gap, Gaps, Keys, ledger

EXAMPLES: Final = settings(max_examples=150, deadline=None)
IDS: Final = st.sets(st.integers(1, 120), min_size=1).map(sorted)


def texts(ids: list[int]) -> pl.Series:
    return pl.Series(ids, dtype=pl.Int128).cast(pl.String)


def suspects(gaps: list[Gap], lowest: int = 1) -> set[int]:
    return {number for gap in gaps for number in range(lowest if gap.low is None else gap.low, gap.high + 1)}


@EXAMPLES
@given(st.lists(IDS, min_size=1, max_size=5), st.sampled_from([1, 2, 3, 50_000]), st.none() | st.integers(0, 50))
def test_every_id_that_was_not_read_is_suspect(pages: list[list[int]], most: int, start: int | None) -> None:
    """Up to the last one read, above what is sealed; with little room others may be suspect too."""
    ledger_ = Gaps(start)
    read: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "MOST_GAPS", most)
        for page in pages:
            fresh = [number for number in page if ledger_.last is None or number > ledger_.last]
            if fresh:
                ledger_.add(texts(fresh))
                read |= set(fresh)
        if not read:
            return
        missing = set(range((start or 0) + 1, max(read) + 1)) - read
        found = suspects(ledger_.gaps)
        assert found >= missing
        assert len(ledger_.gaps) <= most
        if most > 120:
            assert found == missing


@EXAMPLES
@given(IDS, st.lists(st.integers(1, 130), max_size=20), st.none() | st.integers(0, 130), st.integers(0, 130))
def test_gaps_are_cut_filled_and_released_by_id(
    page: list[int], filled: list[int], after: int | None, until: int
) -> None:
    """An id that has appeared is no suspect; what is asked for lies in (after, until]; what is sealed is gone."""
    ledger_ = Gaps()
    ledger_.add(texts(page))
    ledger_.fill(filled)
    expected = set(range(1, max(page) + 1)) - set(page) - set(filled)
    assert suspects(ledger_.gaps) == expected
    wanted = {number for number in expected if (after is None or number > after) and number <= until}
    assert suspects(ledger_.within(after, until)) == wanted
    ledger_.release(until)
    assert suspects(ledger_.gaps) == {number for number in expected if number > until}
    assert ledger_.gaps == sorted(ledger_.gaps, key=lambda gap: gap.high)


def test_ids_that_were_read_before_a_restart_and_are_gone_are_suspect() -> None:
    """A replica that is behind shows them later, and what lay between them then."""
    ledger_ = Gaps(50)
    ledger_.add(texts([51, 52]))
    ledger_.reach(60)
    assert ledger_.gaps == [Gap(53, 60)]


def test_ids_beyond_64_bits_have_gaps_too() -> None:
    """BIGINT UNSIGNED goes to 2^64."""
    ledger_ = Gaps(2**63)
    ledger_.add(texts([2**64 - 1]))
    assert ledger_.gaps == [Gap(2**63 + 1, 2**64 - 2)]


rows = st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), max_size=30)


def frame(listed: list[tuple[int, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        {"at": [str(mark) for mark, _ in listed], "id": [key for _, key in listed]},
        schema={"at": pl.String, "id": pl.String},
    )


@EXAMPLES
@given(st.lists(rows, max_size=6), rows.filter(bool), st.integers(-1, 30), st.sampled_from([5, 10_000]))
def test_a_row_that_was_not_read_is_absent_and_one_above_the_seal_is_not(
    pages: list[list[tuple[int, str]]], looked: list[tuple[int, str]], sealed: int, most: int
) -> None:
    """With room for all pages exactly the unread rows are absent; with little room no unread row is missed."""
    keys, read = Keys(("at", "id")), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "MOST_KEYS", most)
        for page in pages:
            if page:
                marks = [mark for mark, _ in page]
                keys.add(frame(page), min(marks), max(marks))
                read |= set(page)
        keys.release(sealed)
        marks = [mark for mark, _ in looked]
        absent = set(keys.absent(frame(looked), min(marks), max(marks)).rows())
    unread = {(str(mark), key) for mark, key in set(looked) - read}
    assert absent >= unread
    if most > 5:
        assert absent <= unread | {(str(mark), key) for mark, key in looked if mark <= sealed}


@pytest.mark.parametrize(
    ("kind", "key", "type_name", "expected"),
    [
        ("id", ("id",), "bigint", Gaps),
        ("id", ("id",), "bigint(20) unsigned", Gaps),
        ("id", ("id",), "numeric(20,0)", Gaps),
        ("id", ("id",), "numeric(20,4)", Keys),
        ("id", ("bet_id", "type"), "bigint", Keys),
        ("time", ("id",), "timestamp with time zone", Keys),
    ],
)
def test_only_whole_ids_that_are_their_own_key_are_kept_as_gaps(
    kind: str, key: tuple[str, ...], type_name: str, expected: type
) -> None:
    """Another row with the same id, or with one between two ids, would never be asked for."""
    assert isinstance(ledger(kind, "id", key, type_name, None), expected)  # type: ignore[arg-type]
