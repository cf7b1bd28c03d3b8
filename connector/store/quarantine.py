"""Rows that could not become an event or a profile: kept whole, with reason and field, until a person decides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, LiteralString

from psycopg.rows import dict_row

from connector import contacts
from connector.store.database import preparing

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl
    import psycopg

    from connector.contacts import Keys
    from connector.store.checkpoints import Checkpoint

_INSERT: Final = """
    insert into crm.quarantine
        (tenant, source, stream, reason, field, row_key, transaction_id, brand_id, external_id, kept, raw, mark)
    select tenant, source, stream, reason, field, row_key, transaction_id, brand_id, external_id, kept,
           case when exists (select from crm.players p where p.erased_at is not null
                             and (p.tenant, p.brand_id, p.external_id) = (r.tenant, r.brand_id, r.external_id))
                then '{}' else raw end, mark
    from (values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::boolean, %s::jsonb, %s::bigint)) as r (
        tenant, source, stream, reason, field, row_key, transaction_id, brand_id, external_id, kept, raw, mark)
    on conflict (tenant, source, stream, row_key, reason, field) do update
    set raw = excluded.raw, mark = excluded.mark, seen_count = crm.quarantine.seen_count + 1, last_at = now()
"""


def insert(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, rejections: pl.DataFrame, keys: Keys | None = None
) -> None:
    """Store rejected rows inside the caller's transaction; one seen again is counted, not repeated.

    Of an account that was erased the row is not kept, only that there was one. Where contacts are encrypted they are
    masked in the row that is kept: a retry needs its key alone, reads the row from its view again, and a person finds
    it there.
    """
    if rejections.is_empty():
        return
    where = (checkpoint.tenant, checkpoint.source, checkpoint.stream)
    columns = ("reason", "field", "row_key", "transaction_id", "brand_id", "external_id", "kept", "raw", "mark")
    rows = (
        rejections.select_seq(columns)
        .with_columns_seq(rejections["field"].fill_null(""), rejections["row_key"].fill_null(""))
        .rows()
    )
    if keys is not None:
        at = columns.index("raw")
        shown = [contacts.hidden(row[at], keys.columns, keep=checkpoint.key_columns) for row in rows]
        rows = [(*row[:at], raw, *row[at + 1 :]) for row, raw in zip(rows, shown, strict=True)]
    with preparing(connection, after=0), connection.cursor() as cursor:  # it writes one row, whatever the page has
        cursor.executemany(_INSERT, [(*where, *row) for row in rows])


@dataclass(frozen=True)
class Selection:
    """Which entries are meant; None leaves a column open. `kept` True: those whose row went on without the field."""

    source: str | None = None
    stream: str | None = None
    reason: str | None = None
    field: str | None = None
    since: datetime | None = None
    kept: bool | None = False
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One entry as retry needs it: `raw` is the row as the source wrote it, under the view's own column names."""

    entry_id: int
    reason: str
    field: str
    row_key: str
    raw: dict[str, Any]


def groups(connection: psycopg.Connection[Any], tenant: str, selection: Selection) -> list[dict[str, Any]]:
    """Count the selected entries by stream, reason and field; no values."""
    return _rows(
        connection,
        tenant,
        selection,
        "select source, stream, reason, field, kept, count(*) as entries, sum(seen_count)::bigint as seen,"
        " min(first_at) as first_at, max(last_at) as last_at",
        "group by source, stream, reason, field, kept order by source, stream, kept, entries desc, reason, field",
    )


def listed(connection: psycopg.Connection[Any], tenant: str, selection: Selection, limit: int) -> list[dict[str, Any]]:
    """Return the newest of the selected entries: where and why, and the transaction, but nothing else of the row."""
    return _rows(
        connection,
        tenant,
        selection,
        "select id, source, stream, reason, field, kept, transaction_id, seen_count as seen, first_at, last_at",
        "order by last_at desc, id desc limit %(limit)s",
        limit=limit,
    )


