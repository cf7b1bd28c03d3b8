"""The sportsbook's bets, as they are placed and as they are settled; their selections are in selections.py.

`sport_bet_open` -> `sport_bet_placed`: the stake is wagered. `sport_bet_settled`, one row per settlement:
`sport_bet_settled` (WON, LOST, HALF_*: the win is won), `sport_cashout` (what was paid out is won), `sport_bet_voided`
(the stake is taken back out of what was wagered, and the bet out of their number; nothing is won). A row with
`is_rollback` undoes one like it, as `custom_sport_bet_rolled_back`, a name of its own so that it counts in the
sportsbook: a bet's stake or a win is taken back, the stake of a void wagered again.

Each view has its own cursor: a settlement may come before its bet, or without it, and waits for nothing. A free bet's
stake counts as its view says, as in the casino: show `bet_amount` 0 if it is not to count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector import money
from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from connector.normalised import Normalised

_BET_STATUSES: Final = {
    **{name: name for name in ("WON", "LOST", "VOID", "CASHOUT", "HALF_WON", "HALF_LOST")},
    **dict.fromkeys(("WIN",), "WON"),
    **dict.fromkeys(("LOSS", "LOSE"), "LOST"),
    **dict.fromkeys(("VOIDED", "CANCELLED", "CANCELED", "REFUNDED"), "VOID"),
    **dict.fromkeys(("CASH_OUT", "CASHED_OUT"), "CASHOUT"),
    **dict.fromkeys(("HALF_WIN",), "HALF_WON"),
    **dict.fromkeys(("HALF_LOSS", "HALF_LOSE"), "HALF_LOST"),
}
#: Statuses whose win is what the row's `win_amount` says.
_PAID: Final = ("WON", "HALF_WON", "HALF_LOST")
#: Other words for the same; a word that is not here is passed on as it is: it means no money.
_BET_TYPES: Final = {"MULTIPLE": "MULTI", "COMBO": "MULTI", "ACCUMULATOR": "MULTI", "PARLAY": "MULTI"}
BET_ID: Final = Column("bet_id", "id", required=True, aliases=("sport_bet_ext_id", "sport_last_bet_id"))
_CURRENCY: Final = Column("currency", "currency", aliases=("core_wallet_currency",))
_IS_ROLLBACK: Final = Column("is_rollback", "flag", aliases=("sport_is_rollback",))


def placed(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise: `sport_bet_open`."""
    typed, back = values.typed(page, binding), _back()
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=[*transactions.unusable("bet_amount"), *values.unreadable("is_rollback", typed, binding)],
        event={
            "name": _unless(back, pl.lit("sport_bet_placed")),
            "transaction_id": pl.col("bet_id"),
            "occurred_at": pl.col("bet_date"),
            "amount": pl.col("bet_amount"),
            "effect": pl.lit("wagered"),
            "sign": pl.when(back).then(-1).otherwise(1),
        },
        named={
            "bet_id": pl.col("bet_id"),
            "bet_type": pl.col("bet_type").replace(_BET_TYPES).str.to_lowercase(),
            "amount_real": transactions.plain("bet_amount_real"),
            "amount_bonus": transactions.plain("bet_amount_bonus"),
            **{name: transactions.plain(name) for name in ("total_odds", "selection_count", "potential_win")},
            **transactions.texts(["is_live", "freebet_id"]),
            "rollback_of": pl.when(back).then(pl.lit("bet")),
        },
    )


