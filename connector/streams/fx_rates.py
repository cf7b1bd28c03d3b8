"""`fx_rates`: what a currency is worth from when on -> rates. Not an event: a row may be corrected."""

from __future__ import annotations

from typing import Final

import polars as pl

from connector.normalised import RATES, Normalised
from connector.streams import values
from connector.streams.contract import Binding, Column, Context, Contract


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. Rates of another base than the tenant's are left out where they are stored."""
    del context  # a rate has no history: it holds until the next one
    typed = values.typed(page, binding)
    checks = [(pl.col("rate") <= 0, "not above zero", "rate"), *values.unreadable("base", typed, binding)]
    good, rejections = values.split(page, typed, binding.contract.columns, checks)
    rates = good.select_seq(pl.col(name).cast(dtype) for name, dtype in RATES.items())
    return Normalised(rates=rates, rejections=rejections)


CONTRACT: Final = Contract(
    stream="fx_rates",
    columns=(
        Column("dt_update", "time", aliases=("dt",)),
        Column("currency", "currency", required=True),
        Column("valid_from", "time", required=True, aliases=("ts", "date")),
        Column("rate", "number", required=True),
        Column("base", "currency"),
    ),
    cursor=("dt_update", "time"),
    keys=(("base", "currency", "valid_from"), ("currency", "valid_from"), ("id",)),
    business_time="valid_from",
    normalise=normalise,
    brings="facts",
)
