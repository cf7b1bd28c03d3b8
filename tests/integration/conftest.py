"""A store that tests write to as the connector does, and an emulator that its relays deliver to."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from connector import app as application, config
from connector.emulators import serve
from connector.event import EVENTS, REJECTIONS
from connector.money import Rates
from connector.normalised import Normalised
from connector.player import PROFILES
from connector.store import lease as leases
from connector.store.checkpoints import Advance, Checkpoint
from connector.store.commit import Batch, Committed, commit
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connector.contacts import Keys
    from connector.cycle import Cycle
    from connector.errors import ConnectorError
    from connector.store.database import Database

TENANT: Final = "kaasino"
RATES: Final = Rates("EUR", {"GBP": Decimal("1.17")})
_DAY: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_PROFILE: Final = {
    "brand_id": "kaasino",
    "status": "active",
    "status_raw": "ACTIVE",
    "eligible": True,
    "registered_at": _DAY,
    "language": "EN",
    "default_currency_code": "EUR",
    "traits": "{}",
    "history": True,
    "source_updated_at": _DAY,
    "cursor": "2026-01-05 12:00:00+00",
}
_EVENT: Final = {
    "brand_id": "kaasino",
    "name": "deposit_confirmed",
    "occurred_at": _DAY,
    "amount": Decimal("10.00"),
    "sign": 1,
    "currency": "EUR",
    "effect": "deposited",
    "properties": "{}",
    "history": False,
}
_LONG_AGO: Final = "2026-01-05 12:00:00"
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_TEXT: Final = {"postgresql": "text", "mysql": "longtext"}
#: A view of texts, so that it can hold what no column of a good type can.
_DEPOSITS: Final = {
    "dt_finalized": "STAMP",
    "ext_brand_id": "TEXT",
    "user_ext_id": "TEXT",
    "transaction_id": "varchar(2000)",
    "transaction_date": "TEXT",
    "deposit_amount": "TEXT",
    "currency": "TEXT",
    "provider_name": "TEXT",
    "note": "TEXT",
}
_DEPOSIT: Final = (_LONG_AGO, "kaasino", "7", "", _LONG_AGO, "1.00", "EUR", None, None)
_USERS: Final = {
    "dt_update": "STAMP",
    "ext_brand_id": "varchar(2000)",
    "user_ext_id": "varchar(2000)",
    **dict.fromkeys(
        (
            *("core_account_status", "core_registration_date", "core_user_language", "core_wallet_currency"),
            *("user_birthdate", "user_email", "user_phone", "core_affiliate_id", "tags", "user_first_name"),
        ),
        "TEXT",
    ),
}
_VIEWS: Final = {"deposits": _DEPOSITS, "user_profile": _USERS}


class Writer:
    """Commits pages of one stream as a source's thread does: under a lease, over a connection of its own."""

    def __init__(self, database: Database, *, stream: str = "deposits", holder: str = leases.HOLDER) -> None:
        self.connection = database.connect()
        self.checkpoint = Checkpoint(TENANT, "casino", stream, 0, "at", ("id",), ("server",), None, None, None)
        lease = leases.acquire(self.connection, f"{TENANT}/source:{stream}", holder=holder)
        assert lease is not None
        self.lease = lease
        self.numbers = itertools.count(1)
        self.rates = RATES
        self.keys: Keys | None = None

    def profiles(self, *profiles: dict[str, Any], production: bool = True) -> Committed:
        """Commit profiles; what is left out has the defaults of an active player."""
        frame = pl.DataFrame(
            [{**dict.fromkeys(PROFILES), **_PROFILE, **profile} for profile in profiles], schema=PROFILES
        )
        return self.commit(Batch(self.checkpoint, Normalised(profiles=frame), rows=frame.height, production=production))

    def events(self, *events: dict[str, Any], fresh: bool = False, shape: tuple[str, ...] | None = None) -> Committed:
        """Commit events; what is left out makes a deposit of ten euros."""
        brought = Normalised(events=frame_of(*events), shape=shape)
        return self.commit(Batch(self.checkpoint, brought, fresh=fresh, rows=len(events)))

    def commit(self, batch: Batch) -> Committed:
        """Commit a page as it is."""
        return commit(self.connection, batch, rates=self.rates, lease=self.lease, keys=self.keys)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(psycopg.Error):
            self.connection.close()


