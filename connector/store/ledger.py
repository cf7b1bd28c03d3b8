"""The event ledger: canonical events into narrow rows, each (stream, brand, key, name) once. Inside THE transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg

from connector.event import EFFECTS, NAMES
from connector.money import plain
from connector.store.copying import copy_frame
from connector.store.rates import priced

if TYPE_CHECKING:
    from connector.money import Rates

_COLUMNS: Final = (
    *("player_id", "occurred_at", "amount_base", "stream_id", "name_id", "effect", "history", "key", "transaction_id"),
    *("currency", "amount", "fx_rate_locked", "stake", "stake_base", "mark", "properties"),
)
_EFFECTS: Final = {name: code for code, name in enumerate(EFFECTS, start=1)}
_STAGE: Final = """
    create temporary table if not exists stage_events (
        ordinal integer, player_id bigint, occurred_at timestamptz, amount_base bigint, stream_id smallint,
        name_id smallint, effect smallint, history boolean, key text collate "C", transaction_id text, currency text,
        amount numeric, fx_rate_locked numeric, stake numeric, stake_base bigint, mark bigint,
        properties json
    ) on commit delete rows
"""
_INSERT: Final = f"""
    insert into crm.event_rows ({", ".join(_COLUMNS)})
    select {", ".join(_COLUMNS)} from pg_temp.stage_events order by ordinal
    on conflict (stream_id, key, name_id) do nothing
    returning stream_id, key, name_id
"""
_TAKE: Final = "select setval('crm.event_seq', nextval('crm.event_seq') + %s - 1)"
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
    """The rows really inserted, as `totals.sums` takes them, and the number that had changed under their key."""

    rows: pl.DataFrame
    changed: int


def insert(
    connection: psycopg.Connection[Any], stream: StreamKey, events: pl.DataFrame, rates: Rates, *, fresh: bool
) -> Inserted:
    """Insert events whose `player_id` and `player_currency` are resolved; what is there already is left alone.

    `fresh` promises that no row at these positions was ever read: then they are copied straight in, under a
    savepoint, and only a broken promise goes through staging.
    """
    rows = _narrow(connection, stream, events, rates)
    if fresh:
        try:
            with connection.transaction():
                numbered = rows.select(_next_seq(connection, rows.height), *_COLUMNS)
                copy_frame(connection, f"crm.event_rows (seq, {', '.join(_COLUMNS)})", numbered)
        except psycopg.errors.UniqueViolation:
            pass
        else:
            _await_rates(connection, rows)
            return Inserted(rows, 0)
    return _insert_staged(connection, rows)


def _next_seq(connection: psycopg.Connection[Any], rows: int) -> pl.Series:
    """Take the next numbers of the ledger: one call is cheaper than one a row, and the store's lock is held."""
    taken = connection.execute(_TAKE, (rows,)).fetchone()
    assert taken is not None
    return pl.int_range(taken[0] - rows + 1, taken[0] + 1, eager=True).alias("seq")


def _insert_staged(connection: psycopg.Connection[Any], rows: pl.DataFrame) -> Inserted:
    connection.execute(_STAGE)
    target = f"pg_temp.stage_events (ordinal, {', '.join(_COLUMNS)})"
    copy_frame(connection, target, rows.with_row_index("ordinal").select("ordinal", *_COLUMNS))
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


def _narrow(connection: psycopg.Connection[Any], stream: StreamKey, events: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    """Turn canonical events into rows of the ledger: ids for names, money in both currencies."""
    ids = {brand: stream_id(connection, stream, brand) for brand in events["brand_id"].unique()}
    names = {name: index for index, name in enumerate(NAMES, start=1)}
    named = events.with_columns(
        currency=pl.when(pl.col("amount").is_not_null()).then(pl.coalesce("currency", "player_currency")),
        stream_id=pl.col("brand_id").replace_strict(ids, return_dtype=pl.Int16),
        name_id=pl.col("name").replace_strict(names, return_dtype=pl.Int16),
        effect=pl.col("effect").replace_strict(_EFFECTS, default=0, return_dtype=pl.Int16)
        * pl.col("sign").fill_null(1),
        transaction_id=pl.when(pl.col("transaction_id") != pl.col("key")).then(pl.col("transaction_id")),
        native=pl.col("amount"),
        native_stake=pl.col("stake"),
        properties=pl.when(pl.col("player_erased")).then(pl.lit("{}")).otherwise("properties"),
    )
    return priced(connection, stream.tenant, named, rates).with_columns(
        amount=plain(pl.col("native")), stake=plain(pl.col("native_stake"))
    )


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
