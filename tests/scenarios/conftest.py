"""A casino whose deposits must arrive exactly once, whatever fails between it and the store."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from connector import app as application, clock, config
from connector.errors import Transient
from connector.metrics import Metrics
from connector.service import Pace, Runner, Service
from connector.streams import STREAMS
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.cycle import Cycle
    from connector.store.database import Database

OperatorDatabase = Any
ROWS: Final = 1_500
PLAYERS: Final = 40
DEADLINE_SECONDS: Final = 60.0
_SINCE: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_IDENTITY: Final = "ext_brand_id varchar(20), user_ext_id varchar(40)"
_TABLES: Final = {
    "user_profile": f"dt_update STAMP, {_IDENTITY}, core_account_status varchar(20), core_registration_date STAMP, "
    "core_user_language varchar(5), core_wallet_currency varchar(5)",
    "deposits": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "deposit_amount decimal(24,6), currency varchar(5)",
}


@dataclass
class Casino:
    """Players and deposits at an operator, the store they are read into, and the comparison of both."""

    operator: OperatorDatabase
    store: Database
    rows: int = 0

    def create(self) -> None:
        """Create tables with their index, and the views over them."""
        for name, columns in _TABLES.items():
            typed = columns.replace("STAMP", _STAMP[self.operator.family])
            self.operator.execute(
                f"create table {name}_rows ({typed})", f"create view {name} as select * from {name}_rows"
            )
        self.operator.execute("create index in_order on deposits_rows (dt_finalized, transaction_id)")
        users = [(_text(_SINCE), "kaasino", f"{n:05}", "ACTIVE", _text(_SINCE), "EN", "EUR") for n in range(PLAYERS)]
        self.operator.fill("user_profile_rows", users)

    def deposit(self, rows: int) -> None:
        """Add deposits, three under every stamp, for all players in turn."""
        numbers = range(self.rows, self.rows + rows)
        self.rows += rows
        self.operator.fill("deposits_rows", [_deposit(number) for number in numbers])

    def settings(self, *, url: str | None = None, store: str | None = None, **source: Any) -> config.Config:
        """Return a configuration that reads the casino, over a proxy where a URL leads to one."""
        return config.parse(self.document(url=url, store=store, **source), streams=list(STREAMS))

    def document(self, *, url: str | None = None, store: str | None = None, **source: Any) -> dict[str, Any]:
        """Return the same as it would stand in a file."""
        streams: dict[str, Any] = {"user_profile": {}, "deposits": {}}
        read = {"name": "casino", "url": url or self.operator.url, "wait": "50ms", "streams": streams, **source}
        return {"tenant": "kaasino", "store": {"url": store or self.store.url}, "sources": [read], "web": None}

    def look(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Ask the store, over a connection of its own, and return rows as mappings."""
        with psycopg.connect(self.store.url, autocommit=True, row_factory=dict_row) as connection:
            answer = connection.execute(query.encode(), values)
            return answer.fetchall() if answer.description else []

    def stored(self) -> int:
        """Return how many deposits the store has."""
        (row,) = self.look("select count(*) as n from crm.event_rows")
        return int(row["n"])

    def assert_whole(self) -> None:
        """Compare keys one by one with the view's rows, and totals with sums over the view; nobody is missing."""
        there = Counter(str(key) for (key,) in self.operator.rows("select transaction_id from deposits"))
        here = Counter(row["key"] for row in self.look("select key from crm.events where stream = 'deposits'"))
        assert sum(there.values()) == self.rows
        assert here == there
        sums = "select user_ext_id, sum(deposit_amount) from deposits group by user_ext_id"
        expected = {str(player): Decimal(amount) for player, amount in self.operator.rows(sums)}
        players = self.look("select * from crm.players left join crm.player_money using (player_id) where not is_stub")
        assert Counter(row["external_id"] for row in players) == Counter(f"{n:05}" for n in range(PLAYERS))
        assert {row["external_id"]: row["deposited"] for row in players if row["deposited"]} == expected
        cents = {row["external_id"]: row["total_deposited"] for row in players if row["total_deposited"]}
        assert cents == {player: int(amount * 100) for player, amount in expected.items()}
        assert self.look("select * from crm.quarantine") == []


