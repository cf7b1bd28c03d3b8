"""The audit: what is missing in the store is found, put there once, and nothing else is touched; on every dialect."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from connector import app as application, audit, clock, config
from connector.position import SECOND
from connector.store.audits import Outcome
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.audit import Audit
    from connector.store.database import Database

OperatorDatabase = Any
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_MONEY: Final = {"postgresql": "numeric(24,6)", "mysql": "decimal(24,6)"}
_IDENTITY: Final = "ext_brand_id varchar(20), user_ext_id varchar(40)"
_TABLES: Final = {
    "user_profile": f"dt_update STAMP, {_IDENTITY}, core_account_status varchar(20), core_registration_date STAMP, "
    "core_user_language varchar(5), core_wallet_currency varchar(5)",
    "deposits": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "deposit_amount AMOUNT, currency varchar(5)",
    "withdrawals": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "withdrawal_amount AMOUNT, withdrawal_status varchar(20), currency varchar(5)",
    "casino_bets": f"id IDENTIFIER, {_IDENTITY}, type varchar(20), bet_date STAMP, bet_amount AMOUNT, "
    "win_amount AMOUNT, currency varchar(5), game_id varchar(20), game_name varchar(40)",
}
BEGAN: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
CLEAN: Final = Outcome()


@dataclass
class Casino:
    """An operator's tables, and a store that has read them."""

    operator: OperatorDatabase
    store: Database
    streams: dict[str, Any] = field(default_factory=lambda: {"user_profile": {}, "deposits": {}})
    count: int = 0

    def create(self, *names: str) -> None:
        """Create tables and views."""
        family = self.operator.family
        identifier = {"postgresql": "numeric(20,0)", "mysql": "bigint unsigned"}[family]
        for name in names:
            columns = _TABLES[name].replace("STAMP", _STAMP[family]).replace("AMOUNT", _MONEY[family])
            columns = columns.replace("IDENTIFIER", identifier)
            self.operator.execute(f"create table {name}_rows ({columns})", f"create view {name} as select * from {name}_rows")

    def user(self, player: str, *, at: datetime = BEGAN, status: str = "ACTIVE") -> None:
        """Add a user."""
        self.operator.fill("user_profile_rows", [(text(at), "kaasino", player, status, text(BEGAN), "EN", "EUR")])

    def deposit(self, *keys: str, amount: str = "10.50", at: datetime = BEGAN, every: float = 60.0, brand: str = "kaasino") -> None:
        """Add deposits, one a minute."""
        stamps = [text(at + timedelta(seconds=every * n)) for n in range(len(keys))]
        self.operator.fill(
            "deposits_rows", [(s, brand, "1", k, s, amount, "EUR") for k, s in zip(keys, stamps, strict=True)]
        )

    @property
    def settings(self) -> config.Config:
        """The configuration."""
        source = {"name": "casino", "url": self.operator.url, "lateness": "1s", "page_rows": 50, "streams": self.streams}
        document = {"tenant": "kaasino", "store": {"url": self.store.url}, "web": None, "sources": [source]}
        return config.parse(document, streams=list(STREAMS))

    def read(self) -> None:
        """Let the daemon read everything and, since all rows are old, seal it."""
        assert application.build(self.settings, once=True).run_once(threading.Event()) == {}

    def audit(self, stream: str = "deposits", *, repair: bool = True, since: str | None = None, until: str | None = None) -> Outcome:
        """Audit a stream and return what was found, without the number of rows."""
        return self.run(stream, repair=repair, since=since, until=until).outcome

    def run(self, stream: str = "deposits", *, repair: bool = True, since: str | None = None, until: str | None = None) -> Audit:
        """Audit a stream."""
        with application.desk(self.settings, source=None, stream=stream, work="an audit") as desk:
            opened = audit.open_stream(desk, stream)
            assert opened is not None
            ranges = audit.bounded(opened, audit.promised(desk, opened), since, until)
            run = audit.Audit(desk, opened, "command", ranges, repair)
            run.run()
            return run

    def ask(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Read or change the store."""
        with psycopg.connect(self.store.url, row_factory=dict_row) as connection:
            done = connection.execute(query.encode(), values)
            return done.fetchall() if done.description else []

    def keys(self, stream: str = "deposits") -> list[str]:
        """Return the keys of a stream's events in the store, twice if twice."""
        return [row["key"] for row in self.ask("select key from crm.events where stream = %s order by key", stream)]


def text(at: datetime) -> str:
    """Write a stamp as every dialect reads it, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def found(outcome: Outcome) -> dict[str, int]:
    """Return what an audit found, zeros and the number of rows left out."""
    return {name: count for name, count in vars(outcome).items() if count and name != "rows"}


@pytest.fixture
def casino(operator: OperatorDatabase, store: Database) -> Casino:
    """Give a casino of every dialect with one player and no deposits."""
    made = Casino(operator, store)
    made.create("user_profile", "deposits")
    made.user("1")
    return made


def test_a_store_that_has_everything_is_found_complete(casino: Casino) -> None:
    """Nothing is missing, and no row is compared by itself."""
    casino.deposit(*(f"d{n}" for n in range(120)))
    casino.read()
    run = casino.run()
    assert run.outcome == Outcome(rows=120)
    assert run.queries < 20
