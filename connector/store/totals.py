"""Players' money and times, added from the events that were really inserted. Inside THE transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import EFFECTS
from connector.money import plain
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    import psycopg

_STAGE: Final = """
    create temporary table if not exists stage_totals (
        player_id bigint, currency text, deposited numeric, deposit_count bigint, withdrawn numeric,
        withdrawal_count bigint, wagered numeric, bet_count bigint, won numeric, deposited_base bigint,
        withdrawn_base bigint, wagered_base bigint, won_base bigint, bets bigint,
        first_at timestamptz, last_at timestamptz, last_bet_at timestamptz, last_deposit_at timestamptz
    ) on commit delete rows
"""
_ADD_MONEY: Final = """
    insert into crm.player_money as m
        (player_id, currency, deposited, deposit_count, withdrawn, withdrawal_count, wagered, bet_count, won)
    select player_id, currency, deposited, deposit_count, withdrawn, withdrawal_count, wagered, bet_count, won
    from pg_temp.stage_totals where currency is not null order by player_id, currency
    on conflict (player_id, currency) do update set
        deposited = m.deposited + excluded.deposited, deposit_count = m.deposit_count + excluded.deposit_count,
        withdrawn = m.withdrawn + excluded.withdrawn, withdrawal_count = m.withdrawal_count + excluded.withdrawal_count,
        wagered = m.wagered + excluded.wagered, bet_count = m.bet_count + excluded.bet_count, won = m.won + excluded.won
"""
_ADD_BASE: Final = """
    update crm.players p set
        total_deposited = total_deposited + t.deposited, total_withdrawn = total_withdrawn + t.withdrawn,
        total_wagered = total_wagered + t.wagered, total_won = total_won + t.won, bet_count = p.bet_count + t.bets,
        first_seen_at = least(first_seen_at, t.first_at), last_seen_at = greatest(last_seen_at, t.last_at),
        last_bet_at = greatest(p.last_bet_at, t.last_bet_at),
        last_deposit_at = greatest(p.last_deposit_at, t.last_deposit_at)
    from (
        select player_id, sum(deposited_base) deposited, sum(withdrawn_base) withdrawn, sum(wagered_base) wagered,
               sum(won_base) won, sum(bets) bets, min(first_at) first_at, max(last_at) last_at,
               max(last_bet_at) last_bet_at, max(last_deposit_at) last_deposit_at
        from pg_temp.stage_totals group by player_id
    ) t where p.player_id = t.player_id
"""


def add(connection: psycopg.Connection[Any], rows: pl.DataFrame, *, counted: bool = False) -> None:
    """Add ledger rows (see `sums`) to their players; `counted`: only their money was missing, the bets are counted."""
    if rows.is_empty():
        return
    added = sums(rows)
    connection.execute(_STAGE)
    copy_frame(connection, "pg_temp.stage_totals", added.with_columns(bets=pl.lit(0)) if counted else added)
    connection.execute(_ADD_MONEY)
    connection.execute(_ADD_BASE)
    connection.execute("delete from pg_temp.stage_totals")


def sums(rows: pl.DataFrame) -> pl.DataFrame:
    """Return what ledger rows add to each (player, currency), columns in the order of the staging table. Pure.

    Rows have player_id, currency, play, effect (signed code), native, native_stake, amount_base, stake_base and
    occurred_at. A bet counts once: where it is placed, or where its only row settles it (stake); a rollback takes it
    back.
    """
    sign = pl.col("effect").sign().cast(pl.Int64)
    native = pl.when(pl.col("effect") < 0).then(-pl.col("native")).otherwise(pl.col("native"))
    base = pl.col("amount_base") * sign
    deposited, withdrawn, wagered, won = (pl.col("effect").abs() == code for code in range(1, len(EFFECTS) + 1))
    staked = pl.col("native_stake").is_not_null()
    bets = sign.filter(wagered | staked).sum()
    stake = pl.when(pl.col("effect") < 0).then(-pl.col("native_stake")).otherwise(pl.col("native_stake"))
    grouped = rows.group_by("player_id", "currency").agg(
        deposited=native.filter(deposited).sum(),
        deposit_count=sign.filter(deposited).sum(),
        withdrawn=native.filter(withdrawn).sum(),
        withdrawal_count=sign.filter(withdrawn).sum(),
        wagered=native.filter(wagered).sum() + stake.sum(),
        bet_count=bets,
        won=native.filter(won).sum(),
        deposited_base=base.filter(deposited).sum(),
        withdrawn_base=base.filter(withdrawn).sum(),
        wagered_base=base.filter(wagered).sum() + (pl.col("stake_base") * sign).sum(),
        won_base=base.filter(won).sum(),
        bets=pl.when(pl.col("play").any()).then(0).otherwise(bets),
        first_at=pl.col("occurred_at").min(),
        last_at=pl.col("occurred_at").max(),
        last_bet_at=pl.col("occurred_at").filter((wagered | staked) & (pl.col("effect") > 0)).max(),
        last_deposit_at=pl.col("occurred_at").filter(pl.col("effect") == 1).max(),
    )
    return grouped.with_columns(*(plain(pl.col(name)) for name in ("deposited", "withdrawn", "wagered", "won")))
