"""The audit log: what people and the daemon did that changes what may be believed. Append-only, hash-chained.

An entry's hash is sha256 over the JSON array [previous, entry_id, at, tenant, actor, action, subject, details], texts
as stored: whoever changes, removes or slips in an entry breaks every hash after it. What cuts off the newest ones is
seen by whoever kept a hash: the daemon writes the last one to its own log at every start, and each of its own.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

import structlog
from psycopg.rows import dict_row

from connector import clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import psycopg

#: What the first entry follows.
NOTHING: Final = "0" * 64
#: Who acts when nobody asked: the daemon.
DAEMON: Final = "connector"
_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('crm.audit_log.' || %s, 0))"
_LAST: Final = "select entry_id, hash from crm.audit_log where tenant = %s order by entry_id desc limit 1"
_INSERT: Final = """
    insert into crm.audit_log (previous, entry_id, at, tenant, actor, action, subject, details, hash)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PAGE: Final = 1000

log = structlog.get_logger()


@dataclass(frozen=True)
class Verdict:
    """What verifying found: `broken` is the first entry that does not fit, and `why`; None: the chain is whole."""

    entries: int
    head: str
    broken: int | None = None
    why: str = ""


def append(
    connection: psycopg.Connection[Any],
    tenant: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
    *,
    actor: str = DAEMON,
) -> None:
    """Add an entry in the caller's transaction, or in one of its own: what is rolled back was never done.

    Last thing of a transaction: it holds the tenant's log until that ends. `details` hold no personal data.
    """
    with connection.transaction():
        connection.execute(_LOCK, (tenant,))
        row = connection.execute(_LAST, (tenant,)).fetchone()
        number, previous = (1, NOTHING) if row is None else (int(row[0]) + 1, str(row[1]))
        written = json.dumps(details or {}, sort_keys=True, ensure_ascii=False, default=str)
        at = clock.now()
        entry = (previous, number, at, tenant, actor, action, subject, written)
        digest = _digest(entry)
        connection.execute(_INSERT, (*entry, digest))
    if actor == DAEMON:
        log.info("audit_log.entry", entry=number, action=action, subject=subject, hash=digest)


@contextmanager
def recorded(
    connection: psycopg.Connection[Any], tenant: str, action: str, subject: str, *, actor: str = DAEMON
) -> Iterator[dict[str, Any]]:
    """Do something and write it down, both or neither; what is put into the mapping are the entry's details."""
    with connection.transaction():
        details: dict[str, Any] = {}
        yield details
        append(connection, tenant, action, subject, details, actor=actor)


def listed(
    connection: psycopg.Connection[Any], tenant: str, *, action: str | None = None, limit: int
) -> list[dict[str, Any]]:
    """Return the newest entries, of one action or all, newest first; `details` as a mapping."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            select entry_id, at, actor, action, subject, details, hash from crm.audit_log
            where tenant = %s and (%s::text is null or action = %s) order by entry_id desc limit %s
            """,
            (tenant, action, action, limit),
        ).fetchall()
    return [{**row, "details": json.loads(row["details"])} for row in rows]


def newest(connection: psycopg.Connection[Any], tenant: str, action: str) -> dict[str, Any] | None:
    """Return the newest entry of an action, None where there is none."""
    found = listed(connection, tenant, action=action, limit=1)
    return found[0] if found else None


def verify(connection: psycopg.Connection[Any], tenant: str, *, known: str | None = None) -> Verdict:
    """Compute the whole chain anew. `known`: a hash that somebody kept, which must still be in it."""
    previous, count, seen = NOTHING, 0, known is None
    while True:
        rows = connection.execute(
            """
            select previous, entry_id, at, tenant, actor, action, subject, details, hash from crm.audit_log
            where tenant = %s and entry_id > %s order by entry_id limit %s
            """,
            (tenant, count, _PAGE),
        ).fetchall()
        for *entry, digest in rows:
            if entry[1] != count + 1:
                return Verdict(count, previous, count + 1, "it is missing")
            if entry[0] != previous:
                return Verdict(count, previous, entry[1], "it does not follow the one before it")
            if digest != _digest(entry):
                return Verdict(count, previous, entry[1], "its text is not what was written")
            previous, count = digest, entry[1]
            seen = seen or digest == known
        if len(rows) < _PAGE:
            break
    if not seen:
        return Verdict(count, previous, count + 1, "the entry with the hash that was kept is gone")
    return Verdict(count, previous)


def _digest(entry: Any) -> str:
    previous, number, at, *texts = entry
    return hashlib.sha256(json.dumps([previous, number, _written(at), *texts], ensure_ascii=False).encode()).hexdigest()


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
