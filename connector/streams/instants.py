"""Texts to instants: zone-aware, naive (UTC), ISO, a date, or an epoch integer in s, ms or us."""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.event import INSTANT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Way = Callable[[pl.Expr], pl.Expr]

#: What the store's calendar and ours both have, in microseconds: the years 1 to 9999.
_FIRST: Final = -62_135_596_800_000_000
_LAST: Final = 253_402_300_799_999_999
#: Nanoseconds would not fit, so epoch integers are told apart by their number of digits.
_EPOCH_DIGITS: Final = ((10, 1_000_000), (13, 1_000), (16, 1))


def instants(texts: pl.Series) -> pl.Series:
    """Parse a column of texts, in UTC; null where one is no time, or one that no calendar of the store can hold.

    A column is written in one way as a rule: the way that reads its first text is tried first, all of them on the texts
    that it leaves. No text can be read in two, none is read otherwise for having been cleaned.
    """
    first = texts.first(ignore_nulls=True)
    parsed = _read(_FREE[0] if first is None else _way(str(first)), texts)
    if parsed.null_count() > texts.null_count():
        left = (parsed.is_null() & texts.is_not_null()).arg_true()
        parsed = parsed.scatter(left, _read_in_turn(texts.gather(left)))
    fits = parsed.to_physical().is_between(_FIRST, _LAST)
    if fits.all():
        return parsed.alias(texts.name)
    return pl.select(pl.when(fits).then(parsed)).to_series().alias(texts.name)


def _read_in_turn(texts: pl.Series) -> pl.Series:
    left = texts.str.strip_chars().str.replace(r"[Zz]$|\s+UTC$", "+00").str.replace("T", " ", literal=True)
    parsed = pl.repeat(None, len(texts), dtype=INSTANT, eager=True)
    for way in sorted(_FREE, key=lambda way: _read(way, left.head(1)).null_count()):
        parsed = pl.select(pl.coalesce(parsed, _read(way, left))).to_series()
        if not parsed.null_count():
            break
        left = pl.select(pl.when(parsed.is_null()).then(left)).to_series()
    return parsed


def _way(text: str) -> Way:
    zone = "+00" if text.endswith("+00") else ""
    if (fixed := _FIXED.get((len(text) - len(zone), zone))) is not None:
        return fixed
    return next((way for way in _FREE if not _read(way, pl.Series([text])).null_count()), _FREE[0])


def _read(way: Way, texts: pl.Series) -> pl.Series:
    return texts.to_frame("text").select_seq(way(pl.col("text"))).to_series()


def _fixed(text: pl.Expr, *, fraction: str, zone: str) -> pl.Expr:
    """Of a fixed number of digits: what `_zoned` and `_naive` read too, in a quarter of the time."""
    naive = text.str.strip_suffix(zone) if zone else text
    parsed = naive.str.to_datetime(f"%Y-%m-%d %H:%M:%S{fraction}", strict=False, time_unit="us", cache=False)
    return parsed.dt.replace_time_zone("UTC")


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


_FREE: Final[Sequence[Way]] = (_zoned, _naive, _date, _epoch)
#: By the number of characters before the zone, and the zone.
_FIXED: Final[Mapping[tuple[int, str], Way]] = {
    (digits, zone): partial(_fixed, fraction=fraction, zone=zone)
    for zone in ("", "+00")
    for digits, fraction in ((26, ".%6f"), (23, ".%3f"), (19, ""))
}
