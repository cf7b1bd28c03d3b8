"""The event ledger: canonical events into narrow rows, each (stream, brand, key, name) once. Inside THE transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg

from connector.store.copying import copy_frame
from connector.store.rates import priced

if TYPE_CHECKING:
    from connector.money import Rates
    from connector.store.draft import Draft

_COLUMNS: Final = (
    *("player_id", "occurred_at", "amount_base", "stream_id", "name_id", "effect", "history", "key", "transaction_id"),
    *("currency", "amount", "fx_rate_locked", "stake", "stake_base", "mark", "shape_id", "properties", "packed"),
)
_STAGE: Final = """
    create temporary table if not exists stage_events (
        ordinal integer, player_id bigint, occurred_at timestamptz, amount_base bigint, stream_id smallint,
        name_id smallint, effect smallint, history boolean, key text collate "C", transaction_id text, currency text,
        amount numeric, fx_rate_locked numeric, stake numeric, stake_base bigint, mark bigint,
        shape_id integer, properties json, packed text collate "C"
    ) on commit delete rows
"""
_INSERT: Final = f"""
    insert into crm.event_rows ({", ".join(_COLUMNS)})
    select {", ".join(_COLUMNS)} from pg_temp.stage_events order by ordinal
    on conflict (stream_id, key, name_id) do nothing
    returning stream_id, key, name_id
"""
_TAKE: Final = "select setval('crm.event_seq', nextval('crm.event_seq') + %s - 1)"
_SHAPE: Final = "select shape_id from crm.event_shapes where tenant = %(tenant)s and names = %(names)s"
_NEW_SHAPE: Final = "insert into crm.event_shapes (tenant, names) values (%(tenant)s, %(names)s) returning shape_id"
#: A row that is there with other money, time or player is neither counted again nor hidden: both versions are kept.
_CHANGED: Final = """
    insert into crm.quarantine (tenant, source, stream, reason, field, row_key, transaction_id, brand_id, raw)
    select distinct on (stream_id, key, name_id, n.player_id, n.occurred_at, n.amount, n.currency)
           s.tenant, s.source, s.stream, 'changed',
           md5(concat_ws('|', n.player_id, n.occurred_at, n.amount, n.currency)),
           n.key, coalesce(n.transaction_id, n.key), s.brand_id,
           jsonb_build_object(
               'old', jsonb_build_object(
                   'player_id', e.player_id, 'occurred_at', e.occurred_at,
                   'amount', e.amount, 'currency', e.currency),
               'new', jsonb_build_object(
                   'player_id', n.player_id, 'occurred_at', n.occurred_at,
                   'amount', n.amount, 'currency', n.currency))
    from pg_temp.stage_events n
    join crm.event_rows e using (stream_id, key, name_id)
    join crm.event_streams s using (stream_id)
    where (e.player_id, e.occurred_at, e.amount) is distinct from (n.player_id, n.occurred_at, n.amount)
       or e.currency is distinct from n.currency and n.currency is not null
    on conflict (tenant, source, stream, row_key, reason, field)
    do update set seen_count = crm.quarantine.seen_count + 1, last_at = now()
"""


@dataclass(frozen=True)
class StreamKey:
    """Which ledger a row belongs to, brand aside."""

    tenant: str
    source: str
    stream: str
    generation: int


@dataclass(frozen=True)
class Inserted:
    """The rows really inserted, as `totals.sums` takes them, and the number that had changed under their key.

    `added`: what the rows add to each player, where the draft had it.
    """

    rows: pl.DataFrame
    changed: int
    added: pl.DataFrame | None = None


def insert(
    connection: psycopg.Connection[Any],
    stream: StreamKey,
    drafted: Draft,
    players: pl.DataFrame,
    rates: Rates,
    *,
    fresh: bool,
) -> Inserted:
    """Insert a draft's rows for its accounts' `players` (see players.accounts); what is there already is left alone.

    `fresh` promises that no row at these positions was ever read: then they are copied straight in, under a
    savepoint, and only a broken promise goes through staging.
    """
    placed = _placed(connection, stream, drafted, players, rates)
    rows = placed.rows
    if fresh:
        try:
            with connection.transaction():
                # What is nowhere told is left to its default, which is null: both sides have less to do.
                told = [name for name in _COLUMNS if rows[name].null_count() < rows.height]
                numbered = rows.select_seq(_next_seq(connection, rows.height), *told)
                copy_frame(connection, f"crm.event_rows (seq, {', '.join(told)})", numbered)
        except psycopg.errors.UniqueViolation:
            pass
        else:
            _await_rates(connection, rows)
            return placed
    return _insert_staged(connection, rows)


def _next_seq(connection: psycopg.Connection[Any], rows: int) -> pl.Series:
    """Take the next numbers of the ledger: one call is cheaper than one a row, and the store's lock is held."""
    taken = connection.execute(_TAKE, (rows,)).fetchone()
    assert taken is not None
    return pl.int_range(taken[0] - rows + 1, taken[0] + 1, eager=True).alias("seq")


