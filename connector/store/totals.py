"""Players' money and times, added from the events that were really inserted. Inside THE transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import EFFECTS, SPORT
from connector.money import plain
from connector.store import reported
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    import psycopg

#: What a page adds to one (player, currency), in the order of the staging table.
_ADDED: Final = {
    "player_id": "bigint",
    "currency": "text",
    **dict.fromkeys(("deposited", "withdrawn", "wagered", "won"), "numeric"),
    **dict.fromkeys(("deposit_count", "withdrawal_count", "bet_count"), "bigint"),
    **dict.fromkeys(("deposited_base", "withdrawn_base", "wagered_base", "won_base"), "bigint"),
    **dict.fromkeys(
        ("sport_wagered", "sport_won", "deposits", "withdrawals", "bets", "sport_bets", "sessions"), "bigint"
    ),
    **dict.fromkeys(("first_at", "last_at", "casino_at", "sport_at", "deposit_at"), "timestamptz"),
}
_MONEY: Final = ("deposited", "deposit_count", "withdrawn", "withdrawal_count", "wagered", "bet_count", "won")
#: players column -> what is added to it, in base subunits or numbers of events; play money has none of either.
_SUMMED: Final = {
    "total_deposited": "deposited_base",
    "total_withdrawn": "withdrawn_base",
    "total_wagered": "wagered_base",
    "total_won": "won_base",
    "sport_wagered": "sport_wagered",
    "sport_won": "sport_won",
    "deposit_count": "deposits",
    "withdrawal_count": "withdrawals",
    "bet_count": "bets",
    "sport_bet_count": "sport_bets",
    "session_count": "sessions",
}
_COUNTED: Final = ("deposits", "withdrawals", "bets", "sport_bets", "sessions")
#: players column -> the latest of these, business time.
_LATEST: Final = {
    "last_seen_at": "last_at",
    "last_bet_at": "greatest(casino_at, sport_at)",
    "last_casino_bet_at": "casino_at",
    "last_sport_bet_at": "sport_at",
    "last_deposit_at": "deposit_at",
}
_STAGE: Final = (
    "create temporary table if not exists stage_totals ("
    + ", ".join(f"{name} {kind}" for name, kind in _ADDED.items())
    + ") on commit delete rows"
)
_ADD_MONEY: Final = f"""
    insert into crm.player_money as m (player_id, currency, {", ".join(_MONEY)})
    select player_id, currency, {", ".join(_MONEY)}
    from pg_temp.stage_totals where currency is not null order by player_id, currency
    on conflict (player_id, currency)
    do update set {", ".join(f"{name} = m.{name} + excluded.{name}" for name in _MONEY)}
"""
_ADD_BASE: Final = f"""
    update crm.players p set
        {", ".join(f"{name} = p.{name} + t.{name}" for name in _SUMMED)},
        first_seen_at = least(p.first_seen_at, t.first_at),
        {", ".join(f"{name} = greatest(p.{name}, t.{name})" for name in _LATEST)}
    from (
        select player_id, {", ".join(f"sum({added}) {name}" for name, added in _SUMMED.items())},
               min(first_at) first_at, {", ".join(f"max({added}) {name}" for name, added in _LATEST.items())}
        from pg_temp.stage_totals group by player_id
    ) t where p.player_id = t.player_id
