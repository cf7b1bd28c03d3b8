"""A player's payments as numbers: how many and how much, over a lifetime and in windows that move with time. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

Kind = Literal["deposit", "cashout"]
LIFETIME: Final = "lifetime"
#: The day before today in the reporting time zone; and trailing windows of N times 24 hours.
WINDOWS: Final = ("previous_day", "last_7", "last_30", "last_90")
#: Stands for all currencies but play money, in units of the base currency.
TOTAL: Final = "total"


@dataclass
class Payments:
    """One player's payments at one moment, by (kind, period, currency); what is not there is zero.

    A reversal counts where it happened: a window is net, and may be below zero. `last_deposit`: the latest deposit in
    units of the base currency, None without one or without a rate for it.
    """

    counts: dict[tuple[Kind, str, str], int] = field(default_factory=dict)
    sums: dict[tuple[Kind, str, str], Decimal] = field(default_factory=dict)
    last_deposit: Decimal | None = None

    def add(self, kind: Kind, period: str, currency: str, count: int, amount: Decimal) -> None:
        """Add a number of payments and their sum."""
        key = (kind, period, currency)
        self.counts[key] = self.counts.get(key, 0) + count
        self.sums[key] = self.sums.get(key, Decimal(0)) + amount
