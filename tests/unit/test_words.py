"""Columns that repeat a few words are read as if each row were read for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
from hypothesis import given, settings, strategies as st

from connector import words as words_module
from connector.words import FEW, Words

if TYPE_CHECKING:
    import pytest


def read(word: pl.Expr) -> pl.Expr:
    """As a parser does: some words mean the same, some mean nothing."""
    upper = word.str.strip_chars().str.to_uppercase()
    return pl.when(upper != "").then(upper)


_TEXTS = st.none() | st.text(alphabet=" abAB\t\u00df", max_size=3)


@settings(max_examples=100, deadline=None)
@given(pages=st.lists(st.tuples(st.lists(_TEXTS, max_size=30), st.sampled_from([1, FEW])), max_size=4))
def test_each_row_means_what_its_word_means(pages: list[tuple[list[str | None], int]]) -> None:
    """Whatever words pages repeat, in whatever order and with whatever nulls, on few rows or on many, alone or later."""
    words = Words(read)
    for texts, times in pages:
        column = pl.Series("code", texts * times, dtype=pl.String)
        expected = column.to_frame().select(read(pl.col("code"))).to_series()
        assert words.each(column).equals(expected, check_dtypes=True, check_names=True)


def test_a_column_of_all_sorts_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view may put a text of its own into every row: what was looked up long ago is forgotten."""
    monkeypatch.setattr(words_module, "_KNOWN", 100)
    words = Words(read)
    for first in range(0, 1000, 25):  # half of each page is known from the one before
        column = pl.Series([f"a{number}" for number in range(first, first + 50)])
        assert words.each(column).to_list() == [text.upper() for text in column]
    assert len(words._known) <= 150
