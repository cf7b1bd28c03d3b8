"""What the operator says of players' lifetime totals: it wins over ours, and the difference is kept.

At `as_of` our totals become theirs; events after it add as ever, and an event that comes later but happened before is
in their number already: it lowers the difference instead (see totals.add). So a total is always the sum of our events
plus the difference. Totals by currency stay purely ours, and so do the sportsbook's. Inside THE transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl
from psycopg.rows import dict_row

from connector.event import INSTANT, REJECTIONS, empty, row_key
from connector.store import players
from connector.store.copying import copy_frame
from connector.store.rates import rated_at

if TYPE_CHECKING:
    import psycopg

    from connector.money import Rates
    from connector.store.checkpoints import Checkpoint

#: Told column -> what it moves: the players column, and the column of totals.sums that holds what events add to it.
COLUMNS: Final = {
    "deposited": ("total_deposited", "deposited_base"),
    "withdrawn": ("total_withdrawn", "withdrawn_base"),
    "wagered": ("total_wagered", "wagered_base"),
    "won": ("total_won", "won_base"),
    "deposit_count": ("deposit_count", "deposits"),
    "withdrawal_count": ("withdrawal_count", "withdrawals"),
    "bet_count": ("bet_count", "bets"),
}
_MONEY: Final = ("deposited", "withdrawn", "wagered", "won")
_PAYMENTS: Final = ("deposited", "withdrawn", "deposit_count", "withdrawal_count")
_PLAY: Final = tuple(name for name in COLUMNS if name not in _PAYMENTS)
_STAGE: Final = (
    "create temporary table if not exists stage_reported (player_id bigint, as_of timestamptz, "
    + ", ".join(f"{name} bigint" for name in COLUMNS)
    + ") on commit delete rows"
)
#: Only what is news: an older word than the one known, or the same again, is left alone.
_STALE: Final = f"""
    delete from pg_temp.stage_reported s using crm.player_totals t
    where t.player_id = s.player_id and (t.as_of > s.as_of
        or (t.as_of, {", ".join(f"t.{name}" for name in COLUMNS)})
           is not distinct from (s.as_of, {", ".join(f"s.{name}" for name in COLUMNS)}))
