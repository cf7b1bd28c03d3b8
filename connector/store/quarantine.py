"""Rows that could not become an event or a profile: kept whole, with reason and field, until a person decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import polars as pl
    import psycopg

    from connector.store.checkpoints import Checkpoint

_INSERT: Final = """
    insert into crm.quarantine
        (tenant, source, stream, reason, field, row_key, transaction_id, brand_id, external_id, kept, raw, mark)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (tenant, source, stream, row_key, reason, field) do update
    set raw = excluded.raw, mark = excluded.mark, seen_count = crm.quarantine.seen_count + 1, last_at = now()
"""


def insert(connection: psycopg.Connection[Any], checkpoint: Checkpoint, rejections: pl.DataFrame) -> None:
    """Store rejected rows inside the caller's transaction; one seen again is counted, not repeated."""
    if rejections.is_empty():
        return
    where = (checkpoint.tenant, checkpoint.source, checkpoint.stream)
    columns = ("reason", "field", "row_key", "transaction_id", "brand_id", "external_id", "kept", "raw", "mark")
    rows = (
        rejections.select(columns)
        .with_columns(rejections["field"].fill_null(""), rejections["row_key"].fill_null(""))
        .rows()
    )
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, [(*where, *row) for row in rows])
