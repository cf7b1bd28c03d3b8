"""`failed_deposits`: attempts that brought no money -> `deposit_failed`; those under way -> `deposit_initiated`.

They change no total: the money of one that succeeds in the end comes with the stream `deposits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.normalised import Normalised

_STATUSES: Final = {
    **{name: name for name in ("FAILED", "CANCELLED", "PENDING")},
    **dict.fromkeys(("REJECTED", "DECLINED", "EXPIRED", "ERROR"), "FAILED"),
    "CANCELED": "CANCELLED",
    **dict.fromkeys(("PROCESSING", "INITIATED"), "PENDING"),
}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. A view without a status exposes attempts that have failed."""
    status = pl.col("status").fill_null("FAILED")
    pending = status == "PENDING"
    typed = values.typed(page, binding)
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=[*transactions.unusable("deposit_amount"), *values.unreadable("status", typed, binding)],
        event={
            "name": pl.when(pending).then(pl.lit("deposit_initiated")).otherwise(pl.lit("deposit_failed")),
            "transaction_id": pl.coalesce("transaction_id", "row_key"),
            "occurred_at": pl.col("transaction_date"),
            "amount": pl.col("deposit_amount"),
            "effect": pl.lit(None),
        },
        named={
            "status": status,
            "reason": pl.when(~pending).then(pl.coalesce("decline_reason", status.str.to_lowercase())),
            **transactions.texts(["payment_method", "provider"]),
        },
    )


CONTRACT: Final = Contract(
    stream="failed_deposits",
    columns=(
        Column("dt_finalized", "time", required=True),
        *IDENTITY,
        Column("transaction_id", "id", aliases=("id", "deposit_id")),
        Column("transaction_date", "time", required=True),
        Column("deposit_amount", "amount", required=True, lenient=True, aliases=("amount",)),
        Column("currency", "currency", aliases=("core_wallet_currency",)),
        Column("status", "enum", aliases=("deposit_status",), values=_STATUSES),
        Column("decline_reason", aliases=("reason",)),
        Column("payment_method", aliases=("deposit_method",)),
        Column("provider", aliases=("provider_name",)),
    ),
    cursor=("dt_finalized", "time"),
    keys=(("transaction_id", "status"), ("id",), ("transaction_id",)),
    business_time="transaction_date",
    amounts={"": (Amount("deposit_amount"),)},
    normalise=normalise,
)