"""
_REAL: Final = "e.currency is not null and e.currency <> all(%(play)s)"
#: What our own events after as_of add, as totals.sums counts it. Payments are found by their index, bets by time.
_AFTER: Final = {
    "deposited": "sum(sign(e.effect) * e.amount_base) filter (where abs(e.effect) = 1)",
    "withdrawn": "sum(sign(e.effect) * e.amount_base) filter (where abs(e.effect) = 2)",
    "wagered": "coalesce(sum(sign(e.effect) * e.amount_base) filter (where abs(e.effect) = 3), 0)"
    " + coalesce(sum(sign(e.effect) * e.stake_base), 0)",
    "won": "sum(sign(e.effect) * e.amount_base) filter (where abs(e.effect) = 4)",
    "deposit_count": f"sum(sign(e.effect)) filter (where abs(e.effect) = 1 and {_REAL})",
    "withdrawal_count": f"sum(sign(e.effect)) filter (where abs(e.effect) = 2 and {_REAL})",
    "bet_count": f"sum(sign(e.effect)) filter (where (abs(e.effect) = 3 or e.stake is not null) and {_REAL})",
}


def _after(names: tuple[str, ...], effects: str) -> str:
    told = " or ".join(f"s.{name} is not null" for name in names)
    sums = ", ".join(f"coalesce({_AFTER[name]}, 0)::bigint as {name}" for name in names)
    return f"""
        select e.player_id, {sums}
        from pg_temp.stage_reported s join crm.event_rows e on e.player_id = s.player_id and e.occurred_at > s.as_of
        where e.effect in ({effects}) and ({told})
          and e.occurred_at > (select min(s.as_of) from pg_temp.stage_reported s where {told})
        group by e.player_id
    """


_OTHER: Final = {name: f"{alias}.{name}" for alias, names in (("m", _PAYMENTS), ("b", _PLAY)) for name in names}
#: Told minus what was ours at as_of: now, without what came after it and without what we were moved by before.
_BY: Final = {
    name: f"coalesce(s.{name} - (p.{total} - coalesce({_OTHER[name]}, 0) - coalesce(t.{name}_by, 0)), 0)"
    for name, (total, _) in COLUMNS.items()
}
_APPLY: Final = f"""
    with m as ({_after(_PAYMENTS, "-2, -1, 1, 2")}), b as ({_after(_PLAY, "-4, -3, 3, 4")}),
    differing as (
        select s.*, {", ".join(f"{expression} as {name}_now" for name, expression in _BY.items())},
               {", ".join(f"coalesce(t.{name}_by, 0) as {name}_before" for name in COLUMNS)}
        from pg_temp.stage_reported s join crm.players p using (player_id)
        left join m using (player_id) left join b using (player_id) left join crm.player_totals t using (player_id)
    ), written as (
        insert into crm.player_totals as t
            (player_id, as_of, {", ".join(COLUMNS)}, {", ".join(f"{name}_by" for name in COLUMNS)})
        select player_id, as_of, {", ".join(COLUMNS)}, {", ".join(f"{name}_now" for name in COLUMNS)} from differing
        on conflict (player_id) do update set as_of = excluded.as_of,
            {", ".join(f"{name} = excluded.{name}, {name}_by = excluded.{name}_by" for name in COLUMNS)}
    )
    update crm.players p set
        {", ".join(f"{total} = p.{total} + d.{name}_now - d.{name}_before" for name, (total, _) in COLUMNS.items())}
    from differing d where p.player_id = d.player_id
      and ({", ".join(f"d.{name}_now" for name in COLUMNS)}) is distinct from
          ({", ".join(f"d.{name}_before" for name in COLUMNS)})
    returning p.player_id
"""
_LATE: Final = f"""
    update crm.player_totals t set {", ".join(f"{name}_by = {name}_by - l.{name}" for name in COLUMNS)}
    from unnest(%s::bigint[], {", ".join("%s::bigint[]" for _ in COLUMNS)}) as l(player_id, {", ".join(COLUMNS)})
    where t.player_id = l.player_id
"""
_DIFFERS: Final = " or ".join(f"{name}_by <> 0" for name in COLUMNS)


def apply(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, told: pl.DataFrame, rates: Rates
) -> pl.DataFrame:
    """Take over a page of an operator's totals (see normalised.REPORTED) and mark the players whose totals moved.

    The newest `as_of` of a player wins; a total that it does not tell is ours again. Returns as rejections the rows in
    a currency without a rate at `as_of`. Idempotent.
    """
    newest = told.sort("as_of", maintain_order=True).unique(
        ["brand_id", "external_id"], keep="last", maintain_order=True
    )
    based = newest.with_columns_seq(pl.col("currency").fill_null(rates.base))
    rated = rated_at(connection, checkpoint.tenant, based, rates, at="as_of")
    unrated = _unrated(rated.filter(pl.col("rate").is_null()), checkpoint)
    rows = rated.filter(pl.col("rate").is_not_null())
    if rows.is_empty():
        return unrated
    resolved = players.resolve(connection, checkpoint.tenant, rows).with_columns_seq(
        rates.subunits(pl.col(name), pl.col("rate")).alias(name) for name in _MONEY
    )
    connection.execute(_STAGE)
    columns = ("player_id", "as_of", *COLUMNS)
    copy_frame(connection, f"pg_temp.stage_reported ({', '.join(columns)})", resolved.select_seq(columns))
    connection.execute(_STALE)
    moved = connection.execute(_APPLY, {"play": sorted(rates.play)}).fetchall()
    connection.execute("delete from pg_temp.stage_reported")
    players.mark(connection, sorted(player_id for (player_id,) in moved), "profile")
    return unrated


def told_of(connection: psycopg.Connection[Any], player_ids: pl.Series) -> pl.DataFrame:
    """Return `as_of` and, as `told:NAME`, which totals were told, of those of the players of whom anything was."""
    query = f"""
        select player_id, as_of, {", ".join(f"{name} is not null" for name in COLUMNS)}
        from crm.player_totals where player_id = any(%s)
    """
    schema: dict[str, pl.DataType | type[pl.DataType]] = {"player_id": pl.Int64, "as_of": INSTANT}
    schema |= {f"told:{name}": pl.Boolean for name in COLUMNS}
    rows = connection.execute(query, (player_ids.unique().to_list(),)).fetchall()
    return pl.DataFrame(rows, schema=schema, orient="row")


def taken_back(connection: psycopg.Connection[Any], late: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Lower differences by what late events add, and return what therefore must not be added to players.

    `late` are sums (see totals.sums) of events that happened at or before their player's `as_of`; the answer has a row
    a player with the same columns.
    """
    known = late.group_by("player_id").agg(pl.col(added).sum() for _, added in COLUMNS.values())
    theirs = {added: pl.when(f"told:{name}").then(pl.col(added)).otherwise(0) for name, (_, added) in COLUMNS.items()}
    covered = known.join(told, on="player_id").select_seq("player_id", **theirs)
    connection.execute(_LATE, [column.to_list() for column in covered])
    return covered.with_columns_seq(-pl.col(added) for _, added in COLUMNS.values())