@dataclass
class CasinoOfTexts:
    """An operator's views of texts and the store that reads them."""

    operator: Any
    store: Database
    crm: psycopg.Connection[dict[str, Any]]

    def create(self, name: str, **changes: str) -> None:
        """Create a table and the view over it; `changes` are other types of its columns."""
        stamp, text = _STAMP[self.operator.family], _TEXT[self.operator.family]
        typed = {column: changes.get(column, ddl) for column, ddl in _VIEWS[name].items()}
        ddl = ", ".join(
            f"{column} {kind.replace('STAMP', stamp).replace('TEXT', text)}" for column, kind in typed.items()
        )
        self.operator.execute(f"create table {name}_rows ({ddl})", f"create view {name} as select * from {name}_rows")

    def deposits(self, *rows: dict[str, Any]) -> None:
        """Add deposits; what is left out makes a good one."""
        good = dict(zip(_DEPOSITS, _DEPOSIT, strict=True))
        self.operator.fill("deposits_rows", [tuple({**good, **row}.values()) for row in rows])

    def users(self, *rows: dict[str, Any]) -> None:
        """Add users; what is left out makes an active one."""
        good = {
            **dict.fromkeys(_USERS),
            "dt_update": _LONG_AGO,
            "ext_brand_id": "kaasino",
            "core_account_status": "ACTIVE",
        }
        self.operator.fill("user_profile_rows", [tuple({**good, **row}.values()) for row in rows])

    def settings(
        self, *, url: str | None = None, source: dict[str, Any] | None = None, **streams: dict[str, Any]
    ) -> config.Config:
        """Return a configuration that reads these streams."""
        casino = {"name": "casino", "url": url or self.operator.url, "streams": streams, **(source or {})}
        document = {
            "store": {"url": self.store.url},
            "tenant": "kaasino",
            "base_currency": "EUR",
            "sources": [casino],
            "web": None,
        }
        return config.parse(document, streams=list(STREAMS))

    def run(self, **streams: Any) -> dict[str, ConnectorError]:
        """Read to the heads and return what stopped."""
        return application.build(self.settings(**streams), once=True).run_once(threading.Event())

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Ask the store."""
        return self.crm.execute(query.encode()).fetchall()

    def keys(self) -> set[str]:
        """Return the keys of all events."""
        return {row["key"] for row in self.rows("select key from crm.events")}

    def refused(self) -> dict[str, tuple[str, str]]:
        """Return what the quarantine says of rows that are no events: key -> (reason, field)."""
        rows = self.rows("select * from crm.quarantine where not kept")
        return {row["row_key"]: (row["reason"], row["field"]) for row in rows}

    def lost(self) -> set[tuple[str, str, str]]:
        """Return what the quarantine says of fields alone: (key, reason, field)."""
        return {
            (row["row_key"], row["reason"], row["field"])
            for row in self.rows("select * from crm.quarantine where kept")
        }


def frame_of(*events: dict[str, Any]) -> pl.DataFrame:
    """Return canonical events; `key` and `external_id` are asked for, the rest makes a deposit of ten euros."""
    rows = [{**dict.fromkeys(EVENTS), **_EVENT, "transaction_id": event["key"], **event} for event in events]
    return pl.DataFrame(rows, schema=EVENTS)


def rejections_of(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return rejections with a reason of their own."""
    defaults = {"reason": "missing", "field": "amount", "kept": False, "raw": json.dumps({"amount": None})}
    return pl.DataFrame([{**dict.fromkeys(REJECTIONS), **defaults, **row} for row in rows], schema=REJECTIONS)


