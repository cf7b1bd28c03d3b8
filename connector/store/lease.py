"""Leases with fencing epochs: one process writes for a source or a destination's lane, a second one is its standby.

A lease is a row: holder, epoch, expiry by the store's clock, and the backends that write under it. Every commit
renews its lease and checks the epoch in the same transaction, so a process that was frozen and wakes up writes
nothing. A successor first terminates the predecessor's backends: a transaction left open cannot commit later. The
predecessor may be this very process, whose connection the network forgot while the server keeps its locks.
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from connector.errors import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

#: A standby takes over within this long, even from a process that is frozen.
TTL_SECONDS: Final = 8.0
HOLDER: Final = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


#: Valid: not expired, and a backend of its holder is still connected. One that died needs no waiting for.
_LOOK: Final = """
    select holder, epoch, pids, expires_at > clock_timestamp() and exists (
        select from pg_stat_activity where pid = any(l.pids) and application_name = 'connector')
    from crm.leases l where name = %s
"""


@dataclass(frozen=True)
class Lease:
    """The right to write under `name`, as of `epoch`."""

    name: str
    holder: str
    epoch: int


def acquire(connection: psycopg.Connection[Any], name: str, *, holder: str = HOLDER) -> Lease | None:
    """Take the lease if it is free, expired, orphaned or ours; None while another process holds it.

    Called with an autocommit connection, the one that will write under the lease.

    Taking it over ends the predecessor's backends and raises the epoch; our own backend is recorded with it.
    """
    row = connection.execute(_LOOK, (name,)).fetchone()
    if row is None:
        connection.execute(
            """
            insert into crm.leases (name, holder, epoch, expires_at) values (%s, '', 0, '-infinity')
            on conflict do nothing
            """,
            (name,),
        )
        row = ("", 0, [], False)
    held_by, epoch, pids, valid = row
    if valid and held_by != holder:
        return None
    _terminate(connection, pids)
    taken = connection.execute(
        """
        update crm.leases set holder = %(holder)s, epoch = epoch + 1, pids = array[pg_backend_pid()],
               expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)
        where name = %(name)s and epoch = %(epoch)s returning epoch
        """,
        {"holder": holder, "name": name, "epoch": epoch, "ttl": TTL_SECONDS},
    ).fetchone()
    return None if taken is None else Lease(name, holder, taken[0])


def join(connections: Sequence[psycopg.Connection[Any]], lease: Lease) -> None:
    """Write under a lease over further connections too: a successor ends their backends as well. Raises LeaseLost."""
    for connection in connections:
        joined = connection.execute(
            "update crm.leases set pids = pids || pg_backend_pid() where name = %s and epoch = %s",
            (lease.name, lease.epoch),
        )
        if joined.rowcount == 0:
            raise LeaseLost(f"another process took over {lease.name}", hint="run the command again")


def assert_held(connection: psycopg.Connection[Any], lease: Lease) -> None:
    """Renew the lease and check its epoch, inside the caller's transaction; raises LeaseLost."""
    renewed = connection.execute(
        """
        update crm.leases set expires_at = clock_timestamp() + make_interval(secs => %s)
        where name = %s and epoch = %s
        """,
        (TTL_SECONDS, lease.name, lease.epoch),
    )
    if renewed.rowcount == 0:
        raise LeaseLost(f"another process took over {lease.name}", hint="this one goes on as its standby")


def release(connection: psycopg.Connection[Any], lease: Lease) -> None:
    """Give the lease back, so that a successor need not wait; does nothing when it is already another's."""
    connection.execute(
        "update crm.leases set expires_at = '-infinity', pids = '{}' where name = %s and epoch = %s",
        (lease.name, lease.epoch),
    )


def end_expired(connection: psycopg.Connection[Any]) -> None:
    """End the backends of leases that nobody renews: a frozen process may hold locks that everybody needs.

    One that only was slow repeats what it had in hand, unless it has a successor by then.
    """
    connection.execute(
        """
        select pg_terminate_backend(pid, 5000) from pg_stat_activity a
        where application_name = 'connector' and datname = current_database() and pid <> pg_backend_pid()
          and exists (select from crm.leases l where a.pid = any(l.pids) and l.expires_at < clock_timestamp())
          and not exists (select from crm.leases l where a.pid = any(l.pids) and l.expires_at >= clock_timestamp())
        """
    )


def _terminate(connection: psycopg.Connection[Any], pids: list[int]) -> None:
    """End the predecessor's backends that still are connector sessions (a pid may have been used again)."""
    connection.execute(
        """
        select pg_terminate_backend(pid, 5000) from pg_stat_activity
        where pid = any(%s) and application_name = 'connector' and datname = current_database()
          and pid <> pg_backend_pid()
        """,
        (pids,),
    )


def renew(connection: psycopg.Connection[Any], leases: list[Lease]) -> None:
    """Keep leases from expiring while their owner reads or waits; commits notice a lost one themselves."""
    connection.execute(
        """
        update crm.leases l set expires_at = clock_timestamp() + make_interval(secs => %s)
        from unnest(%s::text[], %s::bigint[]) as h(name, epoch) where l.name = h.name and l.epoch = h.epoch
        """,
        (TTL_SECONDS, [lease.name for lease in leases], [lease.epoch for lease in leases]),
    )
