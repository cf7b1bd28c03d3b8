"""A store whose ledger is counted by day a second time, plainly, while a test sets the clock, the zone and play money."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from connector.money import Rates
from connector.normalised import RATES as RATE_COLUMNS, Normalised
from connector.store import edges, pending, player_days
from connector.store.commit import Batch, commit

Writer = Any
Look = Any
Frames = Any
TENANT: Final = "kaasino"
NOW: Final = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
ZONES: Final = ("UTC", "Europe/Madrid", "America/New_York", "Asia/Kathmandu")
PLAYERS: Final = ("a", "b", "c")
NAMES: Final = ("deposit_confirmed", "bet_placed", "custom_bet_rolled_back", "login", "withdrawal_requested")
#: SEK has a rate once somebody quotes it, FUN is play money, None means the player's own.
CURRENCIES: Final = ("EUR", "GBP", "SEK", "FUN", None)
RATES: Final = Rates("EUR", {"GBP": Decimal("1.17")})
LEDGER: Final = """
    select e.player_id, n.name, e.occurred_at, e.amount, e.amount_base, e.currency
    from crm.event_rows e join crm.event_names n using (name_id)
"""
DAYS: Final = """
    select d.player_id, d.day, n.name, d.events, d.total, d.least, d.greatest, d.last_at, d.last_amount
    from crm.player_days d join crm.event_names n using (name_id)
"""


@dataclass
class Counted:
    """What one player did on one day under one name."""

    events: int = 0
    amounts: list[tuple[datetime, int]] = field(default_factory=list)

    def row(self) -> tuple[Any, ...]:
        """Return the columns of the roll-up."""
        values = [amount for _, amount in self.amounts]
        last = max(self.amounts, default=(None, None))
        return (self.events, sum(values), min(values, default=None), max(values, default=None), *last)


class World:
    """A store, a clock that a test sets, and a tenant's zone and play money."""

    def __init__(self, writer: Writer, look: Look, frames: Frames) -> None:
        self.writer, self.look, self.frames = writer, look, frames
        self.now, self.zone, self.play, self.number = NOW, "UTC", ("FUN",), 0
        tables = "crm.event_rows, crm.players, crm.fx_pending, crm.event_streams, crm.fx_rates, crm.segments"
        days = "crm.player_days, crm.segment_feed, crm.segment_due, crm.player_changes"
        writer.connection.execute(f"truncate {tables}, {days} restart identity cascade".encode())
        self.use()

    @property
    def rates(self) -> Rates:
        """The rates of the configuration as it is now."""
        fixed = {} if "GBP" in self.play else dict(RATES.fixed)
        return Rates("EUR", fixed, frozenset(self.play))

    def use(self) -> None:
        """Start again with the configuration as it is now."""
        edges.use(self.writer.connection, TENANT, zone=self.zone, play=list(self.play))
        self.writer.rates = self.rates

    def page(self, specs: list[Any]) -> None:
        """Commit a page of events."""
        rows = []
        for player, name, hours, currency, amount in specs:
            self.number += 1
            at = self.now + timedelta(hours=hours, microseconds=self.number)
            money = None if amount is None or name == "login" else Decimal(amount)
            rows.append(
                {
                    "key": f"k{self.number}",
                    "external_id": player,
                    "name": name,
                    "occurred_at": at,
                    "amount": money,
                    "currency": currency,
                    "effect": None,
                }
            )
        self.writer.events(*rows)

    def take(self, step: tuple[Any, ...]) -> None:
        """Carry out one step of a history."""
        name, *rest = step
        connection = self.writer.connection
        if name == "page":
            self.page(rest[0])
        elif name == "profile":
            self.writer.profiles({"external_id": rest[0], "default_currency_code": rest[1]})
        elif name == "quote":
            row = {
                "base": "EUR",
                "currency": "SEK",
                "valid_from": self.now + timedelta(days=rest[0]),
                "rate": Decimal("0.1"),
            }
            frame = pl.DataFrame([row], schema=RATE_COLUMNS)
            commit(
                connection,
                Batch(self.writer.checkpoint, Normalised(rates=frame), rows=1),
                rates=self.rates,
                lease=self.writer.lease,
            )
        elif name == "roll":
            for _ in range(rest[1]):
                player_days.advance(connection, TENANT, self.now, limit=rest[0])
        elif name == "killed":
            with connection.transaction(force_rollback=True):
                player_days.advance(connection, TENANT, self.now, limit=rest[0])
        elif name == "rest":
            player_days.rest(connection, TENANT)
        elif name in {"zone", "play"}:
            setattr(self, name, rest[0])
            self.use()
        elif name == "wait":
            self.now += timedelta(hours=rest[0])
        while pending.settle_due(connection, TENANT, self.rates, self.writer.lease):
            pass

    def finish(self) -> None:
        """Roll up what is left."""
        while player_days.advance(self.writer.connection, TENANT, self.now, limit=3):
            pass

    def stored(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Return the roll-up, days that are about to go aside."""
        rows = self.look(DAYS)
        return {
            (row["player_id"], row["day"], row["name"]): tuple(row.values())[3:]
            for row in rows
            if row["day"] > self.oldest
        }

    @property
    def oldest(self) -> date:
        """The last day that no window reaches."""
        return self.now.astimezone(ZoneInfo(self.zone)).date() - timedelta(days=365)

    def expected(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Count the ledger, plainly."""
        found: dict[tuple[Any, ...], Counted] = {}
        for row in self.look(LEDGER):
            unknown = row["amount"] is not None and (row["currency"] is None or row["currency"] in self.play)
            day = row["occurred_at"].astimezone(ZoneInfo(self.zone)).date()
            if unknown or day <= self.oldest or row["name"].startswith("custom_segment_"):
                continue
            counted = found.setdefault((row["player_id"], day, row["name"]), Counted())
            counted.events += 1
            if row["amount_base"] is not None:
                counted.amounts.append((row["occurred_at"], row["amount_base"]))
        return {key: counted.row() for key, counted in found.items()}
