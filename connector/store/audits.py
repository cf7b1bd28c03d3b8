"""The store's side of an audit: sums and rows of a stretch of marks, rows by key, and the results of audits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from psycopg.rows import dict_row

from connector.buckets import GREATEST, Bucket, Sums
from connector.errors import Superseded
from connector.store import audit_log, lease as leases

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from connector.store.checkpoints import Checkpoint
    from connector.store.lease import Lease

#: Results that are kept of each stream and kind.
KEPT: Final = 100
EVENTS: Final = {
    "seq": pl.Int64,
    "brand_id": pl.String,
    "key": pl.String,
    "name": pl.String,
    "amount": pl.String,
    "mark": pl.Int64,
}
PLAYERS: Final = {"brand_id": pl.String, "external_id": pl.String, "mark": pl.Int64}
_STREAM: Final = """
    select stream_id from crm.event_streams
    where (tenant, source, stream, generation) = (%(tenant)s, %(source)s, %(stream)s, %(generation)s)
"""
#: The sub-select is an array: the planner then looks into the index of (stream_id, mark).
_WITHIN: Final = f"stream_id = any(array({_STREAM})) and mark between %(low)s and %(last)s"
_SUMS: Final = f"""
    select count(*), coalesce(sum(amount), 0)::text,
           coalesce(sum(('x' || substr(md5(convert_to(key, 'UTF8')), 1, 8))::bit(32)::bigint), 0)::text
    from crm.event_rows where {_WITHIN}
"""
_ROWS: Final = """
    select e.seq, s.brand_id, e.key, n.name, e.amount::text, e.mark
    from crm.event_rows e join crm.event_streams s using (stream_id) join crm.event_names n using (name_id)
"""
#: Of several rows of a key (its event changed its name) the newest stands for the source's row.
_REMARK: Final = f"""
    with wanted as (
        select s.stream_id, w.key, w.mark from unnest(%(brands)s::text[], %(keys)s::text[], %(marks)s::bigint[])
            as w(brand_id, key, mark)
        join crm.event_streams s on s.brand_id = w.brand_id and s.stream_id = any(array({_STREAM}))
    ), newest as (
        select stream_id, key, max(e.seq) as seq, max(w.mark) as mark
        from wanted w join crm.event_rows e using (stream_id, key) group by stream_id, key
    )
    update crm.event_rows e set mark = case when e.seq = n.seq then n.mark end from newest n
    where (e.stream_id, e.key) = (n.stream_id, n.key)
      and e.mark is distinct from case when e.seq = n.seq then n.mark end
"""
_MARK: Final = "(extract(epoch from source_updated_at) * 1000000)::bigint * 1000"
_PLAYERS: Final = f"""
    select brand_id, external_id, {_MARK} from crm.players
    where tenant = %(tenant)s and not is_stub
"""
_CHANGED: Final = """
    and source_updated_at >= timestamptz 'epoch' + %(low)s / 1000 * interval '1 microsecond'
    and source_updated_at < timestamptz 'epoch' + %(high)s / 1000 * interval '1 microsecond'
    and (%(brands)s::text[] is null or brand_id = any(%(brands)s::text[]))
"""
_RECORD: Final = """
    insert into crm.audits (tenant, source, stream, kind, from_mark, until_mark, rows, missing, repaired, gone, changed,
        error, started_at, finished_at)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() - make_interval(secs => %s),
        case when %s::text is null then now() end)
"""
_PRUNE: Final = """
    delete from crm.audits where (tenant, source, stream, kind) = (%s, %s, %s, %s) and audit_id < (
        select min(audit_id) from (
            select audit_id from crm.audits where (tenant, source, stream, kind) = (%s, %s, %s, %s)
            order by audit_id desc limit %s) newest)