@pytest.fixture
def frames() -> Any:
    """Give the makers of canonical frames."""

    class Frames:
        """What tests build pages of."""

        events = staticmethod(frame_of)
        rejections = staticmethod(rejections_of)
        rates = RATES
        advance = Advance

    return Frames


@pytest.fixture
def writer_of(store: Database) -> Iterator[Any]:
    """Give a maker of writers to the test's store."""
    with psycopg.connect(store.url, autocommit=True) as connection:
        connection.execute(
            "insert into crm.tenants (tenant, base_currency) values (%s, 'EUR') on conflict do nothing", (TENANT,)
        )
    with contextlib.ExitStack() as stack:

        def make(**options: Any) -> Writer:
            writer = Writer(store, **options)
            stack.callback(writer.close)
            return writer

        yield make


@pytest.fixture
def writer(writer_of: Any) -> Writer:
    """Give a writer of deposits and profiles."""
    made: Writer = writer_of()
    return made


@pytest.fixture
def look(store: Database) -> Iterator[Any]:
    """Give a function that asks the store and returns rows as mappings."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        yield lambda query, *values: connection.execute(query.encode(), values).fetchall()


@pytest.fixture
def configured(store: Database, tmp_path: Path) -> Any:
    """Give a maker of configuration files for commands on the test's store; what it is given stands at the top."""

    def write(**settings: Any) -> Path:
        source = {"name": "casino", "url": "postgresql://nobody@127.0.0.1:9/none", "streams": {"deposits": {}}}
        document = {"store": {"url": store.url}, "tenant": TENANT, "sources": [source], "web": None, **settings}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


@pytest.fixture
def casino_of_texts(operator: Any, store: Database) -> Iterator[CasinoOfTexts]:
    """Give an operator without views on every dialect, and an empty store."""
    with psycopg.connect(store.url, autocommit=True, row_factory=dict_row) as connection:
        yield CasinoOfTexts(operator, store, connection)


@pytest.fixture
def emulator() -> Iterator[serve.Running]:
    """Give a fresh Customer.io-compatible server."""
    with serve.start(seed=7) as running:
        yield running


_HOUSE_BETS: Final = (
    "id bigint primary key, ext_brand_id varchar(20), user_ext_id varchar(40), type varchar(20), bet_date STAMP, "
    "bet_amount decimal(20,2), win_amount decimal(20,2), currency varchar(5), game_id varchar(20), game_name varchar(40)"
)
_HOUSE_DEPOSITS: Final = (
    "transaction_id varchar(40) primary key, ext_brand_id varchar(20), user_ext_id varchar(40), dt_finalized STAMP, "
    "transaction_date STAMP, deposit_amount varchar(40), currency varchar(5)"
)
_HOUSE_USERS: Final = (
    "ext_brand_id varchar(20), user_ext_id varchar(40), dt_update STAMP, core_account_status varchar(20), "
    "core_registration_date STAMP, core_user_language varchar(5), core_wallet_currency varchar(5), "
    "primary key (ext_brand_id, user_ext_id)"
)


