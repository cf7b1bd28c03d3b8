"""The loop that keeps realtime segments true: the ledger into days, players who may have changed into memberships.

In the order of a pass: a piece of the ledger, a new day, a batch of the players who are due, and, when nothing of that
is behind, one whole refresh that the clock or a new definition asks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from connector import clock
from connector.errors import LeaseLost, Misconfigured
from connector.seat import Seat
from connector.segments.compiler import PLAIN
from connector.service import Worked
from connector.store import lease as leases, player_days, segment_days, segment_feed, segments
from connector.store.database import classify, first_line, ordered
from connector.store.segments import Unfinished

if TYPE_CHECKING:
    from datetime import date, datetime

    from connector.segments.compiler import Contacts
    from connector.store.database import Database
    from connector.store.lease import Lease

#: Players of one transaction: it holds the lock of every writer.
PLAYERS: Final = 1000
#: A refresh that takes longer goes on in the next pass: every loop reports often enough for the watchdog.
REFRESH_SECONDS: Final = 15.0

log = structlog.get_logger()


@dataclass
class Audience:
    """One tenant's segments, a loop of its own. See service.Loop. A run that was cut goes on where it stopped."""

    tenant: str
    database: Database
    #: How conditions on e-mail and phone find them.
    contacts: Contacts = PLAIN
    seat: Seat = field(init=False)
    _pruned: date | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.seat = Seat(f"{self.tenant}/{self.name}", self.database)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return "segments"

    def run_once(self) -> Worked:
        """Do a bounded pass. Raises Transient when the store is away: call again later."""
        try:
            taken = self.seat.take()
            if taken is None:
                return Worked(standby=True)
            more = self._pass(*taken)
            return Worked(busy=more, news=more)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.seat.stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.seat.leave()
            return Worked(standby=True)

    def close(self) -> None:
        """Give the lease back and close the connection; idempotent."""
        self.seat.leave()

    def _pass(self, connection: psycopg.Connection[Any], lease: Lease) -> bool:
        at = clock.now()
        if not segment_feed.any_segment(connection, self.tenant):
            player_days.rest(connection, self.tenant)
            return False
        more = player_days.advance(connection, self.tenant, at, limit=player_days.PIECE)
        feed = player_days.feed(connection, self.tenant, at)
        if feed is None or feed.stale or not feed.built:
            return more
        segment_days.pass_days(connection, self.tenant, feed)
        evaluated = evaluate_due(
            connection, self.tenant, feed.today, at, lease=lease, limit=PLAYERS, contacts=self.contacts
        )
        if more or evaluated == PLAYERS:
            return True
        return self._refresh(connection, feed.today, at) or self._prune(connection, feed.today)

    def _refresh(self, connection: psycopg.Connection[Any], today: date, at: datetime) -> bool:
        """Refresh one segment that wants it; returns whether there was one."""
        segment_id = segment_days.wanting_refresh(connection, self.tenant, at)
        if segment_id is None:
            return False
        try:
            segments.refresh(
                connection, self.tenant, segment_id, today, contacts=self.contacts, seconds=REFRESH_SECONDS
            )
        except Unfinished:
            log.info("segment.goes_on", segment_id=segment_id)
        except (psycopg.Error, Misconfigured) as error:
            if connection.closed or connection.broken:
                raise
            log.warning("segment.not_refreshed", segment_id=segment_id, error=first_line(error))
            said = error.message if isinstance(error, Misconfigured) else first_line(error)
            segment_days.failed(connection, segment_id, said, at)
        return True

    def _prune(self, connection: psycopg.Connection[Any], today: date) -> bool:
        if self._pruned == today:
            return False
        if more := player_days.prune(connection, self.tenant, today):
            return more
        self._pruned = today
        return False


def evaluate_due(
    connection: psycopg.Connection[Any],
    tenant: str,
    today: date,
    at: datetime,
    *,
    lease: Lease,
    limit: int,
    contacts: Contacts = PLAIN,
) -> int:
    """Look at the realtime segments of up to `limit` players who are due, in one transaction; returns how many."""
    with connection.transaction():
        listed = segment_feed.due(connection, tenant, limit=limit)
        if listed:
            ordered(connection)
            segment_feed.take(connection, tenant, listed)
            changes = segments.evaluate(connection, tenant, listed, today, contacts=contacts)
            segment_feed.announce(connection, tenant, changes, at)
            leases.assert_held(connection, lease)
    return len(listed)
