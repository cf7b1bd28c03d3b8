"""The loop that lets time pass: players whose windows moved on, or whose exclusion ended, change with no new row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg

from connector import clock
from connector.errors import LeaseLost
from connector.seat import Seat
from connector.service import Worked
from connector.store import edges
from connector.store.database import classify

if TYPE_CHECKING:
    from connector.store.database import Database

#: Players of one transaction: it holds the lock of every writer, and a busy one lets it in about once a second.
PLAYERS: Final = 5000


@dataclass
class Edges:
    """One tenant's edges, a loop of its own. See service.Loop. A run that was cut goes on where it stopped."""

    tenant: str
    database: Database
    seat: Seat = field(init=False)

    def __post_init__(self) -> None:
        self.seat = Seat(f"{self.tenant}/{self.name}", self.database)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return "edges"

    def run_once(self) -> Worked:
        """Pass one piece of what is due. Raises Transient when the store is away: call again later."""
        try:
            taken = self.seat.take()
            if taken is None:
                return Worked(standby=True)
            passed = edges.pass_due(taken[0], self.tenant, clock.now(), limit=PLAYERS, lease=taken[1])
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.seat.stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.seat.leave()
            return Worked(standby=True)
        return Worked(busy=passed == PLAYERS, news=passed > 0)

    def close(self) -> None:
        """Give the lease back and close the connection; idempotent."""
        self.seat.leave()
