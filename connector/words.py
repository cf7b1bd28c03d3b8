"""Columns that repeat a few words: each word is looked at once, however often it stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable


def each(texts: pl.Series, read: Callable[[pl.Expr], pl.Expr]) -> pl.Series:
    """Return what `read` makes of a column of texts, whose rows must not concern each other; null stays null."""
    words = texts.drop_nulls().unique().alias("word")
    meant = words.to_frame().select(read(pl.col("word"))).to_series()
    return meant.gather(texts.cast(pl.Enum(words)).to_physical()).alias(texts.name)
