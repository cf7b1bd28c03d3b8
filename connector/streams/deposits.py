"""`deposits`: final deposits by `dt_finalized` -> `deposit_confirmed`; rolled back -> `custom_deposit_reversed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.normalised import Normalised

_FINAL: Final = ("COMPLETED", "COMPLETE", "CONFIRMED", "APPROVED", "SUCCESS", "SUCCESSFUL", "PAID", "SETTLED", "FINAL")
#: Not deposits (yet): left out. Any other word is refused, since it may mean money.
_OTHER: Final = (
    *("PENDING", "PROCESSING", "INITIATED", "NEW", "REQUESTED", "WAITING", "FAILED", "CANCELLED", "CANCELED"),
    *("REJECTED", "DECLINED", "EXPIRED", "ERROR"),
)
_STATUSES: Final = {name: name for name in (*_FINAL, *_OTHER)}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. Rows whose `deposit_status` is not final are not deposits yet: left out."""
    typed = values.typed(page, binding)
    if "deposit_status" in binding.columns:
        kept = ~typed["deposit_status"].is_in(_OTHER).fill_null(value=False)
        page, typed = page.filter(kept), typed.filter(kept).drop("row").with_row_index("row")
    reversed_ = pl.col("is_rollback").fill_null(value=False)
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=[*transactions.unusable("deposit_amount"), *values.unreadable("deposit_status", typed, binding)],
        event={
            "name": pl.when(reversed_).then(pl.lit("custom_deposit_reversed")).otherwise(pl.lit("deposit_confirmed")),
            "transaction_id": pl.coalesce("transaction_id", "row_key"),
            "occurred_at": pl.col("transaction_date"),
            "amount": pl.col("deposit_amount"),
            "effect": pl.lit("deposited"),
            "sign": pl.when(reversed_).then(-1).otherwise(1),
        },
        named={
            **transactions.texts(["payment_method", "provider", "bonus_code"]),
            **{name: transactions.plain(name) for name in transactions.BALANCES},
        },
    )


CONTRACT: Final = Contract(
    stream="deposits",
    columns=(
        Column("dt_finalized", "time", required=True),
        *IDENTITY,
        Column("transaction_id", "id", aliases=("id", "deposit_id")),
        Column("transaction_date", "time", required=True),
        Column("deposit_amount", "amount", required=True, aliases=("amount",)),
        Column("currency", "currency", aliases=("core_wallet_currency",)),
        Column("bonus_balance", "amount"),
        Column("real_balance", "amount"),
        Column("total_balance", "amount"),
        Column("bonus_code", aliases=("deposit_code",)),
        Column("payment_method", aliases=("deposit_method",)),
        Column("provider", aliases=("provider_name",)),
        Column("deposit_status", "enum", aliases=("status",), values=_STATUSES),
        Column("is_rollback", "flag", aliases=("acc_is_rollback",)),
    ),
    cursor=("dt_finalized", "time"),
    keys=(("transaction_id",), ("id",)),
    business_time="transaction_date",
    amounts={"": (Amount("deposit_amount"),)},
    normalise=normalise,
)
