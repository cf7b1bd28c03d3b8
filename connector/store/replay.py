"""Sending again on demand: players or their events are put up for one destination once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from connector.store import players
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

#: Players of one transaction: it holds the lock of every writer.
_PLAYERS: Final = 5000
_WHO: Final = """
    p.tenant = %(tenant)s and not p.is_stub and (%(brand)s::text is null or p.brand_id = %(brand)s)
    and (%(external_ids)s::text[] is null or p.external_id = any(%(external_ids)s))
    and (%(segment)s::integer is null or p.segment_ids @> array[%(segment)s::integer])
"""
_PAGE: Final = f"""
    select player_id from crm.players p where {_WHO} and player_id > %(after)s order by player_id limit {_PLAYERS}
"""
_DISTRUST: Final = """
    update crm.delivered_profiles set hash = null where tenant = %s and destination = %s and player_id = any(%s)
"""
_EVENTS: Final = f"""
    from crm.event_rows e
    join crm.event_streams s using (stream_id)
    join crm.event_names n using (name_id)
    join crm.players p using (player_id)
    where {_WHO} and n.name = %(name)s
      and (%(since)s::timestamptz is null or e.occurred_at >= %(since)s)
      and (%(until)s::timestamptz is null or e.occurred_at < %(until)s)
"""
_COUNT: Final = f"""
    select count(*), count(*) filter (where e.occurred_at > now() - interval '72 hours') {_EVENTS}
"""
_PARK: Final = f"""
    insert into crm.parked_events (tenant, destination, player_id, seq, salt)
    select s.tenant, %(destination)s, e.player_id, e.seq, %(salt)s {_EVENTS}
    on conflict (tenant, destination, seq) do update set salt = excluded.salt, history = false
"""


@dataclass(frozen=True)
class Wanted:
    """Whose, all by default; and which events: of a name, from `since` (included) to `until`."""

    tenant: str
    destination: str
    brand: str | None = None
    external_ids: Sequence[str] | None = None
    segment: int | None = None
    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def profiles(connection: psycopg.Connection[Any], wanted: Wanted) -> int:
    """Put players up for sending, whatever was sent of them before; returns how many. In pieces; safe to repeat."""
    sent, after = 0, 0
    while True:
        with connection.transaction():
            rows = connection.execute(_PAGE, {**vars(wanted), "after": after}).fetchall()
            if not rows:
                return sent
            ids = [player_id for (player_id,) in rows]
            connection.execute(_DISTRUST, (wanted.tenant, wanted.destination, ids))
            ordered(connection)
            players.mark(connection, ids, "profile")
        sent, after = sent + len(ids), ids[-1]


def count(connection: psycopg.Connection[Any], wanted: Wanted) -> tuple[int, int]:
    """Return how many events are wanted, and how many of them are so young that a campaign would answer them."""
    row = connection.execute(_COUNT, vars(wanted)).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def events(connection: psycopg.Connection[Any], wanted: Wanted, *, salt: str) -> int:
    """Put events up for sending; returns how many. They keep their ids, unless a `salt` makes new ones of them."""
    return connection.execute(_PARK, {**vars(wanted), "salt": salt}).rowcount
