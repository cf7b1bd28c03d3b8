"""Where each stream stands: `seen`, `sealed`, `history_until`, the servers it may read and the key it counts by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from connector.errors import Superseded
from connector.landmark import Landmark
from connector.position import EARLIEST, Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg


@dataclass(frozen=True)
class Checkpoint:
    """One stream's row. `history_until` is None when no row was there at the first start.

    `revision` grows with every answer of a person; `lateness` is what the window has widened to within the last day.
    Rows above `started` are promised: EARLIEST is all, None not recorded.
    """

    tenant: str
    source: str
    stream: str
    generation: int
    cursor_column: str
    key_columns: tuple[str, ...]
    servers: tuple[str, ...]
    seen: Position | None
    sealed: Position | None
    history_until: int | None
    revision: int = 0
    lateness: float | None = None
    answer: str | None = None
    started: int | None = None


@dataclass(frozen=True)
class Advance:
    """What a committed page does to its checkpoint; None leaves a mark where it is."""

    seen: Position | None = None
    sealed: Position | None = None
    lag_seconds: float | None = None


def load(connection: psycopg.Connection[Any], tenant: str, source: str, stream: str) -> Checkpoint | None:
    """Return the stream's checkpoint, None before its first start."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "select *, case when widened_at > now() - interval '1 day' then lateness end as widened"
            " from crm.checkpoints where tenant = %s and source = %s and stream = %s",
            (tenant, source, stream),
        ).fetchone()
    if row is None or not row["servers"]:
        return None
    return Checkpoint(
        *(tenant, source, stream, row["generation"], row["cursor_column"]),
        tuple(row["key_columns"]),
        tuple(row["servers"]),
        _position(row, "seen"),
        _position(row, "sealed"),
        None if row["history_until"] is None else int(row["history_until"]),
        revision=row["revision"],
        lateness=row["widened"],
        answer=row["answer"],
        started=None if row["started_mark"] is None else int(row["started_mark"]),
    )


