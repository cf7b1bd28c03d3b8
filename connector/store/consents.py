"""Which consents a player gave, version by version, and which of them held when something was sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

if TYPE_CHECKING:
    import psycopg

#: The current version of each kind stands with the player, what it superseded in a table of its own.
_VERSIONS: Final = """
    select c.key as kind, coalesce((c.value ->> 'version')::integer, 1) as version,
           (c.value ->> 'granted')::boolean as granted, coalesce(c.value ->> 'basis', 'user_profile') as basis,
           (c.value ->> 'changed_at')::timestamptz as changed_at
    from crm.players p cross join lateral jsonb_each(p.consents) c where p.player_id = %(player)s
    union all
    select kind, version, granted, basis, changed_at from crm.player_consents where player_id = %(player)s
    order by kind, version
"""
_SENT: Final = """
    select d.destination, d.sent_at, s.seq, n.name, e.occurred_at
    from crm.deliveries d
    cross join lateral unnest(d.player_ids, d.seqs) as s (player_id, seq)
    left join crm.event_rows e on e.seq = s.seq
    left join crm.event_names n on n.name_id = e.name_id
    where d.tenant = %(tenant)s and d.player_ids @> array[%(player)s::bigint] and s.player_id = %(player)s
      and d.sent_at >= coalesce(%(since)s::timestamptz, '-infinity')
    order by d.sent_at desc, s.seq desc limit %(limit)s
"""
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


def versions(connection: psycopg.Connection[Any], player_id: int) -> list[dict[str, Any]]:
    """Return every version of every consent of a player: kind, version, granted, basis, changed_at, oldest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_VERSIONS, {"player": player_id}).fetchall()


def sent(
    connection: psycopg.Connection[Any], tenant: str, player_id: int, *, since: datetime | None, limit: int
) -> list[dict[str, Any]]:
    """Return what destinations accepted of a player, newest first, each with the consents that held at that moment.

    `name` is the event's, or `profile`; `consents` maps a kind to its version, whether it was given, and its basis.
    """
    known = versions(connection, player_id)
    with connection.cursor(row_factory=dict_row) as cursor:
        values = {"tenant": tenant, "player": player_id, "since": since, "limit": limit}
        rows = cursor.execute(_SENT, values).fetchall()
    return [
        {
            "destination": row["destination"],
            "sent_at": row["sent_at"],
            "name": row["name"] or "profile",
            "occurred_at": row["occurred_at"],
            "consents": _at(known, row["sent_at"]),
        }
        for row in rows
    ]


def _at(versions: list[dict[str, Any]], instant: datetime) -> dict[str, dict[str, Any]]:
    """Return the consents that held at an instant: of each kind the newest version that had begun."""
    held = {row["kind"]: row for row in versions if (row["changed_at"] or _LONG_AGO) <= instant}
    return {kind: {name: row[name] for name in ("version", "granted", "basis")} for kind, row in held.items()}
