"""Where a loop works: a connection to the store, held under the loop's lease.

Who sits may write; another process's loop of the same name gets no seat meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from connector.store import lease as leases

if TYPE_CHECKING:
    import psycopg

    from connector.store.database import Database
    from connector.store.lease import Lease

log = structlog.get_logger()


@dataclass
class Seat:
    """A loop's connection and lease: both, or neither. Used by the loop's thread; others only read `lease`."""

    name: str
    database: Database
    connection: psycopg.Connection[Any] | None = field(default=None, init=False)
    lease: Lease | None = field(default=None, init=False)

    @property
    def broken(self) -> bool:
        """Return whether the store's side of it is gone, so that nobody knows what was committed."""
        return self.connection is None or self.connection.broken or self.connection.closed

    def take(self) -> tuple[psycopg.Connection[Any], Lease] | None:
        """Sit down, or go on sitting; None while another process holds the lease."""
        if self.connection is not None and self.lease is not None:
            return self.connection, self.lease
        connection = self.database.connect()
        try:
            lease = leases.acquire(connection, self.name)
        except BaseException:
            connection.close()
            raise
        if lease is None:
            connection.close()
            return None
        self.connection, self.lease = connection, lease
        return connection, lease

    def stand_up(self) -> None:
        """Close the connection; the lease is free as soon as its session is gone. Idempotent."""
        connection, self.connection, self.lease = self.connection, None, None
        if connection is not None:
            connection.close()

    def leave(self) -> None:
        """Give the lease back and close the connection; idempotent."""
        if self.connection is not None and self.lease is not None and not self.connection.closed:
            try:
                leases.release(self.connection, self.lease)
            except Exception as error:  # noqa: BLE001 - the lease expires by itself
                log.debug("lease.release_failed", error=type(error).__name__)
        self.stand_up()
