"""A store that tests write to as the connector does, and an emulator that its relays deliver to."""

from __future__ import annotations

import contextlib
import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
import pytest
from psycopg.rows import dict_row

from connector.emulators import serve
from connector.event import EVENTS, REJECTIONS
from connector.money import Rates
from connector.player import PROFILES
from connector.store import lease as leases
from connector.store.checkpoints import Advance, Checkpoint
from connector.store.commit import Batch, Committed, commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.store.database import Database

TENANT: Final = "kaasino"
RATES: Final = Rates("EUR", {"GBP": Decimal("1.17")})
_DAY: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_PROFILE: Final = {
    "brand_id": "kaasino",
    "status": "active",
    "status_raw": "ACTIVE",
    "marketable": True,
    "rg_self_excluded": False,
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


class Writer:
    """Commits pages of one stream as a source's thread does: under a lease, over a connection of its own."""

    def __init__(self, database: Database, *, stream: str = "deposits", holder: str = leases.HOLDER) -> None:
        self.connection = database.connect()
        self.checkpoint = Checkpoint(TENANT, "casino", stream, 0, "at", ("id",), ("server",), None, None, None)
        lease = leases.acquire(self.connection, f"{TENANT}/source:{stream}", holder=holder)
        assert lease is not None
        self.lease = lease
        self.numbers = itertools.count(1)

    def profiles(self, *profiles: dict[str, Any], production: bool = True) -> Committed:
        """Commit profiles; what is left out has the defaults of an active player."""
        frame = pl.DataFrame(
            [{**dict.fromkeys(PROFILES), **_PROFILE, **profile} for profile in profiles], schema=PROFILES
        )
        return self.commit(Batch(self.checkpoint, profiles=frame, rows=frame.height, production=production))

    def events(self, *events: dict[str, Any], fresh: bool = False) -> Committed:
        """Commit events; what is left out makes a deposit of ten euros."""
        return self.commit(Batch(self.checkpoint, events=frame_of(*events), fresh=fresh, rows=len(events)))

    def commit(self, batch: Batch) -> Committed:
        """Commit a page as it is."""
        return commit(self.connection, batch, rates=RATES, lease=self.lease)

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(psycopg.Error):
            self.connection.close()


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
def emulator() -> Iterator[serve.Running]:
    """Give a fresh Customer.io-compatible server."""
    with serve.start(seed=7) as running:
        yield running