def shown(connection: psycopg.Connection[Any], tenant: str, entry_id: int) -> dict[str, Any] | None:
    """Return everything of one entry, the row as the source wrote it included."""
    found = _rows(connection, tenant, Selection(kept=None, ids=(entry_id,)), "select *", "")
    return found[0] if found else None


def newest_id(connection: psycopg.Connection[Any], tenant: str) -> int:
    """Return the greatest id in use, 0 in an empty quarantine."""
    row = connection.execute("select coalesce(max(id), 0) from crm.quarantine where tenant = %s", (tenant,)).fetchone()
    return int(row[0]) if row else 0


def page(
    connection: psycopg.Connection[Any], tenant: str, selection: Selection, *, after: int, until: int, limit: int
) -> list[Entry]:
    """Return selected entries with ids in (after, until], in order."""
    found = _rows(
        connection,
        tenant,
        selection,
        "select id, reason, field, row_key, raw",
        "and id > %(after)s and id <= %(until)s order by id limit %(limit)s",
        after=after,
        until=until,
        limit=limit,
    )
    return [Entry(row["id"], row["reason"], row["field"], row["row_key"], row["raw"]) for row in found]


def drop(connection: psycopg.Connection[Any], tenant: str, selection: Selection, *, until: int) -> int:
    """Delete the selected entries with ids up to `until`; returns how many."""
    with connection.transaction():
        return len(_rows(connection, tenant, selection, "delete", "and id <= %(until)s returning id", until=until))


def delete(connection: psycopg.Connection[Any], entry_ids: list[int]) -> None:
    """Delete entries by id, inside the caller's transaction."""
    connection.execute("delete from crm.quarantine where id = any(%s)", (entry_ids,))


def changed(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> int:
    """Return how many rows of a stream are known to have come again with other content."""
    row = connection.execute(
        """
        select count(distinct (brand_id, row_key)) from crm.quarantine
        where (tenant, source, stream) = (%s, %s, %s) and reason = 'changed'
        """,
        (checkpoint.tenant, checkpoint.source, checkpoint.stream),
    ).fetchone()
    assert row is not None
    return int(row[0])


def release_due(connection: psycopg.Connection[Any], checkpoint: Checkpoint, reason: str) -> int:
    """Delete the stream's entries of a reason that passes with time, whose row has been stored since."""
    return connection.execute(
        """
        delete from crm.quarantine q
        where (q.tenant, q.source, q.stream, q.reason, q.kept) = (%(tenant)s, %(source)s, %(stream)s, %(reason)s, false)
          and (exists (select from crm.event_streams s join crm.event_rows e using (stream_id)
                       where (s.tenant, s.source, s.stream) = (q.tenant, q.source, q.stream)
                         and s.generation = %(generation)s and e.key = q.row_key)
            or q.stream = 'user_profile' and exists (
                select from crm.players p
                where (p.tenant, p.brand_id, p.external_id) = (q.tenant, q.brand_id, q.external_id)
                  and extract(epoch from p.source_updated_at) * 1000000000 >= q.mark))
        """,
        {
            "tenant": checkpoint.tenant,
            "source": checkpoint.source,
            "stream": checkpoint.stream,
            "generation": checkpoint.generation,
            "reason": reason,
        },
    ).rowcount


_SELECTED: Final = """
    from crm.quarantine where tenant = %(tenant)s
      and (%(source)s::text is null or source = %(source)s) and (%(stream)s::text is null or stream = %(stream)s)
      and (%(reason)s::text is null or reason = %(reason)s) and (%(field)s::text is null or field = %(field)s)
      and (%(since)s::timestamptz is null or last_at >= %(since)s)
      and (%(kept)s::boolean is null or kept = %(kept)s)
      and (%(ids)s::bigint[] = '{}' or id = any(%(ids)s))
"""


def _rows(
    connection: psycopg.Connection[Any],
    tenant: str,
    selection: Selection,
    start: LiteralString,
    end: LiteralString,
    **values: int,
) -> list[dict[str, Any]]:
    chosen = {**asdict(selection), "ids": list(selection.ids), "tenant": tenant, **values}
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"{start} {_SELECTED} {end}", chosen).fetchall()