class House:
    """An operator with users, deposits (a cursor that is a time) and bets (ids), and a store that reads them."""

    def __init__(self, operator: Any, store: Database, crm: psycopg.Connection, path: Path, wait: Any) -> None:
        self.operator, self.store, self.path, self.wait = operator, store, path, wait
        self._crm = crm
        stamp = {"postgresql": "timestamptz", "mysql": "datetime(6)"}[operator.family]
        for name, columns in (
            ("casino_bets", _HOUSE_BETS),
            ("deposits", _HOUSE_DEPOSITS),
            ("user_profile", _HOUSE_USERS),
        ):
            operator.execute(f"create table {name}_rows ({columns.replace('STAMP', stamp)})")
            operator.execute(f"create view {name} as select * from {name}_rows")
        self.source: dict[str, Any] = {"name": "casino", "url": operator.url, "page_rows": 7, "lateness": "300ms"}
        self.source["streams"] = {"deposits": {}, "casino_bets": {"start": "beginning"}}

    @property
    def settings(self) -> config.Config:
        """The configuration, also written to `path`."""
        document = {"tenant": TENANT, "store": {"url": self.store.url}, "web": None, "sources": [self.source]}
        self.path.write_text(yaml.safe_dump(document))
        return config.parse(document, streams=list(STREAMS))

    def bets(self, first: int, last: int, *, user: str = "7", minutes: int = 0) -> None:
        """Add bets of one euro, a second apart, long ago."""
        times = {number: _DAY + timedelta(minutes=minutes, seconds=number) for number in range(first, last + 1)}
        self.operator.fill(
            "casino_bets_rows",
            [(n, "kaasino", user, "BET", _written(at), "1.00", None, "EUR", "g1", "Lemons") for n, at in times.items()],
        )

    def deposits(self, first: int, last: int, *, user: str = "7", minutes: int = 0, amount: str = "10.00") -> None:
        """Add deposits of ten euros, a second apart, long ago."""
        times = {number: _DAY + timedelta(minutes=minutes, seconds=number) for number in range(first, last + 1)}
        self.operator.fill(
            "deposits_rows",
            [(f"d{n}", "kaasino", user, _written(at), _written(at), amount, "EUR") for n, at in times.items()],
        )

    def user(self, name: str, at: datetime) -> None:
        """Add or touch a user."""
        self.operator.execute(f"delete from user_profile_rows where user_ext_id = '{name}'")
        row = ("kaasino", name, _written(at), "ACTIVE", _written(_DAY), "EN", "EUR")
        self.operator.fill("user_profile_rows", [row])

    def once(self) -> dict[str, Any]:
        """Read to the heads; return what stopped, by stream."""
        failed = application.build(self.settings, once=True).run_once(threading.Event())
        return {name.removeprefix("casino."): error for name, error in failed.items()}

    @contextlib.contextmanager
    def running(self) -> Iterator[Cycle]:
        """Give the source's loop, to be called pass by pass as the daemon does."""
        app = application.build(self.settings)
        try:
            yield app.cycles[0]
        finally:
            app.close()

    def settle(self) -> None:
        """Run until everything that is there is final, and once more, so that some of it is remembered."""
        with self.running() as cycle:
            self.wait(lambda: (cycle.run_once(), self.look(_NOT_FINAL)[0][0] == 0)[1], what="everything read is sealed")
        assert self.once() == {}

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """Read or change the store."""
        cursor = self._crm.execute(query.encode())
        return cursor.fetchall() if cursor.description else []

    def state(self, stream: str) -> tuple[str, str | None]:
        """Return what status says of a stream."""
        ((state, error),) = self.look(f"select state, error from crm.checkpoints where stream = '{stream}'")
        return state, error

    def stored(self, stream: str) -> list[str]:
        """Return the keys of the stream's events, in every generation."""
        return [
            key
            for (key,) in self.look(
                f"select key from crm.events where stream = '{stream}' order by length(key), key, generation"
            )
        ]

    def money(self) -> list[tuple[Any, ...]]:
        """Return every player's totals."""
        return self.look("select external_id, total_deposited, total_wagered, bet_count from crm.players order by 1")


_NOT_FINAL: Final = (
    "select count(*) from crm.checkpoints where sealed_mark is distinct from seen_mark or servers = '{}'"
)


def _written(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


@pytest.fixture
def house_on(operator_of: Any, store: Database, tmp_path: Path, wait: Any) -> Iterator[Any]:
    """Give a maker of empty houses, by the name of a dialect."""
    with psycopg.connect(store.url, autocommit=True) as crm:
        yield lambda name: House(operator_of(name), store, crm, tmp_path / "config.yaml", wait)


@pytest.fixture(params=["postgresql", "mysql"])
def house(request: pytest.FixtureRequest, house_on: Any) -> House:
    """Give an empty house on a server of every family."""
    made: House = house_on(request.param)
    return made
