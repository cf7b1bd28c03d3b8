"""`casino_bets` and `casino_wins`: bets, wins and their rollbacks in the three shapes that operators have.

`single_table`: one view with a `type`. `separate`: bets here, wins in `casino_wins`. `win_per_bet`: one row per bet at
its resolution, even when nothing was won. Wagered comes from bet rows and won from win rows, so a stake repeated on a
win row is never counted; only `win_per_bet` takes both from the same row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.money import plain
from connector.streams import transactions, values
from connector.streams.contract import IDENTITY, Amount, Binding, Column, Context, Contract
from connector.words import Words

if TYPE_CHECKING:
    from connector.normalised import Normalised

_TYPES: Final = {
    "BET": "bet",
    "WIN": "win",
    "LOSS": "loss",
    "ROLLBACK_BET": "rollback_bet",
    "BET_ROLLBACK": "rollback_bet",
    "ROLLBACK_WIN": "rollback_win",
    "WIN_ROLLBACK": "rollback_win",
}
#: UCRM's closed list of categories; the operator's own word stays beside it.
_CATEGORIES: Final = ("slots", "live", "table", "crash", "dice", "sports")
_CATEGORY_SPELLINGS: Final = {
    "slot": "slots",
    "live_casino": "live",
    "table_games": "table",
    "roulette": "table",
    "blackjack": "table",
}


def normalise(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise. `amount` is the row's own: the stake of a bet, the win of a win row."""
    typed = values.typed(page, binding)
    category = _WORDS.each(typed["game_category"]).fill_null("other").alias("category")
    # Columns, not expressions: polars works an expression out anew wherever it stands, and these stand everywhere.
    typed = typed.with_columns_seq(category, kind=_kind(binding)).with_columns_seq(
        is_bet=pl.col("kind").is_in(["bet", "rollback_bet"]), rolled_back=pl.col("kind").str.starts_with("rollback")
    )
    kind, is_bet, rolled_back = pl.col("kind"), pl.col("is_bet"), pl.col("rolled_back")
    amount = (
        pl.when(is_bet).then(pl.col("bet_amount")).when(kind == "loss").then(pl.lit(0)).otherwise(pl.col("win_amount"))
    )
    both = binding.mode == "win_per_bet"
    return transactions.normalised(
        page,
        typed,
        binding,
        context,
        checks=_amount_checks(kind, is_bet, both=both),
        event={
            "name": pl.when(rolled_back)
            .then(pl.lit("custom_bet_rolled_back"))
            .when(is_bet)
            .then(pl.lit("bet_placed"))
            .otherwise(pl.lit("bet_settled")),
            "transaction_id": pl.coalesce("bet_id", "row_key"),
            "occurred_at": pl.col("bet_date"),
            "amount": amount,
            "effect": pl.when(is_bet).then(pl.lit("wagered")).otherwise(pl.lit("won")),
            "sign": pl.when(rolled_back).then(-1).otherwise(1),
            "stake": pl.when(~is_bet).then(pl.col("bet_amount")) if both else pl.lit(None),
        },
        named=_properties(kind, is_bet, rolled_back),
    )


def _kind(binding: Binding) -> pl.Expr:
    """The row's type: told by the view in `single_table`, else by the mode or the stream; a flag may reverse it."""
    told = pl.lit("bet" if binding.mode == "separate" else "win")
    kind = pl.col("type") if binding.mode == "single_table" else told
    reversed_ = pl.col("is_rollback").fill_null(value=False) & kind.is_in(["bet", "win"])
    return pl.when(reversed_).then(pl.concat_str(pl.lit("rollback_"), kind)).otherwise(kind)


def _amount_checks(kind: pl.Expr, is_bet: pl.Expr, *, both: bool) -> list[tuple[pl.Expr, str, str]]:
    """A bet needs its stake and a win its payout; the other amount of the row may be anything, it counts nowhere."""
    wins = kind.is_in(["win", "rollback_win"])
    return [
        (is_bet & pl.col("bet_amount").is_null(), "missing or not a number", "bet_amount"),
        (wins & pl.col("win_amount").is_null(), "missing or not a number", "win_amount"),
        *(((is_bet | both) & bad, reason, name) for bad, reason, name in transactions.unusable("bet_amount")),
        *((wins & bad, reason, name) for bad, reason, name in transactions.unusable("win_amount")),
    ]


