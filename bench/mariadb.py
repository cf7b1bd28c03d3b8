"""The same bets in a MariaDB: the connector end to end, and beside it its driver alone, reading the view to its end."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pymysql

from bench import processes
from connector import clock
from connector.demo import casino
from connector.store import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.processes import Spent
    from bench.stand import Stand

_COMMENT: Final = re.compile("^--.*$", re.MULTILINE)
_READER: Final = "crm_reader"
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 60.0
#: The casino's tables that the view reads: name -> columns, as in the demo's schema.sql.
_TABLES: Final = {
    "currency_scale": "code varchar(8) primary key, unit decimal(20, 10) not null",
    "accounts": "id bigint primary key, user_id bigint not null, currency varchar(8) not null",
    "games": "id varchar(64) primary key, title varchar(128), provider varchar(64), category varchar(32)",
    "casino_games": "id bigint primary key, account_id bigint, game_id varchar(64), rollback_of bigint",
    "balance_transactions": "id bigint primary key, account_id bigint not null, reference_type varchar(32) not null,"
    " reference_id bigint not null, action varchar(32) not null, amount_cents bigint not null,"
    " bonus_amount_cents bigint not null, created_at datetime(6) not null",
}


@dataclass(frozen=True)
class MariaDB:
    """A private server with the casino's bets and the connector's view of them."""

    directory: Path
    port: int
    pid: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        """Return the reader's SQLAlchemy URL."""
        return f"mysql://{_READER}:{self.password}@127.0.0.1:{self.port}/crm_export"

    def connect(self) -> pymysql.Connection[Any]:
        """Return a session of the administrator."""
        socket = str(self.directory / "socket")
        return pymysql.connect(unix_socket=socket, user="root", autocommit=True, local_infile=True)

    @property
    def version(self) -> str:
        """Return what the server says it is."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select version()")
            return str((cursor.fetchone() or ("?",))[0]).partition("-")[0]


@contextlib.contextmanager
def serve(stand: Stand) -> Iterator[MariaDB | None]:
    """Start a server with the rows of the stand's casino; None where there is none to start."""
    if missing := [name for name in ("mariadbd", "mariadb-install-db") if shutil.which(name) is None]:
        print(f"MariaDB is not to be had: {missing[0]} is not installed", flush=True)
        yield None
        return
    directory = stand.root / "mariadb"
    directory.mkdir(mode=0o755)
    account = []
    if os.geteuid() == 0:
        shutil.chown(directory, pwd.getpwnam("mysql").pw_uid)
        account = ["--user=mysql"]
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={directory}/data", *account, "--skip-test-db"]
    subprocess.run(
        [*install, "--auth-root-authentication-method=normal"],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    port = embedded.free_port()
    process = _start(directory, port, account)
    try:
        server = MariaDB(directory, port, process.pid, secrets.token_hex(16))
        _await(server)
        _fill(server, stand)
        yield server
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


def connector(server: MariaDB, stand: Stand, store_url: str, name: str) -> Spent:
    """Run the connector from MariaDB to the head of casino_bets."""
    streams = {"casino_bets": {"view": stand.casino.views["casino_bets"], "start": "beginning"}}
    configuration = stand.configure(name, store_url, streams, url=server.url)
    command = [sys.executable, "-m", "connector", "run", "--once", "--log-level", "warning"]
    servers = {**stand.pids, "source": server.pid}
    return processes.run([*command, "--config", str(configuration)], stand.root / f"{name}.log", servers=servers)


def driver(server: MariaDB, stand: Stand, _: str, name: str) -> Spent:
    """Read the view with the driver alone."""
    told = {
        "PORT": str(server.port),
        "LOGIN": f"{_READER}:{server.password}",
        "VIEW": stand.casino.views["casino_bets"],
    }
    log = stand.root / f"{name}.log"
    spent = processes.run(
        [sys.executable, "-m", "bench.driver_read"], log, servers={"source": server.pid}, environment=told
    )
    rows, expected = int(log.read_text()), stand.casino.counts()["casino_bets"]
    assert rows == expected, f"the driver read {rows} rows of {expected}"
    return spent


def _start(directory: Path, port: int, account: list[str]) -> subprocess.Popen[bytes]:
    options = (
        *(f"--datadir={directory}/data", f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
        *(f"--socket={directory}/socket", f"--pid-file={directory}/pid", "--skip-log-bin", "--local-infile=1"),
        *("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=256M", "--innodb-flush-log-at-trx-commit=0"),
        *("--character-set-server=utf8mb4", "--performance-schema=OFF"),
    )
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            ["mariadbd", "--no-defaults", *account, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _await(server: MariaDB) -> None:
    deadline = clock.monotonic() + _START_SECONDS
    while True:
        try:
            server.connect().close()
        except pymysql.err.OperationalError:
            if clock.monotonic() > deadline:
                raise RuntimeError((server.directory / "log").read_text()) from None
            clock.sleep(0.05)
        else:
            return


def _fill(server: MariaDB, stand: Stand) -> None:
    """Copy the tables, create the view as it is shipped, and let the reader see nothing else."""
    with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("create database casino")
        with psycopg.connect(stand.casino.admin_url) as operator:
            for name, definition in _TABLES.items():
                cursor.execute(f"create table casino.{name} ({definition})")
                columns = ", ".join(_columns(definition))
                path = stand.root / f"{name}.tsv"
                with (
                    path.open("wb") as file,
                    operator.cursor().copy(f"copy casino.{name} ({columns}) to stdout") as rows,
                ):
                    file.writelines(rows)
                cursor.execute(f"load data local infile '{path}' into table casino.{name} ({columns})")
                path.unlink()
        script = (casino.views_directory() / "mysql" / "casino_bets.sql").read_text()
        for statement in _COMMENT.sub("", script).split(";"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute(f"create user {_READER}@'127.0.0.1' identified by '{server.password}'")
        cursor.execute(f"grant select, show view on crm_export.* to {_READER}@'127.0.0.1'")
        cursor.execute("analyze table casino.balance_transactions, casino.casino_games, casino.accounts")
        cursor.fetchall()


def _columns(definition: str) -> list[str]:
    words = definition.replace("decimal(20, 10)", "decimal").split(", ")
    return [word.split()[0] for word in words]
