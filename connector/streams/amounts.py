"""Texts to amounts: a number, a count, a currency's code, and whole subunits by the scale of their row's currency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.event import AMOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.streams.contract import Binding

#: A longer code is none.
CURRENCY_BYTES: Final = 16
#: Whole subunits can have more digits than an amount has before its point.
_WHOLE: Final = pl.Decimal(38, 0)


def amount(text: pl.Expr) -> pl.Expr:
    """Parse a number of at most 20 digits before the point and 18 behind it, with or without an exponent."""
    return text.str.strip_chars().cast(AMOUNT, strict=False)


def amounts(texts: pl.Series) -> pl.Series:
    """Parse a column as `amount` does: blanks are looked for only where something does not parse."""
    parsed = texts.cast(AMOUNT, strict=False)
    if parsed.null_count() == texts.null_count():
        return parsed
    return texts.to_frame("text").select_seq(amount(pl.col("text")).alias(texts.name)).to_series()


def count(text: pl.Expr) -> pl.Expr:
    """Parse a whole number, however it is written."""
    number = amount(text)
    whole = number.cast(_WHOLE)
    return pl.when((number == whole) & (number.abs() < 10**18)).then(whole.cast(pl.Int64, strict=False))


def currency(text: pl.Expr) -> pl.Expr:
    """Parse a currency's code in any case; a fixed-width column pads it with blanks."""
    code = text.str.strip_chars().str.to_uppercase()
    return pl.when((code != "") & (code.str.len_bytes() <= CURRENCY_BYTES)).then(code)


def present(column: pl.Expr) -> pl.Expr:
    """An empty text is an absent value; ids and texts are otherwise left as the source wrote them."""
    return pl.when(column != "").then(column)


def scaled(text: pl.Expr, code: pl.Expr, scales: Mapping[str, int]) -> pl.Expr:
    """Parse an amount by the scale of its row's currency, exactly: whole subunits become units by moving the point."""
    clean = text.str.strip_chars()
    digits = clean.cast(_WHOLE, strict=False).cast(pl.String)
    value = amount(text)
    for name, places in scales.items():
        whole = digits.str.strip_prefix("-").str.zfill(places + 1)
        sign = pl.when(digits.str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit(""))
        point = pl.concat_str(sign, whole.str.head(whole.str.len_chars() - places), pl.lit("."), whole.str.tail(places))
        units = pl.when(~_broken(text)).then(point.str.strip_suffix(".")).cast(AMOUNT, strict=False)
        value = pl.when(code == name).then(units).otherwise(value)
    return value


def in_parts(text: pl.Expr, code: pl.Expr, scales: Mapping[str, int]) -> pl.Expr:
    """Return whether an amount that must be whole subunits has a fraction: its view gives plain units, or rounds."""
    return (_broken(text) & code.is_in(sorted(scales))).fill_null(value=False)


def scaleless(binding: Binding) -> pl.Expr:
    """Return whether a row has amounts and no currency: its player's is not known here, and so nor is its scale."""
    columns = binding.contract.columns_for(binding.mode)
    names = [binding.columns[item.name] for item in columns if item.kind == "amount" and item.name in binding.columns]
    amounts = [present(pl.col(name)).is_not_null() for name in names]
    return pl.any_horizontal([pl.lit(value=False), *amounts]) & currency_of(binding).is_null()


def _broken(text: pl.Expr) -> pl.Expr:
    """Whether a number has a fraction; one with more digits than an amount may have is looked at as a text."""
    number = amount(text)
    fraction = text.str.contains(r"\.0*[1-9]") & ~text.str.to_lowercase().str.contains("e", literal=True)
    return pl.coalesce(number != number.cast(_WHOLE), fraction)


def currency_of(binding: Binding) -> pl.Expr:
    """Return the code of a row of the view, null where it tells none."""
    column = binding.columns.get("currency")
    return pl.lit(None, dtype=pl.String) if column is None else currency(present(pl.col(column)))