def _category(word: pl.Expr) -> pl.Expr:
    """Return UCRM's category of the operator's word."""
    lower = word.str.to_lowercase().replace(_CATEGORY_SPELLINGS)
    return pl.when(lower.is_in(_CATEGORIES)).then(lower).otherwise(pl.lit("other"))


_WORDS: Final = Words(_category)


def _properties(kind: pl.Expr, is_bet: pl.Expr, rolled_back: pl.Expr) -> dict[str, pl.Expr]:
    settled = ~is_bet & ~rolled_back
    category = pl.col("category")
    won = pl.when(kind == "loss").then(pl.lit(0)).otherwise(pl.col("win_amount"))
    return {
        "bet_id": pl.coalesce("bet_id", "row_key"),
        "round_id": pl.col("round_id"),
        "game_id": pl.col("game_id"),
        "game_name": pl.col("game_name"),
        "game_category": category,
        "game_provider": pl.col("game_provider"),
        "amount_real": plain(pl.when(is_bet).then("bet_amount_real").otherwise("win_amount_real")),
        "amount_bonus": plain(pl.when(is_bet).then("bet_amount_bonus").otherwise("win_amount_bonus")),
        "payout": pl.when(settled & (kind == "loss"))
        .then(pl.lit("0"))
        .when(settled)
        .then(transactions.plain("win_amount")),
        "outcome": pl.when(settled).then(pl.when(won > 0).then(pl.lit("won")).otherwise(pl.lit("lost"))),
        "bet_amount": pl.when(~is_bet).then(transactions.plain("bet_amount")),
        "game_category_raw": pl.when(pl.col("game_category") != category).then(pl.col("game_category")),
        "rollback_of": pl.when(rolled_back).then(kind.str.strip_prefix("rollback_")),
        "is_free_bet": pl.when(pl.col("is_free_bet")).then(pl.lit(value=True)),
    }


_COLUMNS: Final = (
    *IDENTITY,
    Column("bet_id", "id", aliases=("transaction_id", "id")),
    Column("bet_date", "time", required=True, aliases=("dt",)),
    Column("bet_amount", "amount"),
    Column("win_amount", "amount"),
    Column("bet_amount_real", "amount"),
    Column("bet_amount_bonus", "amount"),
    Column("win_amount_real", "amount"),
    Column("win_amount_bonus", "amount"),
    Column("game_name", required=True),
    Column("game_id", "id", required=True, aliases=("casino_game_ext_id",)),
    Column("game_category", aliases=("casino_game_type_ext_id",)),
    Column("game_provider", aliases=("game_vendor", "casino_game_provider_ext_id")),
    Column("round_id", "id"),
    Column("currency", "currency", aliases=("core_wallet_currency",)),
    Column("is_free_bet", "flag", aliases=("casino_is_free_bet",)),
    Column("is_rollback", "flag", aliases=("casino_is_rollback",)),
)
_STAKE: Final = Column("bet_amount", "amount", required=True)
_WIN: Final = Column("win_amount", "amount", required=True)
_TYPE: Final = Column("type", "enum", required=True, aliases=("transaction_type", "action"), values=_TYPES)

BETS: Final = Contract(
    stream="casino_bets",
    columns=_COLUMNS,
    cursor=("id", "id"),
    keys=(("id",), ("bet_id", "type"), ("bet_id",)),
    business_time="bet_date",
    start="now",
    modes=("single_table", "separate", "win_per_bet"),
    mode_columns={"single_table": (_TYPE,), "separate": (_STAKE,), "win_per_bet": (_STAKE, _WIN)},
    amounts={
        "single_table": (Amount("bet_amount", ("bet", "rollback_bet")), Amount("win_amount", ("win", "rollback_win"))),
        "separate": (Amount("bet_amount"),),
        "win_per_bet": (Amount("win_amount"),),
    },
    normalise=normalise,
)
WINS: Final = Contract(
    stream="casino_wins",
    columns=_COLUMNS,
    cursor=("id", "id"),
    keys=(("id",), ("win_id",), ("bet_id",)),
    business_time="bet_date",
    start="now",
    modes=("wins",),
    mode_columns={"wins": (_WIN,)},
    amounts={"wins": (Amount("win_amount"),)},
    normalise=normalise,
)
