"""What payments, bets and bonuses share: from a typed frame of good rows to the canonical event frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from connector import money
from connector.event import EVENTS, packed
from connector.normalised import Normalised
from connector.streams import values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.streams.contract import Binding, Context

#: Balances that several views repeat beside each transaction.
BALANCES = ("bonus_balance", "real_balance", "total_balance")


def normalised(
    page: pl.DataFrame,
    typed: pl.DataFrame,
    binding: Binding,
    context: Context,
    *,
    checks: Sequence[tuple[pl.Expr, str, str]],
    event: Mapping[str, pl.Expr],
    named: Mapping[str, pl.Expr],
) -> Normalised:
    """Reject the bad rows and build events of the others.

    `event` holds expressions for the event columns that differ between streams (name, occurred_at, amount, ...),
    `named` those for the properties; the view's extra columns join the properties under their own names.
    """
    frame = typed.with_columns_seq(values.history(page, typed, binding, context).alias("history"))
    columns_of_mode = binding.contract.columns_for(binding.mode)
    good, rejections = values.split(
        page, frame, columns_of_mode, [*checks, *values.unreadable("currency", frame, binding)]
    )
    columns: dict[str, pl.Expr] = {
        "brand_id": pl.col("ext_brand_id"),
        "external_id": pl.col("user_ext_id"),
        "key": pl.col("row_key"),
        "currency": pl.col("currency"),
        "sign": pl.lit(1),
        "stake": pl.lit(None),
        "history": pl.col("history"),
        "mark": pl.col("mark"),
        **event,
    }
    shown = {**named, **{name: pl.col(f"extra:{name}") for name in binding.extra}}
    built = good.select_seq(
        *(columns[name].cast(dtype).alias(name) for name, dtype in EVENTS.items() if name in columns),
        *(expression.alias(f"p:{name}") for name, expression in shown.items()),
    )
    encoded = packed(built.select_seq(pl.col(f"p:{name}").alias(name) for name in shown))
    events = built.hstack(encoded).select_seq(*EVENTS)
    return Normalised(events=events, shape=tuple(shown), rejections=rejections)


def texts(names: Sequence[str]) -> dict[str, pl.Expr]:
    """Return property expressions that carry typed columns as they are; amounts become plain decimal texts."""
    return {name: pl.col(name) for name in names}


def plain(name: str) -> pl.Expr:
    """Return an amount column as a property."""
    return money.plain(pl.col(name))


def instant(name: str) -> pl.Expr:
    """Return a time column as a property."""
    return pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def unusable(name: str) -> list[tuple[pl.Expr, str, str]]:
    """Return the checks of an amount: a reversal is a row of its own, not a minus sign; sums must never overflow."""
    return [
        (pl.col(name) < 0, "negative amount", name),
        (pl.col(name) >= money.AMOUNT_LIMIT, "amount too large to be true", name),
    ]
