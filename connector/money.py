"""Rates and subunits: native amounts into the tenant's base currency, exactly, locked at event time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.currencies import CRYPTO, scale
from connector.event import AMOUNT
from connector.words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Amounts from here on are refused at the door: no sum of a page and no product with a rate can overflow then.
AMOUNT_LIMIT: Final = 10**13
#: What subunits and products may come to: below 2^63, and below the 20 digits that a native amount has.
_SUBUNITS_LIMIT: Final = 9e18
_PRODUCT_LIMIT: Final = 1e18
_EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True)
class Rates:
    """What a tenant's amounts are worth: units of `base` for one unit of each currency that has a fixed rate.

    Fixed rates win over those that come with a time (see store.rates). Play money has none and enters no base total.
    """

    base: str
    fixed: Mapping[str, Decimal]
    play: frozenset[str] = frozenset({"FUN"})
    #: Decimal places of currencies that ISO 4217 does not know.
    scales: Mapping[str, int] = field(default_factory=lambda: CRYPTO)

    @property
    def constant(self) -> dict[str, Decimal]:
        """Return the rates that hold at any time: the base currency is one, play money has none."""
        known = {**self.fixed, self.base: Decimal(1)}
        return {currency: rate for currency, rate in known.items() if currency not in self.play}

    @property
    def places(self) -> int:
        """Return how many decimal places a subunit of the base currency has."""
        return scale(self.base, self.scales)

    def expression(self, currency: pl.Expr) -> pl.Expr:
        """Return the constant rate of a currency, null where there is none: never one to one."""
        known = self.constant
        values = pl.Series(list(known.values()), dtype=AMOUNT)
        return currency.replace_strict(list(known), values, default=None, return_dtype=AMOUNT)

    def is_play(self, currency: pl.Expr) -> pl.Expr:
        """Return whether a currency is play money, which waits for no rate and counts in no total."""
        return currency.is_in(sorted(self.play)).fill_null(value=False)

    @cached_property
    def words(self) -> Words:
        """Return what is constant of currencies, as structs: `rate`, `fx_rate_locked` (its text) and `play`."""
        return Words(self._of)

    def _of(self, currency: pl.Expr) -> pl.Expr:
        rate = self.expression(currency)
        return pl.struct(rate.alias("rate"), plain(rate).alias("fx_rate_locked"), self.is_play(currency).alias("play"))

    def subunits(self, amount: pl.Expr, rate: pl.Expr) -> pl.Expr:
        """Return the amount in base subunits as Int64, rounded half to even; null without a rate, or beyond 64 bits."""
        places = self.places
        return pl.map_batches(
            [amount, rate], lambda it: _rounded(it[0], it[1], places), return_dtype=pl.Int64, is_elementwise=True
        )


def valued(rows: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    """Return rows (native, native_stake, rate) with base amounts, which are null without a rate."""
    staked = rows["native_stake"].null_count() < rows.height  # most pages have none
    return rows.with_columns_seq(
        amount_base=rates.subunits(pl.col("native"), pl.col("rate")),
        stake_base=rates.subunits(pl.col("native_stake"), pl.col("rate")) if staked else pl.lit(None, dtype=pl.Int64),
    )


def _possible(amounts: pl.Series, rates: pl.Series, places: int) -> pl.Series:
    """Return amounts, null where the product does not fit: an overflow of decimals would fail the whole page."""
    limit = min(_PRODUCT_LIMIT, _SUBUNITS_LIMIT / 10**places)
    ends = [float(value or 0) for value in (amounts.min(), amounts.max(), rates.max())]  # type: ignore[arg-type]
    if max(-ends[0], ends[1]) * ends[2] < limit:
        return amounts
    size = pl.lit(amounts).cast(pl.Float64).abs() * pl.lit(rates).cast(pl.Float64)
    return pl.select(pl.when(size < limit).then(pl.lit(amounts))).to_series()


def _rounded(amounts: pl.Series, rates: pl.Series, places: int) -> pl.Series:
    """Return products in units of 10^-places. A product has 18 places itself: those that seem halves are told apart."""
    possible = _possible(amounts, rates, places)
    frame = pl.DataFrame({"amount": possible, "rate": rates.cast(AMOUNT)}).with_columns_seq(
        product=pl.col("amount") * pl.col("rate")
    )
    half = pl.lit(Decimal(5).scaleb(-places - 1), dtype=AMOUNT)
    near = pl.col("product").round(places)
    frame = frame.select_seq("amount", "rate", whole=near, seems=(pl.col("product") - near).abs() == half)
    whole = frame.select_seq((pl.col("whole") * 10**places).cast(pl.Int64, strict=False)).to_series()
    halves = frame["seems"].fill_null(value=False)
    if not halves.any():
        return whole
    exact = [
        int(_EXACT.quantize(_EXACT.multiply(amount, rate), Decimal(1).scaleb(-places)).scaleb(places, _EXACT))
        for amount, rate in frame.filter(halves).select_seq("amount", "rate").iter_rows()
    ]
    return whole.scatter(halves.arg_true(), exact)


def plain(amount: pl.Expr) -> pl.Expr:
    """Write an amount as a decimal text without trailing zeros ('12.5', '0'): JSON and CSV have no exact decimals."""
    return amount.cast(AMOUNT).cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
