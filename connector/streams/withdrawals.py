"""`withdrawals`: one row per status -> `withdrawal_requested`, `_confirmed`, `_failed`, `custom_withdrawal_*`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.normalised import Normalised

#: Status -> event. Only COMPLETED adds to the player's total, and REVERSED takes it back.
EVENT_OF: Final = {
    "REQUESTED": "withdrawal_requested",
    "APPROVED": "custom_withdrawal_approved",
    "COMPLETED": "withdrawal_confirmed",
    "REJECTED": "withdrawal_failed",
    "CANCELLED": "withdrawal_failed",
    "FAILED": "withdrawal_failed",
    "REVERSED": "custom_withdrawal_reversed",
}
_SPELLINGS: Final = {**{name: name for name in EVENT_OF}, "CANCELED": "CANCELLED", "CONFIRMED": "COMPLETED"}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. A view without a status exposes completed withdrawals only."""
    typed = values.typed(page, binding)
    status = pl.col("withdrawal_status").fill_null("COMPLETED")
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=[
            *transactions.unusable("withdrawal_amount"),
            *values.unreadable("withdrawal_status", typed, binding),
        ],
        event={
            "name": status.replace_strict(EVENT_OF, return_dtype=pl.String),
            "transaction_id": pl.coalesce("transaction_id", "row_key"),
            "occurred_at": pl.col("transaction_date"),
            "amount": pl.col("withdrawal_amount"),
            "effect": pl.when(status.is_in(["COMPLETED", "REVERSED"])).then(pl.lit("withdrawn")),
            "sign": pl.when(status == "REVERSED").then(-1).otherwise(1),
        },
        named={
            "status": status,
            **transactions.texts(["payment_method", "provider"]),
            "reason": pl.when(status.is_in(["REJECTED", "CANCELLED", "FAILED"])).then(
                pl.coalesce("decline_reason", status.str.to_lowercase())
            ),
            "fee": transactions.plain("fee_amount"),
            **{name: transactions.plain(name) for name in transactions.BALANCES},
        },
    )


CONTRACT: Final = Contract(
    stream="withdrawals",
    columns=(
        Column("dt_finalized", "time", required=True),
        *IDENTITY,
        Column("transaction_id", "id", aliases=("withdrawal_id", "id")),
        Column("transaction_date", "time", required=True),
        Column("withdrawal_amount", "amount", required=True, aliases=("amount",)),
        Column("withdrawal_status", "enum", aliases=("status", "type"), values=_SPELLINGS),
        Column("currency", "currency", aliases=("core_wallet_currency",)),
        Column("payment_method", aliases=("withdrawal_method",)),
        Column("provider", aliases=("provider_name",)),
        Column("decline_reason", aliases=("reason",)),
        Column("fee_amount", "amount"),
        Column("bonus_balance", "amount"),
        Column("real_balance", "amount"),
        Column("total_balance", "amount"),
    ),
    cursor=("dt_finalized", "time"),
    keys=(("transaction_id", "withdrawal_status"), ("id",), ("transaction_id",)),
    business_time="transaction_date",
    amounts={"": (Amount("withdrawal_amount"),)},
    normalise=normalise,
)