"""


@dataclass(frozen=True)
class Outcome:
    """What an audit has found: rows compared, missing here, of those repaired, gone at the source, changed."""

    rows: int = 0
    missing: int = 0
    repaired: int = 0
    gone: int = 0
    changed: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            *(self.rows + other.rows, self.missing + other.missing, self.repaired + other.repaired),
            *(self.gone + other.gone, self.changed + other.changed),
        )


@dataclass(frozen=True)
class Shelf:
    """Where one stream's rows stand in the store."""

    connection: psycopg.Connection[Any]
    checkpoint: Checkpoint

    def sums(self, bucket: Bucket) -> Sums:
        """Return number, amounts and key digests of the events of a bucket."""
        row = self.connection.execute(_SUMS, self._within(bucket)).fetchone()
        assert row is not None
        return Sums(row[0], Decimal(row[1]), int(row[2]))

    def least(self, below: int | None) -> int | None:
        """Return the least mark of all, or None where there is none below the given one."""
        low, last = -GREATEST, GREATEST if below is None else max(-GREATEST, below - 1)
        values = {**self._where, "low": low, "last": last}
        row = self.connection.execute(f"select min(mark) from crm.event_rows where {_WITHIN}", values).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def events(self, bucket: Bucket) -> pl.DataFrame:
        """Return the events of a bucket."""
        return _frame(self.connection.execute(f"{_ROWS} where {_WITHIN}", self._within(bucket)), EVENTS)

    def events_of(self, keys: Sequence[str]) -> pl.DataFrame:
        """Return the events of keys, whatever their marks and brands."""
        query = f"{_ROWS} where stream_id = any(array({_STREAM})) and e.key = any(%(keys)s)"
        return _frame(self.connection.execute(query, {**self._where, "keys": list(keys)}), EVENTS)

    def remark(self, rows: pl.DataFrame, lease: Lease) -> None:
        """Give the events of rows (brand_id, key, mark) the marks that the source's rows have now."""
        if rows.is_empty():
            return
        values = {"brands": rows["brand_id"].to_list(), "keys": rows["key"].to_list(), "marks": rows["mark"].to_list()}
        with self.connection.transaction():
            self.connection.execute(_REMARK, {**self._where, **values})
            leases.assert_held(self.connection, lease)

    def quarantined(self, keys: Sequence[str]) -> set[str]:
        """Return those of the keys, as the quarantine writes them, whose rows are kept there."""
        query = """
            select distinct row_key from crm.quarantine
            where (tenant, source, stream) = (%(tenant)s, %(source)s, %(stream)s) and row_key = any(%(keys)s)
              and not kept and reason <> 'changed'
        """
        return {key for (key,) in self.connection.execute(query, {**self._where, "keys": list(keys)})}

    def players(self, bucket: Bucket) -> pl.DataFrame:
        """Return the players who changed within a bucket, of brands that this source has if there are several."""
        values = {**self._where, "low": bucket.low, "high": bucket.high, "brands": self._brands()}
        return _frame(self.connection.execute(f"{_PLAYERS} {_CHANGED}", values), PLAYERS)

    def players_within(self, bucket: Bucket) -> int:
        """Return how many players changed within a bucket."""
        values = {**self._where, "low": bucket.low, "high": bucket.high, "brands": self._brands()}
        row = self.connection.execute(f"select count(*) from ({_PLAYERS} {_CHANGED}) p", values).fetchone()
        return 0 if row is None else int(row[0])

    def least_update(self) -> int | None:
        """Return when the player changed who has not changed for longest."""
        query = f"select min(m) from ({_PLAYERS}) p(brand_id, external_id, m)"
        row = self.connection.execute(query, self._where).fetchone()
        return None if row is None or row[0] is None else int(row[0])

    def players_of(self, who: pl.DataFrame) -> pl.DataFrame:
        """Return the players named by brand_id and external_id that have a profile."""
        query = f"""
            {_PLAYERS} and (brand_id, external_id) in (select * from unnest(%(brands)s::text[], %(ids)s::text[]))
        """
        values = {"brands": who["brand_id"].to_list(), "ids": who["external_id"].to_list()}
        return _frame(self.connection.execute(query, {**self._where, **values}), PLAYERS)

    def unanswered(self, connection: psycopg.Connection[Any]) -> None:
        """Check, inside a transaction, that no person has answered for the stream since; raises Superseded."""
        query = """
            select revision from crm.checkpoints
            where (tenant, source, stream) = (%(tenant)s, %(source)s, %(stream)s) for share
        """
        row = connection.execute(query, self._where).fetchone()
        if row is None or row[0] != self.checkpoint.revision:
            raise Superseded(
                f"stream {self.checkpoint.stream} was answered for while it was audited", hint="audit it again"
            )

    def filled(self) -> list[tuple[str, str, bool]]:
        """Return the cursors between which backfills have loaded everything: the first is included, the last if True.

        A range that was cut ends among rows of one cursor, of which the next range may not have read the rest yet.
        """
        query = """
            select from_cursor, until_cursor, not exists (
                select from crm.backfill_ranges n where (n.tenant, n.source, n.stream, n.job, n.from_cursor)
                = (r.tenant, r.source, r.stream, r.job, r.until_cursor) and n.done_at is null)
            from crm.backfill_ranges r
            where (tenant, source, stream) = (%(tenant)s, %(source)s, %(stream)s) and done_at is not null
        """
        return self.connection.execute(query, self._where).fetchall()

    def record(
        self, kind: str, ranges: Sequence[Bucket], outcome: Outcome, *, seconds: float, error: str | None = None
    ) -> None:
        """Write the result of an audit that took so long, or what it was given up for, and forget the oldest ones."""
        point = self.checkpoint
        where = (point.tenant, point.source, point.stream, kind)
        bounds = (ranges[0].low, ranges[-1].high - 1) if ranges else (None, None)
        found = (outcome.rows, outcome.missing, outcome.repaired, outcome.gone, outcome.changed)
        self.connection.execute(_RECORD, (*where, *bounds, *found, error, seconds, error))
        self.connection.execute(_PRUNE, (*where, *where, KEPT))
        if outcome.repaired:
            told = {"kind": kind, "rows": outcome.repaired, "missing": outcome.missing}
            by = audit_log.DAEMON if kind != "command" else "connector audit"
            audit_log.append(self.connection, point.tenant, "repair", f"{point.source}.{point.stream}", told, actor=by)

    def _brands(self) -> list[str] | None:
        """Players belong to a tenant: where several sources have users, a brand tells whose they are."""
        others = """
            select from crm.checkpoints where (tenant, stream) = (%(tenant)s, %(stream)s) and source <> %(source)s
        """
        if self.connection.execute(others, self._where).fetchone() is None:
            return None
        brands = "select distinct brand_id from crm.event_streams where (tenant, source) = (%(tenant)s, %(source)s)"
        return [brand for (brand,) in self.connection.execute(brands, self._where)]

    @property
    def _where(self) -> dict[str, Any]:
        point = self.checkpoint
        return {"tenant": point.tenant, "source": point.source, "stream": point.stream, "generation": point.generation}

    def _within(self, bucket: Bucket) -> dict[str, Any]:
        low, last = (max(-GREATEST, min(GREATEST, mark)) for mark in (bucket.low, bucket.high - 1))
        return {**self._where, "low": low, "last": last}


def progress(connection: psycopg.Connection[Any], tenant: str, source: str) -> list[dict[str, Any]]:
    """Return each stream's state, lag, whether the daemon polled it just now, and the age of its audits by kind."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            """
            select stream, state, coalesce(lag_seconds, 0) as lag,
                   coalesce(polled_at > now() - interval '10 seconds', false) as polled,
                   (select coalesce(jsonb_object_agg(kind, age), '{}') from (
                       select kind, extract(epoch from now() - max(started_at)) as age from crm.audits a
                       where (a.tenant, a.source, a.stream) = (c.tenant, c.source, c.stream) group by kind) k) as ages
            from crm.checkpoints c where (tenant, source) = (%s, %s)
            """,
            (tenant, source),
        ).fetchall()


def _frame(cursor: psycopg.Cursor[Any], schema: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(cursor.fetchall(), schema=schema, orient="row")
