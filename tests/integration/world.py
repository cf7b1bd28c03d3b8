"""A store, the books kept beside it, a clock that a test sets, and a destination that only follows the marks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector import edges as loop
from connector.money import Rates
from connector.normalised import RATES as RATE_COLUMNS, REPORTED, Normalised
from connector.settler import Settler
from connector.store import edges, windows
from connector.store.commit import Batch, commit
from tests.integration.oracle import PAYMENTS, TRAILING, Books, Kind, Row, Slot, midnight

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from connector.payments import Payments
    from connector.store.database import Database

Writer = Any
Look = Any
Frames = Any
TENANT: Final = "kaasino"
FIXED: Final = {"GBP": Decimal("1.17"), "TRX": Decimal("0.2517")}
RATES: Final = Rates("EUR", FIXED)
#: Numbers and sums of payments that are not zero, when the latest deposit was, and how much.
Picture = tuple[dict[Slot, int], dict[Slot, Decimal], datetime | None, Decimal | None]
UNSEEN: Final[Picture] = ({}, {}, None, None)


LIFETIME: Final[tuple[tuple[Kind, str, str], ...]] = (
    ("deposit", "deposit_count", "total_deposited"),
    ("cashout", "withdrawal_count", "total_withdrawn"),
)


def picture_of(row: dict[str, Any], found: Payments) -> Picture:
    """Return what a row of crm.players and the windows say together."""
    counts, sums = dict(found.counts), dict(found.sums)
    for kind, number, total in LIFETIME:
        counts[kind, "lifetime", "total"] = row[number]
        sums[kind, "lifetime", "total"] = Decimal(row[total]) / 100
    kept = {slot: n for slot, n in counts.items() if n}, {slot: n for slot, n in sums.items() if n}
    return (*kept, row["last_deposit_at"], found.last_deposit)


@dataclass(repr=False)
class World:
    """A store, the books kept beside it, a clock that a test sets, and a destination that only follows the marks."""

    store: Database
    writer: Writer
    look: Look
    frames: Frames
    zone: ZoneInfo
    now: datetime
    books: Books = field(default_factory=lambda: Books(fixed=FIXED))
    pages: list[list[Row]] = field(default_factory=list)
    picture: dict[int, Picture] = field(default_factory=dict)
    followed: int = 0

    def __post_init__(self) -> None:
        self.loop = loop.Edges(TENANT, self.store)
        self.settler = Settler(TENANT, self.store, RATES)
        tables = "crm.event_rows, crm.players, crm.fx_pending, crm.event_streams, crm.player_changes, crm.fx_rates"
        self.writer.connection.execute(f"truncate {tables} restart identity cascade".encode())
        edges.use(self.writer.connection, TENANT, zone=self.zone.key, play=["FUN"])

    def page(self, rows: Sequence[Row], *, fresh: bool) -> None:
        """Commit a page of rows, to the store and to the books."""
        events = self.frames.events(*(row.event() for row in rows))
        batch = Batch(self.writer.checkpoint, Normalised(events=events), fresh=fresh, rows=len(rows))
        commit(self.writer.connection, batch, rates=RATES, lease=self.writer.lease)
        self.books.arrive(rows)

    def profile(self, player: str, currency: str | None) -> None:
        """Commit a profile."""
        self.writer.profiles({"external_id": player, "default_currency_code": currency})
        self.books.profile(player, currency)

    def quote(self, currency: str, valid_from: datetime, rate: Decimal) -> None:
        """Commit a rate; of a currency whose rate is fixed it says nothing."""
        row = {"base": "EUR", "currency": currency, "valid_from": valid_from, "rate": rate}
        batch = Batch(self.writer.checkpoint, Normalised(rates=pl.DataFrame([row], schema=RATE_COLUMNS)), rows=1)
        commit(self.writer.connection, batch, rates=RATES, lease=self.writer.lease)
        self.books.quote(currency, valid_from, rate)

    def report(self, player: str, as_of: datetime, currency: str | None, values: dict[str, Decimal]) -> None:
        """Commit an operator's own totals of a player."""
        row = {"brand_id": "kaasino", "external_id": player, "as_of": as_of, "currency": currency, **values}
        told = pl.DataFrame([{**dict.fromkeys(REPORTED), **row}], schema=REPORTED)
        batch = Batch(self.writer.checkpoint, Normalised(reported=told), rows=1)
        commit(self.writer.connection, batch, rates=RATES, lease=self.writer.lease)
        self.books.report(player, as_of, currency, values)

    def settle(self) -> None:
        """Let what waited for a rate or a currency be settled."""
        while self.settler.run_once().busy:
            pass

    def walk(self, to: datetime) -> None:
        """Let time pass, and the loop that minds it run."""
        self.now = max(self.now, to)
        while self.loop.run_once().busy:
            pass

    def ids(self) -> dict[str, int]:
        """Return the players that the store knows."""
        return {row["external_id"]: row["player_id"] for row in self.look("select * from crm.players")}

    def seen(self, player_ids: Sequence[int]) -> dict[int, Picture]:
        """Return what a destination is told of these players' payments now: the windows, and totals of a lifetime."""
        found = windows.payments(self.writer.connection, TENANT, list(player_ids), self.now, places=2)
        rows = self.look("select * from crm.players where player_id = any(%s)", list(player_ids))
        return {row["player_id"]: picture_of(row, found[row["player_id"]]) for row in rows}

    def follow(self) -> None:
        """Look at the players who are marked as changed since the last look, and at no other."""
        rows = self.look("select * from crm.player_changes where change_seq > %s", self.followed)
        self.followed = max([self.followed, *(row["change_seq"] for row in rows)])
        self.picture |= self.seen(sorted({row["player_id"] for row in rows}))

    def close(self) -> None:
        """Give the loops' leases back."""
        self.loop.close()
        self.settler.close()


def edges_ahead(world: World) -> list[datetime]:
    """Return the moments to come at which a payment enters or leaves a window, soonest first."""
    found: set[datetime] = set()
    for row in (entry.row for entry in world.books.entries.values() if entry.row.effect in PAYMENTS.values()):
        found |= {row.at, *(row.at + timedelta(days=days) for days in TRAILING.values())}
        found |= {midnight(row.at, world.zone, days) for days in (1, 2)}
    return sorted(at for at in found if at > world.now)


def assert_exact(world: World, pictures: dict[int, Picture]) -> None:
    """Compare every player's payments and latest deposit to the books' at this moment."""
    for player, number in world.ids().items():
        last = world.books.last_deposit(player)
        expected = (*world.books.payments(player, world.now, world.zone), *(last or (None, None)))
        assert pictures.get(number, UNSEEN) == expected, (player, world.now)
