"""What every database behind pyodbc shares: reading rows as texts, and a statement time-out that drivers don't have."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.sources.dialect import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import sqlalchemy as sa

#: SQLSTATEs of any driver, or classes of them: connection, serialization and deadlock, time-outs, cancelled.
_TRANSIENT: Final = ("08", "40", "HYT", "HY008", "HY018", "01002")
#: How drivers that have no state for it tell of a connection that was cut.
_CUT: Final = ("terminating connection", "server closed the connection", "could not send", "did not supply an error")


def fetch(
    connection: sa.Connection,
    query: sa.Select[Any],
    types: Mapping[str, str],
    *,
    bytes_limit: int,
    read: Callable[[str], bytes] = str.encode,
) -> pl.DataFrame:
    """Run a read whose columns the dialect has already turned to text; see Dialect.fetch.

    `read` takes what the driver gives to the source's bytes; the time-out lies in the connection's info.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    parameters = [compiled.params[name] for name in compiled.positiontup or ()]
    rows: list[list[str | None]] = []
    size = 0
    cursor = driver.cursor()
    try:
        with _deadline(cursor, connection.info.get("seconds", 30.0)):
            cursor.execute(str(compiled), parameters)
            while size <= bytes_limit and (row := cursor.fetchone()):
                raws = [None if value is None else read(value) for value in row]
                size += sum(len(raw) for raw in raws if raw)
                rows.append([None if raw is None else text_of(raw) for raw in raws])
    finally:
        cursor.close()
    return pl.DataFrame(rows, schema=dict.fromkeys(types, pl.String), orient="row")


def is_transient(error: Exception, states: tuple[str, ...] = ()) -> bool:
    """Return whether an ODBC error says: later. `states`: what the server's own SQLSTATEs for that begin with."""
    import pyodbc

    original = getattr(error, "orig", None) or error
    if not isinstance(original, pyodbc.Error) or not original.args:
        return False
    state, said = str(original.args[0]), str(original.args[-1]).lower()
    return state.startswith((*_TRANSIENT, *states)) or (state == "HY000" and any(part in said for part in _CUT))


@contextmanager
def _deadline(cursor: Any, seconds: float) -> Iterator[None]:
    """Cancel the statement after `seconds`: drivers refuse or ignore their own time-out setting.

    The cancelling thread has ended before the connection can be closed: closing under a cancel in flight crashes.
    """
    timer = threading.Timer(seconds, cursor.cancel)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
