"""The ranges of backfill jobs: made once, moved in the transaction of each page, split where they hold too much."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector.position import Position
from connector.store import checkpoints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    from connector.store.checkpoints import Checkpoint

_JOB: Final = "(tenant, source, stream, job) = (%(tenant)s, %(source)s, %(stream)s, %(job)s)"
#: How much of the cursor a range has behind it, and how much it spans at all; null: made before marks were kept.
_COVERED: Final = """
    case when done_at is not null then until_mark - from_mark
         else greatest(0, least(until_mark, coalesce(at_mark, from_mark)) - from_mark) end
"""
_PROGRESS: Final = f"""
    count(*) as ranges, count(done_at) as ranges_done, coalesce(sum(rows), 0)::bigint as rows,
    case when count(*) = count(done_at) then 1.0
         when count(*) = count(from_mark)
         then (sum({_COVERED}) / nullif(sum(until_mark - from_mark), 0))::double precision end as share
"""
_INSERT: Final = f"""
    insert into crm.backfill_ranges (tenant, source, stream, job, ordinal, from_cursor, until_cursor, from_mark,
        until_mark, at_cursor, at_key, at_mark)
    values (%(tenant)s, %(source)s, %(stream)s, %(job)s,
        (select coalesce(max(ordinal) + 1, 0) from crm.backfill_ranges where {_JOB}),
        %(since)s, %(until)s, %(from_mark)s, %(until_mark)s, %(cursor)s, %(key)s, %(mark)s)
    returning range_id
"""


@dataclass(frozen=True)
class Job:
    """A stream and a name that tells its bounds: the same name is the same job."""

    tenant: str
    source: str
    stream: str
    name: str

    @property
    def where(self) -> dict[str, Any]:
        """Return what the statements bind."""
        return {"tenant": self.tenant, "source": self.source, "stream": self.stream, "job": self.name}


@dataclass(frozen=True)
class Range:
    """One stretch of a job, both bounds included, how far it has come and how many rows that were."""

    range_id: int
    since: str
    until: str
    marks: tuple[int, int]
    at: Position | None = None
    rows: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a job is. `share` of the cursor's span, 0 to 1; None: it can't be told."""

    ranges: int
    ranges_done: int
    rows: int
    share: float | None = None

    @property
    def done(self) -> bool:
        """Return whether every range has been read to its end."""
        return self.ranges == self.ranges_done


def create(connection: psycopg.Connection[Any], job: Job, checkpoint: Checkpoint, parts: Sequence[Range]) -> None:
    """Store the ranges of a new job, all or none. Raises Superseded when a person has answered for the stream since."""
    with connection.transaction():
        checkpoints.assert_current(connection, checkpoint)
        for part in parts:
            _insert(connection, job, part)


def put_back(connection: psycopg.Connection[Any], job: Job, parts: Sequence[Range]) -> list[Range]:
    """Store further ranges of a job inside the caller's transaction, and return them with their ids."""
    return [replace(part, range_id=_insert(connection, job, part)) for part in parts]


def advance(connection: psycopg.Connection[Any], part: Range, last: Position | None, *, rows: int, ends: bool) -> None:
    """Move a range to the position of its newest page, inside the page's transaction.

    `ends`: it is done. Before its bound, it ends at that position: what is left must be put back by the caller.
    """
    cut = ends and last is not None
    connection.execute(
        """
        update crm.backfill_ranges set
            rows = rows + %(rows)s, at_cursor = coalesce(%(cursor)s, at_cursor), at_key = coalesce(%(key)s, at_key),
            at_mark = coalesce(%(mark)s, at_mark), done_at = case when %(ends)s then now() else done_at end,
            until_cursor = case when %(cut)s then %(cursor)s else until_cursor end,
            until_mark = case when %(cut)s then %(mark)s else until_mark end
        where range_id = %(range)s
        """,
        {**_place(last), "rows": rows, "ends": ends, "cut": cut, "range": part.range_id},
    )


def open_ranges(connection: psycopg.Connection[Any], job: Job) -> list[tuple[int, str, str, Position | None, int]]:
    """Return what is left of a job, in order: id, both bounds, position and rows of each range."""
    rows = connection.execute(
        f"""
        select range_id, from_cursor, until_cursor, at_cursor, at_key, at_mark, rows from crm.backfill_ranges
        where {_JOB} and done_at is null order by from_mark, ordinal
        """,
        job.where,
    ).fetchall()
    return [
        (range_id, since, until, None if cursor is None else Position(cursor, tuple(key), int(mark)), count)
        for range_id, since, until, cursor, key, mark, count in rows
    ]


def bounds(connection: psycopg.Connection[Any], job: Job) -> list[tuple[str, str]]:
    """Return the bounds of all ranges of a job, both included."""
    query = f"select from_cursor, until_cursor from crm.backfill_ranges where {_JOB} order by ordinal"
    return [(since, until) for since, until in connection.execute(query, job.where)]


def progress(connection: psycopg.Connection[Any], job: Job) -> Progress:
    """Return how far a job is."""
    row = connection.execute(f"select {_PROGRESS} from crm.backfill_ranges where {_JOB}", job.where).fetchone()
    assert row is not None
    return Progress(*row)


def verified(connection: psycopg.Connection[Any], job: Job) -> datetime | None:
    """Return when a job was found to be complete, None while any range of it was not."""
    row = connection.execute(
        f"select min(verified_at), count(*) = count(verified_at) from crm.backfill_ranges where {_JOB}", job.where
    ).fetchone()
    return row[0] if row is not None and row[1] else None


def note_verified(connection: psycopg.Connection[Any], job: Job) -> None:
    """Record that source and store agree over the whole job."""
    connection.execute(f"update crm.backfill_ranges set verified_at = now() where {_JOB}", job.where)


def unfinished(connection: psycopg.Connection[Any], tenant: str) -> list[dict[str, Any]]:
    """Return a tenant's jobs that have something left to read: source, stream, job and how far it is."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            f"""
            select source, stream, job, {_PROGRESS} from crm.backfill_ranges where tenant = %s
            group by source, stream, job having count(*) > count(done_at) order by source, stream, job
            """,
            (tenant,),
        ).fetchall()


def _insert(connection: psycopg.Connection[Any], job: Job, part: Range) -> int:
    row = connection.execute(
        _INSERT,
        {
            **job.where,
            **_place(part.at),
            "since": part.since,
            "until": part.until,
            "from_mark": part.marks[0],
            "until_mark": part.marks[1],
        },
    ).fetchone()
    assert row is not None
    return int(row[0])


def _place(position: Position | None) -> dict[str, Any]:
    if position is None:
        return {"cursor": None, "key": None, "mark": None}
    return {"cursor": position.cursor, "key": list(position.key), "mark": position.mark}
