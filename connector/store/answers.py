"""What a person answers for a stream, written beside a running daemon: each answer raises the checkpoint's revision.

What the daemon had read before an answer is not written any more (see checkpoints.advance); it opens the stream again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from connector.errors import Superseded
from connector.position import EARLIEST, Position

if TYPE_CHECKING:
    import psycopg

    from connector.store.checkpoints import Checkpoint


def accept(connection: psycopg.Connection[Any], checkpoint: Checkpoint, server: str, *, forget: bool) -> None:
    """Let the stream be read from this server too; `forget` the rows by which its data was recognised."""
    _answer(
        connection,
        checkpoint,
        """
        servers = case when %(server)s = any(servers) then servers else array_append(servers, %(server)s) end,
        samples = case when %(forget)s then '[]'::jsonb else samples end, answer = null, state = 'running', error = null
        """,
        {"server": server, "forget": forget},
    )


def wait(connection: psycopg.Connection[Any], checkpoint: Checkpoint, error: str) -> None:
    """Let the stream wait until its source is what it was."""
    _answer(connection, checkpoint, "answer = 'wait', state = 'running', error = %(error)s", {"error": error})


def reset(connection: psycopg.Connection[Any], checkpoint: Checkpoint, position: Position | None) -> None:
    """Put both marks back to a position, None: the beginning. The rows stay those of the same generation."""
    _answer(
        connection,
        checkpoint,
        _MARKS
        + """
        started_mark = case when started_mark > %(start)s then %(start)s else started_mark end,
        samples = '[]', answer = null, state = 'running', error = null
        """,
        _place(position),
    )


def begin_generation(
    connection: psycopg.Connection[Any],
    checkpoint: Checkpoint,
    position: Position | None,
    *,
    server: str,
    cursor: str,
    key: tuple[str, ...],
    history_until: int | None,
) -> None:
    """Count the rows beyond a position as new ones, whatever their keys; backfills of the old ones are forgotten."""
    with connection.transaction():
        _answer(
            connection,
            checkpoint,
            _MARKS
            + """
            generation = generation + 1, started_mark = %(start)s, history_until = %(history_until)s,
            cursor_column = %(column)s, key_columns = %(columns)s,
            servers = case when %(server)s = any(servers) then servers else array_append(servers, %(server)s) end,
            samples = '[]', answer = null, state = 'running', error = null
            """,
            {
                **_place(position),
                "server": server,
                "column": cursor,
                "columns": list(key),
                "history_until": history_until,
            },
        )
        connection.execute(
            "delete from crm.backfill_ranges where tenant = %s and source = %s and stream = %s",
            (checkpoint.tenant, checkpoint.source, checkpoint.stream),
        )


_MARKS: LiteralString = """
    seen_cursor = %(cursor)s, seen_key = %(key)s, seen_mark = %(mark)s,
    sealed_cursor = %(cursor)s, sealed_key = %(key)s, sealed_mark = %(mark)s,
"""


def _place(position: Position | None) -> dict[str, Any]:
    if position is None:
        return {"cursor": None, "key": None, "mark": None, "start": EARLIEST}
    return {"cursor": position.cursor, "key": list(position.key), "mark": position.mark, "start": position.mark}


def _answer(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, changes: LiteralString, values: dict[str, Any]
) -> None:
    """Write an answer to the question that stood at `checkpoint`; raises Superseded when another one was first."""
    done = connection.execute(
        f"""
        update crm.checkpoints set revision = revision + 1, {changes}
        where tenant = %(tenant)s and source = %(source)s and stream = %(stream)s and revision = %(revision)s
        """,
        {
            **values,
            "tenant": checkpoint.tenant,
            "source": checkpoint.source,
            "stream": checkpoint.stream,
            "revision": checkpoint.revision,
        },
    )
    if done.rowcount == 0:
        raise Superseded(f"stream {checkpoint.stream} was answered for by another command", hint="look at its status")
