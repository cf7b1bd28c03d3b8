"""What every database behind pyodbc shares: reading rows as texts, and a statement time-out that drivers don't have."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import sqlalchemy as sa

#: SQLSTATE classes: connection, serialization and deadlock, resources, operator, time-outs, cancelled.
_TRANSIENT: Final = ("08", "40", "53", "57", "HYT", "HY008", "HY018", "01002")
#: How drivers that have no state for it tell of a connection that was cut.
_CUT: Final = ("terminating connection", "server closed the connection", "could not send", "did not supply an error")
_FETCH_ROWS: Final = 1000


def fetch(
    connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int, seconds: float
) -> pl.DataFrame:
    """Run a read whose columns the dialect has already turned to text; see Dialect.fetch."""
    driver = connection.connection.driver_connection
    assert driver is not None
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    parameters = [compiled.params[name] for name in compiled.positiontup or ()]
    rows: list[list[str | None]] = []
    size = 0
    cursor = driver.cursor()
    try:
        with _deadline(cursor, seconds):
            cursor.execute(str(compiled), parameters)
            while size <= bytes_limit and (batch := cursor.fetchmany(_FETCH_ROWS)):
                for row in batch:
                    texts = [None if value is None else str(value).replace("\0", "\ufffd") for value in row]
                    size += sum(len(text) for text in texts if text)
                    rows.append(texts)
    finally:
        cursor.close()
    return pl.DataFrame(rows, schema=dict.fromkeys(types, pl.String), orient="row")


def is_transient(error: Exception) -> bool:
    """Return whether an ODBC error says: later."""
    import pyodbc

    original = getattr(error, "orig", None) or error
    if not isinstance(original, pyodbc.Error) or not original.args:
        return False
    state, said = str(original.args[0]), str(original.args[-1]).lower()
    return state.startswith(_TRANSIENT) or (state == "HY000" and any(part in said for part in _CUT))


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