def _text(instant: datetime) -> str:
    """Write an instant as both kinds of server take it, in UTC."""
    return instant.strftime("%Y-%m-%d %H:%M:%S.%f")


def _deposit(number: int) -> tuple[object, ...]:
    at = _text(_SINCE + timedelta(microseconds=number // 3))
    return (
        at,
        "kaasino",
        f"{number * 7 % PLAYERS:05}",
        f"d{number}",
        at,
        f"{1 + number % 97}.{number % 100:02}",
        "EUR",
    )


def drive_on(cycle: Cycle, *, passes: int | None = None) -> list[Transient]:
    """Call a source's loop, so many times or until a pass finds nothing more; return the failures on the way."""
    failures: list[Transient] = []
    deadline = clock.monotonic() + DEADLINE_SECONDS
    while passes != 0:
        assert clock.monotonic() < deadline, failures[-3:]
        passes = None if passes is None else passes - 1
        try:
            done = cycle.run_once()
        except Transient as error:
            failures.append(error)
        else:
            assert cycle.failures == {}
            assert not done.standby
            if not done.busy and not done.rows:
                break
    return failures


@pytest.fixture
def casino_of(operator_of: Callable[[str], OperatorDatabase], store: Database) -> Callable[..., Casino]:
    """Give a maker of casinos with deposits, by the name of a dialect."""

    def make(dialect: str, *, rows: int = ROWS, into: Database = store) -> Casino:
        made = Casino(operator_of(dialect), into)
        made.create()
        made.deposit(rows)
        return made

    return make


@pytest.fixture
def proxy_to() -> Iterator[Callable[[str], Proxy]]:
    """Give a maker of proxies to the server of a database URL."""
    with contextlib.ExitStack() as stack:

        def make(url: str) -> Proxy:
            proxy = Proxy(int(url.rpartition("/")[0].rpartition(":")[2]))
            stack.callback(proxy.close)
            return proxy

        yield make


@pytest.fixture
def reading() -> Iterator[Callable[[config.Config], Cycle]]:
    """Give a maker of source loops, driven by the test; they are closed at its end."""
    with contextlib.ExitStack() as stack:

        def make(settings: config.Config) -> Cycle:
            app = application.build(settings)
            stack.callback(app.close)
            return app.cycles[0]

        yield make


@dataclass
class Daemon:
    """`connector run` as a process, and what it logs."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        """Return what it has logged."""
        return self.log.read_text().splitlines()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Daemon]]:
    """Give a starter of daemons; they are killed at the end."""
    started: list[Daemon] = []

    def start(document: dict[str, Any]) -> Daemon:
        file, log = tmp_path / f"{len(started)}.yaml", tmp_path / f"{len(started)}.log"
        file.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "connector", "run", "--config", str(file)]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        started.append(Daemon(process, log))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


class Pass(threading.Thread):
    """One pass of a source's loop beside the test; `failure` is what it raised."""

    def __init__(self, cycle: Cycle) -> None:
        super().__init__()
        self.cycle = cycle
        self.failure: Transient | None = None

    def run(self) -> None:
        """Do the pass."""
        try:
            self.cycle.run_once()
        except Transient as error:
            self.failure = error


@pytest.fixture
def beside() -> Iterator[Callable[[Cycle], Pass]]:
    """Give a starter of one pass of a loop beside the test."""
    started: list[Pass] = []

    def start(cycle: Cycle) -> Pass:
        started.append(Pass(cycle))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Cycle], list[Runner]]]:
    """Give a starter of a source's loop as the daemon runs it, waits and all."""
    with contextlib.ExitStack() as stack:

        def start(cycle: Cycle) -> list[Runner]:
            service = Service([(cycle, Pace(0.0, 0.05))], Metrics())
            service.start()
            stack.callback(service.stop)
            return service.runners

        yield start


@pytest.fixture
def drive() -> Callable[..., list[Transient]]:
    """Give the function that reads on."""
    return drive_on


@pytest.fixture
def limit_of() -> Callable[[Cycle], int]:
    """Give the function that tells how many deposits a loop asks for now."""
    return lambda cycle: next(slot.stream.limit for slot in cycle.slots if slot.stream and slot.name == "deposits")
