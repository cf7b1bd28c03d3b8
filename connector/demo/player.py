"""A player awake at the demo casino, and their wallets, as traffic remembers them between two rows.

The database's own rows are the truth; what lies here is only what decides what a player does next.
"""

from __future__ import annotations

from dataclasses import dataclass

from connector.demo import games


@dataclass(slots=True)
class Wallet:
    """One account and what lies in it, in subunits."""

    account_id: int
    currency: str
    amount: int

    def cents(self, amount: int) -> int:
        """Return what weighs `amount` cents in this wallet's currency."""
        return amount * games.CURRENCIES[self.currency].per_cent


@dataclass(slots=True)
class Player:
    """A player awake. `busy` while a story is about them: a player does one thing at a time."""

    id: int
    first_name: str
    city: str
    country: str
    level: str
    wallet: Wallet
    fun: Wallet | None = None
    verified: bool = True
    busy: bool = False
    gone: bool = False