def create(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> None:
    """Store the first start of a stream, before its first read; another process may have been first."""
    connection.execute(
        """
        insert into crm.checkpoints (tenant, source, stream, generation, cursor_column, key_columns, servers,
            seen_cursor, seen_key, seen_mark, sealed_cursor, sealed_key, sealed_mark, history_until, started_mark)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        on conflict (tenant, source, stream) do update set
            cursor_column = excluded.cursor_column, key_columns = excluded.key_columns, servers = excluded.servers,
            seen_cursor = excluded.seen_cursor, seen_key = excluded.seen_key, seen_mark = excluded.seen_mark,
            sealed_cursor = excluded.sealed_cursor, sealed_key = excluded.sealed_key,
            sealed_mark = excluded.sealed_mark, history_until = excluded.history_until,
            started_mark = excluded.started_mark
        where cardinality(crm.checkpoints.servers) = 0
        """,
        (
            *(checkpoint.tenant, checkpoint.source, checkpoint.stream, checkpoint.generation, checkpoint.cursor_column),
            *(list(checkpoint.key_columns), list(checkpoint.servers)),
            *_columns(checkpoint.seen),
            *_columns(checkpoint.sealed),
            checkpoint.history_until,
            checkpoint.sealed.mark if checkpoint.sealed else EARLIEST,
        ),
    )


def advance(connection: psycopg.Connection[Any], checkpoint: Checkpoint, step: Advance, *, rows: int) -> None:
    """Move a checkpoint inside the caller's transaction, the one that holds the page's rows.

    Raises Superseded when a person has answered for the stream since the checkpoint was loaded.
    """
    seen, sealed = _columns(step.seen), _columns(step.sealed)
    moved = connection.execute(
        """
        update crm.checkpoints set
            rows = rows + %(rows)s, polled_at = clock_timestamp(), state = 'running', error = null,
            lag_seconds = coalesce(%(lag)s, lag_seconds),
            seen_cursor = coalesce(%(seen)s, seen_cursor), seen_key = coalesce(%(seen_key)s, seen_key),
            seen_mark = coalesce(%(seen_mark)s, seen_mark),
            sealed_cursor = coalesce(%(sealed)s, sealed_cursor), sealed_key = coalesce(%(sealed_key)s, sealed_key),
            sealed_mark = coalesce(%(sealed_mark)s, sealed_mark)
        where tenant = %(tenant)s and source = %(source)s and stream = %(stream)s and revision = %(revision)s
        """,
        {
            "rows": rows,
            "lag": step.lag_seconds,
            "revision": checkpoint.revision,
            "tenant": checkpoint.tenant,
            "source": checkpoint.source,
            "stream": checkpoint.stream,
            "seen": seen[0],
            "seen_key": seen[1],
            "seen_mark": seen[2],
            "sealed": sealed[0],
            "sealed_key": sealed[1],
            "sealed_mark": sealed[2],
        },
    )
    if moved.rowcount == 0:
        raise _superseded(checkpoint)


def assert_current(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> None:
    """Hold back answers until the caller's transaction ends; raises Superseded when one was given before it.

    For pages that move no mark: a generation that has ended gets no more rows.
    """
    row = connection.execute(
        "select revision from crm.checkpoints where tenant = %s and source = %s and stream = %s for share",
        (checkpoint.tenant, checkpoint.source, checkpoint.stream),
    ).fetchone()
    if row is not None and row[0] != checkpoint.revision:
        raise _superseded(checkpoint)


def landmarks(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> list[Landmark]:
    """Return the rows by which the source is recognised, newest first."""
    row = connection.execute(
        "select samples from crm.checkpoints where tenant = %s and source = %s and stream = %s",
        (checkpoint.tenant, checkpoint.source, checkpoint.stream),
    ).fetchone()
    return [Landmark(**{**sample, "key": tuple(sample["key"])}) for sample in (row[0] if row else [])]


def set_landmarks(connection: psycopg.Connection[Any], checkpoint: Checkpoint, marks: Sequence[Landmark]) -> None:
    """Keep the rows by which the source is recognised. Raises Superseded: an answer may have meant other ones."""
    done = connection.execute(
        """
        update crm.checkpoints set samples = %s
        where tenant = %s and source = %s and stream = %s and revision = %s
        """,
        (
            Jsonb([asdict(mark) for mark in marks]),
            *(checkpoint.tenant, checkpoint.source, checkpoint.stream, checkpoint.revision),
        ),
    )
    if done.rowcount == 0:
        raise _superseded(checkpoint)


def clear_answer(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> None:
    """Forget the answer `wait`: what it waited for has come."""
    connection.execute(
        "update crm.checkpoints set answer = null where tenant = %s and source = %s and stream = %s and revision = %s",
        (checkpoint.tenant, checkpoint.source, checkpoint.stream, checkpoint.revision),
    )


def note_late(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, *, rows: int, lateness: float | None
) -> None:
    """Record rows that only a look back found, and the window (seconds) if it has widened because of them."""
    connection.execute(
        """
        update crm.checkpoints set late_rows = late_rows + %s, lateness = coalesce(%s, lateness),
               widened_at = case when lateness is null and %s::double precision is null then widened_at else now() end
        where tenant = %s and source = %s and stream = %s
        """,
        (rows, lateness, lateness, checkpoint.tenant, checkpoint.source, checkpoint.stream),
    )


def widened(connection: psycopg.Connection[Any], checkpoint: Checkpoint) -> float | None:
    """Return the window in seconds that rows of the last day asked for, None: as configured."""
    row = connection.execute(
        """
        select lateness from crm.checkpoints
        where tenant = %s and source = %s and stream = %s and widened_at > now() - interval '1 day'
        """,
        (checkpoint.tenant, checkpoint.source, checkpoint.stream),
    ).fetchone()
    return None if row is None else row[0]


def caught_up(connection: psycopg.Connection[Any], checkpoint: Checkpoint, *, waits: str | None = None) -> None:
    """Record that a poll found nothing new: the stream lives and has no lag, unless it `waits` for its source.

    Raises Superseded like `advance`: an idle stream must notice an answer too.
    """
    done = connection.execute(
        """
        update crm.checkpoints set polled_at = clock_timestamp(), state = 'running', error = %(waits)s,
               lag_seconds = case when %(waits)s::text is null then 0 else lag_seconds end
        where tenant = %(tenant)s and source = %(source)s and stream = %(stream)s and revision = %(revision)s
        """,
        {
            "waits": waits,
            "revision": checkpoint.revision,
            "tenant": checkpoint.tenant,
            "source": checkpoint.source,
            "stream": checkpoint.stream,
        },
    )
    if done.rowcount == 0:
        raise _superseded(checkpoint)


def set_state(
    connection: psycopg.Connection[Any], tenant: str, source: str, stream: str, state: str, error: str | None
) -> None:
    """Record what a stream is doing (running, paused or stopped) and why, also before it has ever started."""
    connection.execute(
        """
        insert into crm.checkpoints (tenant, source, stream, state, error) values (%s, %s, %s, %s, %s)
        on conflict (tenant, source, stream) do update set state = excluded.state, error = excluded.error
        """,
        (tenant, source, stream, state, error),
    )


def set_counts(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, *, null_cursors: int, future_rows: int
) -> None:
    """Record rows that are not read: without a cursor, or ahead of the source's clock."""
    connection.execute(
        """
        update crm.checkpoints set null_cursors = %s, future_rows = %s
        where tenant = %s and source = %s and stream = %s
        """,
        (null_cursors, future_rows, checkpoint.tenant, checkpoint.source, checkpoint.stream),
    )


def _superseded(checkpoint: Checkpoint) -> Superseded:
    return Superseded(
        f"stream {checkpoint.stream} was answered for while it ran", hint="it is opened again where the answer says"
    )


def _position(row: dict[str, Any], name: str) -> Position | None:
    if row[f"{name}_cursor"] is None:
        return None
    return Position(row[f"{name}_cursor"], tuple(row[f"{name}_key"]), int(row[f"{name}_mark"]))


def _columns(position: Position | None) -> tuple[str | None, list[str] | None, int | None]:
    return (None, None, None) if position is None else (position.cursor, list(position.key), position.mark)
