"""Players' money and times, added from the events that were really inserted. Inside THE transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import EFFECT_CODES, INSTANT, SPORT
from connector.money import plain
from connector.store import reported
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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
_TIMES: Final = tuple(name for name, kind in _ADDED.items() if kind == "timestamptz")
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
        added.with_columns_seq(pl.lit(0).alias(name) for name in _COUNTED) if base_only else added,
    )
    if not base_only:
        connection.execute(_ADD_MONEY)
    # `pending` asks it too, for any number of rows, and that must not be done by the plan of a small page.
    connection.execute(_ADD_BASE, prepare=False)
    connection.execute("delete from pg_temp.stage_totals")


def _without_told(
    connection: psycopg.Connection[Any], rows: pl.DataFrame, added: pl.DataFrame, *, base_only: bool
) -> pl.DataFrame:
    """Take back what the operator's own totals hold already: events at or before their `as_of` (see store.reported)."""
    told = reported.told_of(connection, rows["player_id"])
    if told.is_empty():
        return added
    late = rows.join(told.select_seq("player_id", "as_of"), on="player_id").filter(
        pl.col("occurred_at") <= pl.col("as_of")
    )
    if late.is_empty():
        return added
    before = sums(late).with_columns_seq(pl.lit(0).alias(name) for name in (_COUNTED if base_only else ()))
    return pl.concat([added, reported.taken_back(connection, before, told)], how="diagonal_relaxed")


def sums(rows: pl.DataFrame, *, by: str = "player_id") -> pl.DataFrame:
    """Return what ledger rows add to each (player, currency), columns in the order of the staging table. Pure.

    Rows have `by` (whose they are), name, currency, play, effect (signed code), native, native_stake, amount_base,
    stake_base and occurred_at. A bet counts once: where it is placed, or where its only row settles it (stake); a
    rollback takes it back. What has no currency yet is in no total but the times, what has no rate yet in no base
    total: see pending.
    """
    codes, sport = set(rows["effect"].abs().unique()), not set(rows["name"].unique()).isdisjoint(SPORT)
    staked = rows["native_stake"].null_count() < rows.height
    each = rows.select_seq(by, "currency", first_at="occurred_at", last_at="occurred_at", **_facts(sport=sport))
    parts = dict(_parts(codes, staked=staked, sport=sport))
    # Worked out for each row first: to filter in each group takes twice as long.
    each = each.select_seq(by, "currency", "first_at", "last_at", **parts)
    latest = [name for name in ("last_at", *parts) if name in _TIMES]
    summed = [name for name in parts if name not in _TIMES]
    added = each.group_by(by, "currency").agg(pl.col(summed).sum(), pl.col("first_at").min(), pl.col(latest).max())
    return added.select_seq(by, "currency", *(_told(name, added) for name in list(_ADDED)[2:]))


def _facts(*, sport: bool) -> dict[str, pl.Expr]:
    """Return what several sums ask of a row, each worked out once."""
    effect, back = pl.col("effect"), pl.col("effect") < 0
    sign, stake = effect.sign().cast(pl.Int64), pl.col("native_stake")
    bet = (effect.abs() == EFFECT_CODES["wagered"]) | stake.is_not_null()
    return {
        "code": effect.abs(),
        "sign": sign,
        "real": pl.col("currency").is_not_null() & ~pl.col("play"),
        "native": pl.when(back).then(-pl.col("native")).otherwise(pl.col("native")),
        "stake": pl.when(back).then(-stake).otherwise(stake).fill_null(0),
        "base": pl.col("amount_base") * sign,
        "base_stake": (pl.col("stake_base") * sign).fill_null(0),
        "bet": bet,
        "placed": bet & (effect > 0) & ~pl.col("name").str.ends_with("_rolled_back"),
        "sport": pl.col("name").is_in(SPORT) if sport else pl.lit(value=False),
        "seen": pl.col("occurred_at"),
    }


def _parts(codes: Collection[int], *, staked: bool, sport: bool) -> Iterator[tuple[str, pl.Expr]]:
    """Yield what a row adds to each total that a page with these effects can move: mostly those of one or two."""
    native, base, sign, seen, real = (pl.col(name) for name in ("native", "base", "sign", "seen", "real"))
    bet, placed, of_sport = pl.col("bet"), pl.col("placed"), pl.col("sport")
    deposited, withdrawn, wagered, won, session = (pl.col("code") == code for code in EFFECT_CODES.values())
    if EFFECT_CODES["deposited"] in codes:
        yield "deposited", _where(deposited, native)
        yield "deposited_base", _where(deposited, base)
        yield "deposit_count", _where(deposited, sign)
        yield "deposits", _where(deposited & real, sign)
        yield "deposit_at", _where(deposited & (sign > 0), seen)
    if EFFECT_CODES["withdrawn"] in codes:
        yield "withdrawn", _where(withdrawn, native)
        yield "withdrawn_base", _where(withdrawn, base)
        yield "withdrawal_count", _where(withdrawn, sign)
        yield "withdrawals", _where(withdrawn & real, sign)
    if EFFECT_CODES["wagered"] in codes or staked:
        yield "wagered", _where(wagered, native).fill_null(0) + pl.col("stake")
        yield "wagered_base", _where(wagered, base).fill_null(0) + pl.col("base_stake")
        yield "bet_count", _where(bet, sign)
        yield "bets", _where(bet & real, sign)
        yield "casino_at", _where(placed & ~of_sport, seen)
    if EFFECT_CODES["won"] in codes:
        yield "won", _where(won, native)
        yield "won_base", _where(won, base)
    if sport:
        yield "sport_wagered", _where(of_sport, _where(wagered, base).fill_null(0) + pl.col("base_stake"))
        yield "sport_won", _where(won & of_sport, base)
        yield "sport_bets", _where(bet & real & of_sport, sign)
        yield "sport_at", _where(placed & of_sport, seen)
    if EFFECT_CODES["session"] in codes:
        yield "sessions", _where(session, sign)


def _told(name: str, added: pl.DataFrame) -> pl.Expr:
    """Return a column of the staging table: native amounts as texts; nothing was added to what was not summed."""
    native = _ADDED[name] == "numeric"
    if name in added.columns:
        return plain(pl.col(name)) if native else pl.col(name)
    absent = pl.lit("0") if native else pl.lit(None, INSTANT) if name in _TIMES else pl.lit(0, pl.Int64)
    return absent.alias(name)


def _where(condition: pl.Expr, value: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(value)