def settled(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise: `sport_bet_settled`. `amount` is what the row adds to its total, or takes."""
    typed, status, back = values.typed(page, binding), pl.col("bet_status"), _back()
    void = status == "VOID"
    amount = (
        pl.when(void)
        .then(pl.col("bet_amount"))
        .when(status == "CASHOUT")
        .then(pl.coalesce("cashout_amount", "win_amount"))
        .when(status == "LOST")
        .then(pl.lit(0))
        .otherwise(pl.col("win_amount"))
    )
    name = (
        pl.when(void)
        .then(pl.lit("sport_bet_voided"))
        .when(status == "CASHOUT")
        .then(pl.lit("sport_cashout"))
        .otherwise(pl.lit("sport_bet_settled"))
    )
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=_settlement_checks(typed, binding),
        event={
            "name": _unless(back, name),
            "transaction_id": pl.col("bet_id"),
            "occurred_at": pl.col("settlement_date"),
            "amount": amount,
            "effect": pl.when(void).then(pl.lit("wagered")).otherwise(pl.lit("won")),
            "sign": pl.when(void != back).then(-1).otherwise(1),
        },
        named={
            "bet_id": pl.col("bet_id"),
            "outcome": pl.when(~back).then(status.str.to_lowercase()),
            "rollback_of": pl.when(back).then(status.str.to_lowercase()),
            "bet_amount": transactions.plain("bet_amount"),
            "payout": pl.when(status == "LOST").then(pl.lit("0")).when(~void).then(money.plain(amount)),
            "amount_real": pl.when(~void).then(transactions.plain("win_amount_real")),
            "amount_bonus": pl.when(~void).then(transactions.plain("win_amount_bonus")),
            "void_reason": pl.col("void_reason"),
        },
    )


def _back() -> pl.Expr:
    return pl.col("is_rollback").fill_null(value=False)


def _unless(back: pl.Expr, name: pl.Expr) -> pl.Expr:
    return pl.when(back).then(pl.lit("custom_sport_bet_rolled_back")).otherwise(name)


def _settlement_checks(typed: pl.DataFrame, binding: Binding) -> list[tuple[pl.Expr, str, str]]:
    """A row needs the amount that its status counts; the others may be anything, they count nowhere."""
    status, missing = pl.col("bet_status"), "missing or not a number"
    needed = {
        "bet_amount": status == "VOID",
        "cashout_amount": status == "CASHOUT",
        "win_amount": status.is_in(_PAID) | ((status == "CASHOUT") & pl.col("cashout_amount").is_null()),
    }
    return [
        *values.unreadable("is_rollback", typed, binding),
        *(
            (needed["cashout_amount"] & bad, reason, field)
            for bad, reason, field in values.unreadable("cashout_amount", typed, binding)
        ),
        *((needed[name] & pl.col(name).is_null(), missing, name) for name in ("bet_amount", "win_amount")),
        *(
            (counts & bad, reason, field)
            for name, counts in needed.items()
            for bad, reason, field in transactions.unusable(name)
        ),
    ]


OPEN: Final = Contract(
    stream="sport_bet_open",
    columns=(
        *IDENTITY,
        BET_ID,
        Column("bet_date", "time", required=True, aliases=("dt",)),
        Column("bet_amount", "amount", required=True, aliases=("sport_last_bet_amount",)),
        Column("bet_amount_real", "amount", aliases=("sport_last_bet_amount_real",)),
        Column("bet_amount_bonus", "amount"),
        Column("bet_type", "enum", aliases=("sport_bet_type", "sport_last_bet_type")),
        Column("total_odds", "number", aliases=("total_odds_decimal",)),
        Column("selection_count", "count", aliases=("sport_last_bet_selection_count",)),
        Column("potential_win", "amount"),
        Column("is_live", "flag"),
        Column("freebet_id", "id"),
        _CURRENCY,
        _IS_ROLLBACK,
    ),
    cursor=("id", "id"),
    keys=(("id",), ("bet_id",)),
    business_time="bet_date",
    start="now",
    amounts={"": (Amount("bet_amount"),)},
    normalise=placed,
)
SETTLED: Final = Contract(
    stream="sport_bet_settled",
    columns=(
        *IDENTITY,
        BET_ID,
        Column("settlement_date", "time", required=True, aliases=("settled_at", "dt")),
        Column("bet_status", "enum", required=True, aliases=("sport_bet_status", "status"), values=_BET_STATUSES),
        Column("bet_amount", "amount", aliases=("sport_last_bet_amount",)),
        Column("win_amount", "amount"),
        Column("win_amount_real", "amount", aliases=("sport_last_bet_win_amount_real",)),
        Column("win_amount_bonus", "amount"),
        Column("cashout_amount", "amount"),
        Column("void_reason"),
        _CURRENCY,
        _IS_ROLLBACK,
    ),
    cursor=("id", "id"),
    keys=(("id",), ("bet_id", "bet_status"), ("bet_id",)),
    business_time="settlement_date",
    start="now",
    amounts={
        "": (
            Amount("win_amount", _PAID, told_by="bet_status"),
            Amount("cashout_amount", ("CASHOUT",), told_by="bet_status", otherwise="win_amount"),
            Amount("bet_amount", ("VOID",), told_by="bet_status"),
        )
    },
    normalise=settled,
)
