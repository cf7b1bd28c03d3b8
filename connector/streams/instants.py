"""Texts to instants: zone-aware, naive (UTC), ISO, a date, or an epoch integer in s, ms or us."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Way = Callable[[pl.Expr], pl.Expr]

#: Nanoseconds would not fit, so epoch integers are told apart by their number of digits.
_EPOCH_DIGITS: Final = ((10, 1_000_000), (13, 1_000), (16, 1))


def instants(texts: pl.Series) -> pl.Series:
    """Parse a column of texts, in UTC; null where one is no time, or one that no calendar of the store can hold.

    A column is written in one way as a rule: the way that reads its first text is tried first, each further one on what
    the ways before have left alone. No text can be read in two, none is read otherwise for having been cleaned.
    """
    parsed = _read(_ways(texts.drop_nulls().head(1))[0], texts)
    if parsed.null_count() > texts.null_count():
        parsed = _read_in_turn(texts, parsed)
    year = parsed.dt.year()
    fits = year.is_between(1, 9999)
    if fits.all():
        return parsed.alias(texts.name)
    return pl.select(pl.when(fits).then(parsed)).to_series().alias(texts.name)


def _read_in_turn(texts: pl.Series, parsed: pl.Series) -> pl.Series:
    clean = texts.str.strip_chars().str.replace(r"[Zz]$|\s+UTC$", "+00").str.replace("T", " ", literal=True)
    for way in _WAYS:
        if parsed.null_count() == texts.null_count():
            break
        left = pl.select(pl.when(parsed.is_null()).then(clean)).to_series()
        parsed = pl.select(pl.coalesce(parsed, _read(way, left))).to_series()
    return parsed


def _ways(first: pl.Series) -> Sequence[Way]:
    return sorted(_WAYS, key=lambda way: _read(way, first).null_count())


def _read(way: Way, texts: pl.Series) -> pl.Series:
    return texts.to_frame("text").select(way(pl.col("text"))).to_series()


def _zoned(text: pl.Expr) -> pl.Expr:
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")


def _naive(text: pl.Expr) -> pl.Expr:
    return text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us").dt.replace_time_zone("UTC")


def _date(text: pl.Expr) -> pl.Expr:
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _epoch(text: pl.Expr) -> pl.Expr:
    number = pl.when(text.str.contains(r"^-?\d{1,16}$")).then(text).cast(pl.Int64, strict=False)
    digits = text.str.strip_prefix("-").str.len_chars()
    scaled = reduce(
        lambda rest, step: pl.when(digits <= step[0]).then(number * step[1]).otherwise(rest),
        reversed(_EPOCH_DIGITS),
        pl.lit(None, dtype=pl.Int64),
    )
    return scaled.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


_WAYS: Final[Sequence[Way]] = (_zoned, _naive, _date, _epoch)
