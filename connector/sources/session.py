"""One session of one source: connected when it is needed, bounded in time, and every failure of it classified."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa

from connector import contacts
from connector.errors import Misconfigured, Transient
from connector.sources import DIALECTS
from connector.sources.deadline import Bounded, SilenceError
from connector.sources.dialect import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_REFUSALS: Final = (
    *("password authentication failed", "access denied", "login failed"),
    *("no pg_hba.conf entry", "unknown database"),
)
#: PostgreSQL says "does not exist" of tables, columns and functions too: those are no login.
_NO_SUCH_LOGIN: Final = re.compile(r'\b(?:database|role|user) "[^"]*" does not exist')


class Session:
    """Used by one thread. Every failure leaves it disconnected; the next call connects again."""

    def __init__(self, url: str, *, source: str, settings: Settings | None = None) -> None:
        self.source = source
        self.settings = settings or Settings()
        parsed = _parse(url, source)
        self.dialect = DIALECTS[parsed.drivername]
        self._engine = self.dialect.engine(parsed, self.settings)
        self._connection: sa.Connection | None = None
        self._bounded = Bounded()
        #: How often this session has connected: another connection may lead to another server.
        self.connections = 0

    def close(self) -> None:
        """Close the session; idempotent."""
        connection, self._connection = self._connection, None
        _close(connection)
        self._bounded.close()

    def ask(self, work: Callable[[sa.Connection], T]) -> T:
        """Do something over the session, connecting first if need be; both are given up after the settings' time.

        Raises Transient for what passes (a cut connection, a standby conflict, a time-out), Misconfigured for what a
        person must change (credentials, host, permissions, a missing view).
        """
        seconds = self.settings.answer_timeout
        try:
            if self._connection is not None and self._connection.invalidated:
                self.close()
            if self._connection is None:
                self._connection = self._bounded(self._connect, seconds=seconds, leave=_close)
                self.connections += 1
            connection = self._connection
            return self._bounded(lambda: work(connection), seconds=seconds, leave=lambda _: _close(connection))
        except SilenceError as error:
            self._leave()
            raise Transient(
                f"source {self.source}: no answer within {seconds:g} s",
                hint="the server is overloaded, or it or the network has gone silent; it is tried again from the last "
                "committed position",
            ) from error
        except Exception as error:
            self.close()
            raise self._classify(error) from error
        except BaseException:
            self._leave()
            raise

    def _connect(self) -> sa.Connection:
        connection = self._engine.connect()
        try:
            self.dialect.prepare(connection, self.settings)
        except BaseException:
            _close(connection)
            raise
        return connection

    def _leave(self) -> None:
        """Part from a session that is still in use: its call closes it when it ends, which a cut brings about."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may have ended just now
                self.dialect.cut(connection)

    def _classify(self, error: Exception) -> Exception:
        if (
            not isinstance(error, sa.exc.DBAPIError)
            and not hasattr(error, "sqlstate")
            and not type(error).__module__.startswith(("pymysql", "pyodbc"))
        ):
            return error
        reason = _reason(error)
        if _is_login(reason):
            return Misconfigured(
                f"source {self.source}: the server refused the login: {reason}",
                hint="check user, password and database in sources[].url",
            )
        if self.dialect.is_transient(error):
            return Transient(
                f"source {self.source}: {reason}", hint="it is tried again from the last committed position"
            )
        return Misconfigured(f"source {self.source}: {reason}", hint="run `connector check` with this configuration")


def _close(connection: sa.Connection | None) -> None:
    """Close a session without a last word to the server, which may not answer."""
    if connection is not None:
        with suppress(sa.exc.SQLAlchemyError):  # a broken session is dropped all the same
            connection.invalidate()
            connection.close()


def _is_login(reason: str) -> bool:
    lowered = reason.lower()
    return any(part in lowered for part in _REFUSALS) or _NO_SUCH_LOGIN.search(lowered) is not None


def _reason(error: Exception) -> str:
    """Return the first line of what the server said, no values: drivers keep it last, behind a number or a state."""
    original = getattr(error, "orig", None) or error
    said = next((part for part in reversed(original.args) if isinstance(part, str) and part.strip()), "")
    return contacts.told(said.strip().partition("\n")[0].strip()) or type(original).__name__


def _parse(url: str, source: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise Misconfigured(
            f"source {source}: the url is not a database URL", hint="postgresql://user@host/database"
        ) from None
    if parsed.drivername not in DIALECTS:
        raise Misconfigured(
            f"source {source}: unknown database {parsed.drivername!r}", hint=f"one of {', '.join(DIALECTS)}"
        )
    return parsed
