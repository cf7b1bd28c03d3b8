"""Opens the store: finds or starts its server, brings its schema up to date, hands out connections.

Owns connections and migrations; what is written over them belongs to the other files here.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from connector import clock, contacts
from connector.errors import Misconfigured, Transient
from connector.event import NAMES
from connector.store import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import PQGen

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Transactions here are short: what waits longer than this is stuck, and the page is tried again.
_OPTIONS: Final = (
    "-c timezone=UTC -c statement_timeout=45000 -c lock_timeout=30000 -c idle_in_transaction_session_timeout=60000"
)
CONNECT_SECONDS: Final = 10
#: Names are appended to by a version that needs no other change of the schema.
_NAME_EVENTS: Final = """
    insert into crm.event_names as n (name_id, name) select * from unnest(%s::smallint[], %s::text[])
    on conflict (name_id) do update set name = excluded.name where n.name <> excluded.name
"""
#: A server that has not answered by then has gone silent, or the network: longer than its own time-out of a statement,
#: shorter than the watchdog's patience.
SILENCE_SECONDS: Final = 50.0

T = TypeVar("T")


#: The driver counts these among its own mistakes: a server that became read-only, and one that ended the transaction of
#: a process that was frozen in it.
_PASSING: Final = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)


class _Session(psycopg.Connection[Any]):
    """A session that ends when it is of no use any more: its server is silent, read-only, or has given it up."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Wait for the server as every call of the driver does; see psycopg."""
        try:
            return super().wait(_patient(gen, SILENCE_SECONDS), *args, **kwargs)
        except _SilenceError:
            self.close()
            raise
        except _PASSING as error:
            self.close()
            raise psycopg.OperationalError(first_line(error)) from error


class _SilenceError(psycopg.OperationalError):
    """The server did not answer in time."""


def _patient(gen: PQGen[T], seconds: float) -> PQGen[T]:
    """Drive what the driver waits for, and give it up after so long: it is called again every moment meanwhile."""
    deadline = clock.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and clock.monotonic() > deadline:
                raise _SilenceError(f"no answer within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


@dataclass
class Database:
    """The store's address and, when it is embedded, its server."""

    url: str
    server: embedded.Server | None = None
    #: Done once, before the first connection is handed out: schema, tenant. It gets this database without it.
    prepare: Callable[[Database], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """Open a connection. Raises Transient while the server is away, Misconfigured for a wrong login."""
        with self._lock:
            if self.prepare is not None:
                try:
                    self.prepare(Database(self.url))
                except psycopg.OperationalError as error:
                    raise classify(error) from error
                self.prepare = None
        try:
            return _Session.connect(
                self.url,
                autocommit=autocommit,
                connect_timeout=CONNECT_SECONDS,
                application_name="connector",
                options=_OPTIONS,
            )
        except psycopg.OperationalError as error:
            raise classify(error) from error
        except psycopg.ProgrammingError:  # its text quotes the URL, password and all
            hint = "write special characters of user and password as %XX"
            raise Misconfigured("store.url is not a PostgreSQL URL", hint=hint) from None

    def reader(self, tenant: str, *, personal: bool = False) -> psycopg.Connection[Any]:
        """Open a connection that sees one tenant's rows and changes none; contacts and raw rows where `personal`.

        As crm_app or crm_contacts: what is asked over it can't cross to another tenant, whatever its text.
        """
        connection = self.connect()
        connection.execute("select set_config('app.tenant_id', %s, false)", (tenant,))
        connection.execute("set default_transaction_read_only = on")
        connection.execute("set role crm_contacts" if personal else "set role crm_app")
        return connection

    def alive(self) -> bool:
        """Return whether the embedded server still runs; an operator's own server is not ours to judge."""
        return self.server is None or self.server.alive()

    def close(self) -> None:
        """Stop the embedded server if this process started it."""
        if self.server is not None:
            self.server.stop()


def open_store(url: str) -> Database:
    """Return the store's database, its embedded server running. Main thread only (see store.embedded.start)."""
    if not url.startswith("embedded:"):
        return Database(url)
    server = embedded.ensure(Path(url.removeprefix("embedded:")))
    return Database(server.create_database("crm"), server)


def migrate(database: Database) -> str:
    """Bring the schema to the newest revision and return it; idempotent, safe for two processes at once.

    Called by `run`, `backfill` and `connector store migrate` before anything else. Alembic is loaded where there is
    something to do: it would take a tenth of a second of every start. Raises Misconfigured for a schema of a newer
    version, or where the role or the server can't have it.
    """
    newest, found = newest_revision(), _revision(database)
    if found is not None and found > newest:
        raise Misconfigured(
            f"the store's schema is of a newer version: revision {found}, this one knows {newest}",
            hint="run the version that migrated it, or a newer one",
        )
    if found != newest:
        from connector.store import schema

        schema.upgrade(database.url)
    _name_events(database)
    return newest


def is_current(database: Database) -> bool:
    """Return whether the schema is at the newest revision, changing nothing."""
    return _revision(database) == newest_revision()


def newest_revision() -> str:
    """Return the revision that this version works with: a migration's file begins with its number."""
    return max(path.name.partition("_")[0] for path in MIGRATIONS.glob("[0-9]*.py"))


def _name_events(database: Database) -> None:
    with _permitted(), database.connect() as connection:
        connection.execute(_NAME_EVENTS, (list(range(1, len(NAMES) + 1)), list(NAMES)))


def _revision(database: Database) -> str | None:
    nothing = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
    with _permitted(), database.connect() as connection, suppress(*nothing):
        row = connection.execute("select version_num from crm.schema_version").fetchone()
        return None if row is None else str(row[0])
    return None


@contextmanager
def _permitted() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        hint = "use the role that migrated the store, or make this one a member of crm_writer"
        raise Misconfigured(f"the store's role may not use its schema: {first_line(error)}", hint=hint) from error
    except psycopg.OperationalError as error:
        raise classify(error) from error


def ordered(connection: psycopg.Connection[Any]) -> None:
    """Take the lock under which every writer of the feeds commits: their numbers are drawn in commit order then.

    One for the whole store, since tenants share the sequences. Held to the end of the caller's transaction.
    """
    connection.execute("select pg_advisory_xact_lock(hashtextextended('crm', 0))")


@contextmanager
def preparing(connection: psycopg.Connection[Any], *, after: int | None) -> Iterator[None]:
    """Let the driver prepare, and so keep the plan of, a statement that it has met `after` times before; None: of none.

    What it has prepared already is used again afterwards.
    """
    before = connection.prepare_threshold
    connection.prepare_threshold = after
    try:
        yield
    finally:
        connection.prepare_threshold = before


def classify(error: BaseException) -> Exception:
    """Return what a caller should do about a failed store operation."""
    reason = first_line(error)
    if any(
        text in reason for text in ("authentication failed", "does not exist", "no pg_hba.conf", "no password supplied")
    ):
        return Misconfigured(
            f"the store refused the login: {reason}", hint="check store.url: user, password and database"
        )
    if isinstance(error, psycopg.errors.DiskFull):
        return Transient(
            f"the store's disk is full: {reason}",
            hint="free space where the store's server runs; nothing is lost: reading goes on from the last commit",
        )
    if "read-only transaction" in reason:
        return Transient(
            f"the store can't be written: {reason}",
            hint="store.url leads to a standby, or the server was made read-only: lead it to the primary",
        )
    return Transient(
        f"the store is not available: {reason}", hint="nothing is lost: reading goes on from the last commit"
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, the part that holds no statement, without the values in it."""
    lines = str(error).strip().splitlines()
    return contacts.told(lines[0]) if lines else type(error).__name__