def _insert_staged(connection: psycopg.Connection[Any], rows: pl.DataFrame) -> Inserted:
    connection.execute(_STAGE)
    target = f"pg_temp.stage_events (ordinal, {', '.join(_COLUMNS)})"
    copy_frame(connection, target, rows.with_row_index("ordinal").select_seq("ordinal", *_COLUMNS))
    returned = connection.execute(_INSERT).fetchall()
    changed = 0
    if len(returned) < rows.height:
        keys = pl.DataFrame(
            returned, schema={"stream_id": pl.Int16, "key": pl.String, "name_id": pl.Int16}, orient="row"
        )
        changed = connection.execute(_CHANGED).rowcount
        rows = rows.join(keys, on=["stream_id", "key", "name_id"], how="semi").unique(
            ["stream_id", "key", "name_id"], keep="first", maintain_order=True
        )
    _await_rates(connection, rows)
    return Inserted(rows, changed)


def _placed(
    connection: psycopg.Connection[Any], stream: StreamKey, drafted: Draft, players: pl.DataFrame, rates: Rates
) -> Inserted:
    """Put players into a draft; what they or a timeline of rates say of its money is looked up now."""
    brands = drafted.accounts["brand_id"].to_list()
    ids = {brand: stream_id(connection, stream, brand) for brand in dict.fromkeys(brands)}
    account = drafted.rows["account"]
    rows = drafted.rows.with_columns_seq(
        players["player_id"].gather(account),
        pl.Series("stream_id", [ids[brand] for brand in brands], dtype=pl.Int16).gather(account),
        shape_id=pl.lit(_shape_id(connection, stream.tenant, drafted.shape), dtype=pl.Int32),
    )
    if players["player_erased"].any():
        erased = players["player_erased"].gather(account)
        rows = rows.with_columns_seq(
            properties=pl.when(erased).then(pl.lit("{}")).otherwise("properties"),
            packed=pl.when(~erased).then("packed"),
        )
    if drafted.added is not None:
        added = drafted.added.with_columns_seq(players["player_id"].gather(drafted.added["account"]))
        return Inserted(rows, 0, added.select_seq("player_id", pl.exclude("player_id", "account")))
    own = pl.coalesce("currency", players["player_currency"].gather(account))
    rows = rows.with_columns_seq(currency=pl.when(pl.col("native").is_not_null()).then(own))
    return Inserted(priced(connection, stream.tenant, rows, rates), 0)


def stream_id(connection: psycopg.Connection[Any], stream: StreamKey, brand: str) -> int:
    """Return the small number that stands for (stream, brand) in every row, giving one at first sight."""
    values = (stream.tenant, stream.source, stream.stream, stream.generation, brand)
    row = connection.execute(
        """
        select stream_id from crm.event_streams
        where (tenant, source, stream, generation, brand_id) = (%s, %s, %s, %s, %s)
        """,
        values,
    ).fetchone()
    if row is None:
        row = connection.execute(
            """
            insert into crm.event_streams (tenant, source, stream, generation, brand_id) values (%s, %s, %s, %s, %s)
            returning stream_id
            """,
            values,
        ).fetchone()
    assert row is not None
    return int(row[0])


def _shape_id(connection: psycopg.Connection[Any], tenant: str, shape: tuple[str, ...] | None) -> int | None:
    """Return the number that stands for a shape in every row, giving one at first sight."""
    if shape is None:
        return None
    values = {"tenant": tenant, "names": list(shape)}
    row = connection.execute(_SHAPE, values).fetchone() or connection.execute(_NEW_SHAPE, values).fetchone()
    assert row is not None
    return int(row[0])


def _await_rates(connection: psycopg.Connection[Any], rows: pl.DataFrame) -> None:
    """Note the events whose base amount has to wait: no rate yet, or a stub player whose currency is not known."""
    waiting = rows.filter(pl.col("native").is_not_null() & pl.col("rate").is_null() & ~pl.col("play"))
    if waiting.height:
        connection.execute(
            """
            insert into crm.fx_pending (seq, tenant, player_id, currency, occurred_at)
            select e.seq, s.tenant, e.player_id, e.currency, e.occurred_at
            from unnest(%s::smallint[], %s::text[], %s::smallint[]) as w(stream_id, key, name_id)
            join crm.event_rows e using (stream_id, key, name_id) join crm.event_streams s using (stream_id)
            on conflict do nothing
            """,
            (waiting["stream_id"].to_list(), waiting["key"].to_list(), waiting["name_id"].to_list()),
        )
