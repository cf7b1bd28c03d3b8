"""Rates and subunits: native amounts into the tenant's base currency, exactly, locked at event time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import polars as pl

from connector.event import AMOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping


#: Amounts from here on are refused at the door: no sum of a page and no product with a rate can overflow then.
AMOUNT_LIMIT: Final = 10**13
#: What subunits and products may come to: below 2^63, and below the 20 digits that a native amount has.
_SUBUNITS_LIMIT: Final = 9e18
_PRODUCT_LIMIT: Final = 1e18
#: Decimal places of a base currency's subunit where they are not two (ISO 4217; crypto as UCRM stores it).
_SCALES: Final = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("USDT", "USDC", "TRX"), 6),
    **dict.fromkeys(("BTC", "ETH", "LTC", "BCH", "DOGE"), 8),
}


@dataclass(frozen=True)
class Rates:
    """Fixed rates: units of `base` for one unit of each currency. Play money has none and so enters no base total."""

    base: str
    fixed: Mapping[str, Decimal]
    play: frozenset[str] = frozenset({"FUN"})

    def expression(self, currency: pl.Expr) -> pl.Expr:
        """Return the rate of a currency, null where there is none: never one to one."""
        known = {self.base: Decimal(1), **self.fixed}
        values = pl.Series(list(known.values()), dtype=AMOUNT)
        return currency.replace_strict(list(known), values, default=None, return_dtype=AMOUNT)

    def is_play(self, currency: pl.Expr) -> pl.Expr:
        """Return whether a currency is play money, which waits for no rate and counts in no total."""
        return currency.is_in(sorted(self.play)).fill_null(value=False)

    def subunits(self, amount: pl.Expr, rate: pl.Expr) -> pl.Expr:
        """Return the amount in base subunits as Int64, rounded half to even; null without a rate, or beyond 64 bits."""
        places = scale(self.base)
        subunit: int = 10**places
        size = amount.cast(pl.Float64).abs() * rate.cast(pl.Float64)
        fits = (size * float(subunit) < _SUBUNITS_LIMIT) & (size < _PRODUCT_LIMIT)
        possible = pl.when(fits).then(amount)  # an overflow of decimals would fail the whole page
        return ((possible * rate).round(places) * subunit).cast(pl.Int64, strict=False)


def scale(currency: str) -> int:
    """Return how many decimal places the smallest unit of a currency has."""
    return _SCALES.get(currency, 2)


def plain(amount: pl.Expr) -> pl.Expr:
    """Write an amount as a decimal text without trailing zeros ('12.5', '0'): JSON and CSV have no exact decimals."""
    return amount.cast(AMOUNT).cast(pl.String).str.replace(r"\.?0+$", "")
