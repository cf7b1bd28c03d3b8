"""Columns that repeat a few words are read as if each row were read for itself."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings, strategies as st

from connector.words import each


def read(word: pl.Expr) -> pl.Expr:
    """As a parser does: some words mean the same, some mean nothing."""
    upper = word.str.strip_chars().str.to_uppercase()
    return pl.when(upper != "").then(upper)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.text(alphabet=" abAB\t\u00df", max_size=3), max_size=30))
def test_each_row_means_what_its_word_means(texts: list[str | None]) -> None:
    """Whatever words a column repeats, in whatever order and with whatever nulls, the rows mean what they mean alone."""
    column = pl.Series("code", texts, dtype=pl.String)
    assert each(column, read).equals(column.to_frame().select(read(pl.col("code"))).to_series(), check_names=True)
