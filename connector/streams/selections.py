"""The selections of sports bets, as they are placed and as they are settled: facts that change no total.

A selection may come before its bet, or without it: each view has its own cursor, and none waits for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from connector.streams import sport, transactions, values
from connector.streams.contract import IDENTITY, Binding, Column, Context, Contract

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.normalised import Normalised


def opened(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise: `sport_bet_selection_open` -> `custom_sport_bet_selection_open`."""
    named = {
        **transactions.texts(["bet_id", "selection_id", "event_id", "event_name", "sport_type", "league"]),
        **transactions.texts(["market", "outcome", "home_team", "away_team", "is_live"]),
        "odds": transactions.plain("odds"),
        "event_start": transactions.instant("event_start"),
    }
    return _facts(page, binding, context, name="custom_sport_bet_selection_open", at="bet_date", named=named)


def settled(page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
    """See streams.contract.Normalise: `sport_bet_selection_settled` -> `custom_sport_bet_selection_settled`."""
    named = {
        **transactions.texts(["bet_id", "selection_id", "score"]),
        "selection_status": pl.col("selection_status").str.to_lowercase(),
    }
    return _facts(page, binding, context, name="custom_sport_bet_selection_settled", at="settled_at", named=named)


def _facts(
    page: pl.DataFrame, binding: Binding, context: Context, *, name: str, at: str, named: Mapping[str, pl.Expr]
) -> Normalised:
    event = {
        "name": pl.lit(name),
        "transaction_id": pl.col("bet_id"),
        "occurred_at": pl.col(at),
        "amount": pl.lit(None),
        "currency": pl.lit(None),
        "effect": pl.lit(None),
    }
    return transactions.normalised(
        page, values.typed(page, binding), binding, context, checks=[], event=event, named=named
    )


_IDENTITY: Final = (
    *IDENTITY,
    sport.BET_ID,
    Column("selection_id", "id", required=True, aliases=("selection_ext_id", "sport_last_selection_id")),
)
_KEYS: Final = (("id",), ("bet_id", "selection_id"))

OPEN: Final = Contract(
    stream="sport_bet_selection_open",
    columns=(
        *_IDENTITY,
        Column("bet_date", "time", required=True, aliases=("dt",)),
        Column("event_id", "id", aliases=("match_id", "event_ext_id", "sport_match_id")),
        Column("event_name"),
        Column("sport_type", aliases=("sport_name", "sport_last_selection_sport_type")),
        Column("league", aliases=("sport_last_selection_league",)),
        Column("market", aliases=("sport_last_selection_market",)),
        Column("outcome", aliases=("sport_last_selection_outcome",)),
        Column("odds", "number", aliases=("sport_last_selection_odds",)),
        Column("home_team", aliases=("sport_last_selection_home_team",)),
        Column("away_team", aliases=("sport_last_selection_away_team",)),
        Column("is_live", "flag", aliases=("is_live_selection",)),
        Column("event_start", "time"),
    ),
    cursor=("id", "id"),
    keys=_KEYS,
    business_time="bet_date",
    start="now",
    normalise=opened,
)
SETTLED: Final = Contract(
    stream="sport_bet_selection_settled",
    columns=(
        *_IDENTITY,
        Column("settled_at", "time", required=True, aliases=("settlement_date", "dt")),
        Column("selection_status", "enum", required=True, aliases=("sport_last_selection_settlement_status", "status")),
        Column("score"),
    ),
    cursor=("id", "id"),
    keys=_KEYS,
    business_time="settled_at",
    start="now",
    normalise=settled,
)
