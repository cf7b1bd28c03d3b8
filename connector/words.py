"""Columns that repeat a few words: each word is looked at once, however often it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

#: A column of fewer rows is looked up row by row; of more, compiled code finds the words and puts them back.
FEW: Final = 500
#: A column may hold anything: so many words are remembered, and then forgotten.
_KNOWN: Final = 10_000


class Words:
    """What `read` makes of words, whatever page they stand on. Thread-safe."""

    def __init__(self, read: Callable[[pl.Expr], pl.Expr]) -> None:
        self._read = read
        self._known: dict[str | None, Any] = {None: None}
        self._dtype = self._meant(pl.Series(dtype=pl.String)).dtype

    def each(self, texts: pl.Series) -> pl.Series:
        """Return what `read` makes of a column of texts, whose rows must not concern each other; null stays null."""
        if len(texts) > FEW:
            words = texts.drop_nulls().unique()
            return self._meant(words).gather(texts.cast(pl.Enum(words)).to_physical()).alias(texts.name)
        told = texts.to_list()
        known: dict[str | None, Any] = self._known if len(self._known) < _KNOWN else {None: None}
        if unknown := [word for word in dict.fromkeys(told) if word not in known]:
            known |= zip(unknown, self._meant(pl.Series(unknown, dtype=pl.String)), strict=True)
            self._known = known
        return pl.Series(texts.name, [known[word] for word in told], dtype=self._dtype)

    def _meant(self, words: pl.Series) -> pl.Series:
        return words.to_frame("word").select_seq(self._read(pl.col("word"))).to_series()