def differences(connection: psycopg.Connection[Any], tenant: str, *, limit: int = 100) -> list[dict[str, Any]]:
    """Return players whose totals the operator tells otherwise than we count them, those of most money first.

    Each has brand_id, external_id, as_of and, by total that differs, `theirs` (at as_of) and `by` (theirs minus ours),
    in base subunits or numbers.
    """
    query = f"""
        select p.brand_id, p.external_id, t.* from crm.player_totals t join crm.players p using (player_id)
        where p.tenant = %s and ({_DIFFERS})
        order by abs(deposited_by) + abs(withdrawn_by) + abs(wagered_by) + abs(won_by) desc, p.player_id limit %s
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, (tenant, limit)).fetchall()
    return [
        {
            **{name: row[name] for name in ("brand_id", "external_id", "as_of")},
            "totals": {n: {"theirs": row[n], "by": row[f"{n}_by"]} for n in COLUMNS if row[f"{n}_by"]},
        }
        for row in rows
    ]


def differing(connection: psycopg.Connection[Any], tenant: str) -> int:
    """Return of how many players the operator tells other totals than we count."""
    query = f"""
        select count(*) from crm.player_totals join crm.players p using (player_id) where p.tenant = %s and ({_DIFFERS})
    """
    row = connection.execute(query, (tenant,)).fetchone()
    return 0 if row is None else int(row[0])


def _unrated(rows: pl.DataFrame, checkpoint: Checkpoint) -> pl.DataFrame:
    """Return totals that can't be told in the base currency as rejections, under the names that they are read by."""
    if rows.is_empty():
        return empty(REJECTIONS)
    identity = ["brand_id", "external_id"]
    named = zip(checkpoint.key_columns, identity, strict=False)
    told = [pl.exclude("rate", *identity).cast(pl.String), *(pl.col(name).alias(own) for own, name in named)]
    shown = rows.select_seq(told).select_seq(pl.struct(pl.all()).struct.json_encode().alias("raw"))
    unknown = {name: pl.lit(None) for name in REJECTIONS if name not in identity}
    reason = {"reason": pl.lit("no rate at as_of"), "field": pl.lit("currency"), "kept": pl.lit(value=False)}
    columns = {**unknown, **reason, "row_key": row_key(identity), "raw": shown["raw"]}
    return rows.with_columns_seq(**columns).select_seq(pl.col(name).cast(dtype) for name, dtype in REJECTIONS.items())