"""


def add(
    connection: psycopg.Connection[Any],
    rows: pl.DataFrame,
    *,
    added: pl.DataFrame | None = None,
    base_only: bool = False,
) -> None:
    """Add ledger rows to their players; `added` is their `sums`, where somebody has them already.

    `base_only`: all but their base amounts was added before.
    """
    if rows.is_empty():
        return
    added = _without_told(connection, rows, sums(rows) if added is None else added, base_only=base_only)
    connection.execute(_STAGE)
    copy_frame(
        connection,
        "pg_temp.stage_totals",
        added.with_columns(pl.lit(0).alias(name) for name in _COUNTED) if base_only else added,
    )
    if not base_only:
        connection.execute(_ADD_MONEY)
    connection.execute(_ADD_BASE)
    connection.execute("delete from pg_temp.stage_totals")


def _without_told(
    connection: psycopg.Connection[Any], rows: pl.DataFrame, added: pl.DataFrame, *, base_only: bool
) -> pl.DataFrame:
    """Take back what the operator's own totals hold already: events at or before their `as_of` (see store.reported)."""
    told = reported.told_of(connection, rows["player_id"])
    if told.is_empty():
        return added
    late = rows.join(told.select("player_id", "as_of"), on="player_id").filter(pl.col("occurred_at") <= pl.col("as_of"))
    if late.is_empty():
        return added
    before = sums(late).with_columns(pl.lit(0).alias(name) for name in (_COUNTED if base_only else ()))
    return pl.concat([added, reported.taken_back(connection, before, told)], how="diagonal_relaxed")


def sums(rows: pl.DataFrame, *, by: str = "player_id") -> pl.DataFrame:
    """Return what ledger rows add to each (player, currency), columns in the order of the staging table. Pure.

    Rows have `by` (whose they are), name, currency, play, effect (signed code), native, native_stake, amount_base,
    stake_base and occurred_at. A bet counts once: where it is placed, or where its only row settles it (stake); a
    rollback takes it back. What has no currency yet is in no total but the times, what has no rate yet in no base
    total: see pending.
    """
    real = pl.col("currency").is_not_null() & ~pl.col("play")
    sign = pl.col("effect").sign().cast(pl.Int64)
    native = pl.when(pl.col("effect") < 0).then(-pl.col("native")).otherwise(pl.col("native"))
    stake = pl.when(pl.col("effect") < 0).then(-pl.col("native_stake")).otherwise(pl.col("native_stake")).fill_null(0)
    base, base_stake = pl.col("amount_base") * sign, (pl.col("stake_base") * sign).fill_null(0)
    deposited, withdrawn, wagered, won, session = (
        pl.col("effect").abs() == code for code in range(1, len(EFFECTS) + 1)
    )
    bet, sport = wagered | pl.col("native_stake").is_not_null(), pl.col("name").is_in(SPORT)
    rolled_back = pl.col("name").str.ends_with("_rolled_back")
    seen, placed = pl.col("occurred_at"), bet & (pl.col("effect") > 0) & ~rolled_back
    parts = {
        "deposited": _where(deposited, native),
        "withdrawn": _where(withdrawn, native),
        "wagered": _where(wagered, native).fill_null(0) + stake,
        "won": _where(won, native),
        "deposit_count": _where(deposited, sign),
        "withdrawal_count": _where(withdrawn, sign),
        "bet_count": _where(bet, sign),
        "deposited_base": _where(deposited, base),
        "withdrawn_base": _where(withdrawn, base),
        "wagered_base": _where(wagered, base).fill_null(0) + base_stake,
        "won_base": _where(won, base),
        "sport_wagered": _where(wagered & sport, base).fill_null(0) + _where(sport, base_stake).fill_null(0),
        "sport_won": _where(won & sport, base),
        "deposits": _where(deposited & real, sign),
        "withdrawals": _where(withdrawn & real, sign),
        "bets": _where(bet & real, sign),
        "sport_bets": _where(bet & real & sport, sign),
        "sessions": _where(session, sign),
    }
    latest = {
        "last_at": seen,
        "casino_at": _where(placed & ~sport, seen),
        "sport_at": _where(placed & sport, seen),
        "deposit_at": _where(pl.col("effect") == 1, seen),
    }
    each = rows.select(by, "currency", first_at=seen, **parts, **latest)  # to filter in each group takes twice as long
    added = each.group_by(by, "currency").agg(pl.col(*parts).sum(), pl.col("first_at").min(), pl.col(*latest).max())
    texts = (plain(pl.col(name)) for name in ("deposited", "withdrawn", "wagered", "won"))
    return added.with_columns(*texts).select(by, *list(_ADDED)[1:])


def _where(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(value)
