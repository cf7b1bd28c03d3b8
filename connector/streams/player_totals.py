"""`player_totals`: what the operator counts of a player's whole life, at `as_of`. It wins over what we count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.money import AMOUNT_LIMIT
from connector.normalised import REPORTED, Normalised
from connector.streams import values
from connector.streams.contract import IDENTITY, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Column -> the name of its total.
_TOTALS: Final = {
    "total_deposited": "deposited",
    "total_withdrawn": "withdrawn",
    "total_wagered": "wagered",
    "total_won": "won",
    "deposit_count": "deposit_count",
    "withdrawal_count": "withdrawal_count",
    "bet_count": "bet_count",
}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. A row that tells a total unreadably is refused whole: it is about money."""
    del context  # a total has no history: the newest one holds
    typed = values.typed(page, binding)
    checks = [*_unusable(typed, binding), *values.unreadable("currency", typed, binding)]
    good, rejections = values.split(page, typed, binding.contract.columns, checks)
    named = {"brand_id": pl.col("ext_brand_id"), "external_id": pl.col("user_ext_id")}
    named |= {name: pl.col(column) for column, name in _TOTALS.items()}
    told = good.with_columns_seq(**named).select_seq(pl.col(name).cast(dtype) for name, dtype in REPORTED.items())
    return Normalised(reported=told, rejections=rejections)


def _unusable(typed: pl.DataFrame, binding: Binding) -> Iterator[tuple[pl.Expr, str, str]]:
    for name in _TOTALS:
        yield from values.unreadable(name, typed, binding)
        yield pl.col(name) < 0, "negative", name
        yield pl.col(name) >= AMOUNT_LIMIT, "too large to be true", name
    yield pl.all_horizontal(pl.col(name).is_null() for name in _TOTALS), "tells no total", ""


CONTRACT: Final = Contract(
    stream="player_totals",
    columns=(
        Column("as_of", "time", required=True, aliases=("dt_update",)),
        *IDENTITY,
        Column("currency", "currency"),
        *(Column(name, "count" if name.endswith("count") else "amount") for name in _TOTALS),
    ),
    cursor=("as_of", "time"),
    keys=(("ext_brand_id", "user_ext_id"),),
    business_time="as_of",
    normalise=normalise,
    brings="facts",
)
