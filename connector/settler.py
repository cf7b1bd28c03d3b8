"""Events that waited for a rate, settled when there is one: a loop of its own, a piece a transaction.

A rate may come by the stream, the file or a changed configuration, and each may settle a million events: so nobody
who brings one waits for that, and what is settled is told by the store alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from connector.errors import LeaseLost
from connector.seat import Seat
from connector.service import Worked
from connector.store import pending
from connector.store.database import classify

if TYPE_CHECKING:
    from connector.money import Rates
    from connector.store.database import Database


@dataclass
class Settler:
    """One tenant's waiting events. See service.Loop."""

    tenant: str
    database: Database
    rates: Rates
    seat: Seat = field(init=False)

    def __post_init__(self) -> None:
        self.seat = Seat(f"{self.tenant}/{self.name}", self.database)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return "rates"

    def run_once(self) -> Worked:
        """Settle a piece, if something can be."""
        try:
            taken = self.seat.take()
            if taken is None:
                return Worked(standby=True)
            connection, lease = taken
            settled = pending.settle_due(connection, self.tenant, self.rates, lease)
            return Worked(busy=settled, news=settled)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.seat.stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.seat.leave()
            return Worked(standby=True)

    def close(self) -> None:
        """Give the lease back and close the connection; idempotent."""
        self.seat.leave()
