"""`bonuses`: one row per status that a bonus reaches -> `bonus_*`, `custom_bonus_*`. No total: it is not money yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.normalised import Normalised

#: Status -> event. WAGERED is a step on the way, for operators who tell of progress: several a bonus need an `id`.
EVENT_OF: Final = {
    "ISSUED": "bonus_claimed",
    "ACTIVE": "custom_bonus_activated",
    "WAGERED": "bonus_wagered",
    "WAGER_DONE": "bonus_completed",
    "LOST": "custom_bonus_cancelled",
    "CANCELLED": "custom_bonus_cancelled",
    "EXPIRED": "bonus_expired",
}
_SPELLINGS: Final = {
    **{name: name for name in EVENT_OF},
    **dict.fromkeys(("ACTIVATED", "HANDLE_BETS"), "ACTIVE"),
    "PROGRESS": "WAGERED",
    "COMPLETED": "WAGER_DONE",
    "CANCELED": "CANCELLED",
}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. `amount` is what the bonus is worth; no total counts it."""
    status = pl.col("status")
    return transactions.normalised(
        page,
        values.typed(page, binding),
        binding,
        context,
        checks=transactions.unusable("bonus_amount"),
        event={
            "name": status.replace_strict(EVENT_OF, return_dtype=pl.String),
            "transaction_id": pl.col("bonus_id"),
            "occurred_at": pl.col("bonus_date"),
            "amount": pl.col("bonus_amount"),
            "effect": pl.lit(None),
        },
        named={
            "status": status,
            **transactions.texts(["bonus_id", "bonus_type", "bonus_name", "is_freespin"]),
            **{name: transactions.plain(name) for name in ("wager_requirement", "wagered_amount", "spins")},
            "expires_at": transactions.instant("expires_at"),
        },
    )


CONTRACT: Final = Contract(
    stream="bonuses",
    columns=(
        *IDENTITY,
        Column("bonus_id", "id", required=True),
        Column("status", "enum", required=True, aliases=("bonus_status",), values=_SPELLINGS),
        Column("bonus_date", "time", required=True, aliases=("dt",)),
        Column("bonus_type"),
        Column("bonus_name"),
        Column("bonus_amount", "amount", aliases=("amount",)),
        Column("currency", "currency", aliases=("core_wallet_currency",)),
        Column("wager_requirement", "amount"),
        Column("wagered_amount", "amount"),
        Column("expires_at", "time"),
        Column("is_freespin", "flag"),
        Column("spins", "count"),
    ),
    cursor=("id", "id"),
    keys=(("id",), ("bonus_id", "status")),
    business_time="bonus_date",
    amounts={"": (Amount("bonus_amount"),)},
    normalise=normalise,
)
