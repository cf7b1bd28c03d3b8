"""What `status` says: streams, destinations and what waits, read from the store alone. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector.store import backfills, pending, reported

if TYPE_CHECKING:
    import psycopg

_STREAMS: Final = """
    select c.source, c.stream, c.state, c.error, c.rows, c.seen_cursor as seen, c.sealed_cursor as sealed,
           case when now() - c.polled_at > interval '10 seconds'
                then coalesce(c.lag_seconds, 0) + extract(epoch from now() - c.polled_at)::double precision
                else c.lag_seconds end as lag_seconds, c.null_cursors, c.future_rows, c.polled_at,
           (select count(*) from crm.quarantine q where not q.kept and reason <> 'changed'
             and (q.tenant, q.source, q.stream) = (c.tenant, c.source, c.stream)) as quarantined,
           (select jsonb_build_object('kind', kind, 'at', finished_at, 'rows', rows, 'missing', missing,
                                      'repaired', repaired, 'gone', gone, 'changed', changed)
            from crm.audits a where (a.tenant, a.source, a.stream) = (c.tenant, c.source, c.stream)
             and finished_at is not null order by finished_at desc limit 1) as audit
    from crm.checkpoints c where c.tenant = %s order by c.source, c.started_at, c.stream
"""
_DESTINATIONS: Final = """
    select destination, sum(accepted)::bigint as accepted, sum(refused)::bigint as refused,
           sum(dropped)::bigint as dropped, sum(expired)::bigint as expired,
           min(state) filter (where state <> 'running') as trouble, min(error) as error,
           min(event_seq) filter (where lane >= 0) as event_seq,
           min(change_seq) filter (where lane >= 0) as change_seq, max(delivered_at) as delivered_at
    from crm.feeds where tenant = %s group by destination order by destination
"""
_PENDING: Final = """
    select (select count(*) from crm.feeds f
              join crm.event_rows e on e.seq > f.event_seq and e.player_id %% f.lanes = f.lane
              join crm.event_names n using (name_id)
              where f.tenant = %(tenant)s and f.destination = %(destination)s and f.lane >= 0
                and not e.history and n.name = any(%(names)s))
         + (select count(*) from crm.feeds f
              join crm.player_changes c on c.change_seq > f.change_seq and c.player_id %% f.lanes = f.lane
              where f.tenant = %(tenant)s and f.destination = %(destination)s and f.lane >= 0)
         + (select count(*) from crm.parked_events w where w.tenant = %(tenant)s and w.destination = %(destination)s)
"""
#: Players whose events have waited for a profile for longer than any cycle takes.
_STUBS: Final = """
    select count(distinct player_id) from crm.parked_events
    where tenant = %(tenant)s and destination = %(destination)s
      and not history and parked_at < now() - interval '5 minutes'
"""


def status(connection: psycopg.Connection[Any], tenant: str, subscriptions: dict[str, list[str]]) -> dict[str, Any]:
    """Return the state of every stream and destination; `subscriptions` are each destination's event names.

    A stream's name stands alone where one source has it, else as `source.stream`. `backfills` are the jobs that are
    not done; `waiting` are the events without a base amount, by currency; `differing` is the number of players of whom
    the operator's totals say something else.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        streams = cursor.execute(_STREAMS, (tenant,)).fetchall()
        feeds = cursor.execute(_DESTINATIONS, (tenant,)).fetchall()
    names = [row["stream"] for row in streams]
    return {
        "streams": {
            row["stream"] if names.count(row["stream"]) == 1 else f"{row['source']}.{row['stream']}": _stream(row)
            for row in streams
        },
        "destinations": {
            row["destination"]: _destination(connection, tenant, row, subscriptions.get(row["destination"], []))
            for row in feeds
        },
        "backfills": backfills.unfinished(connection, tenant),
        "waiting": pending.waiting(connection, tenant),
        "differing": reported.differing(connection, tenant),
    }


def stored(connection: psycopg.Connection[Any], tenant: str, stream: str) -> int:
    """Return how many rows of a stream are in the store: players with a profile, or distinct events."""
    query = (
        "select count(*) from crm.players where tenant = %s and not is_stub and %s <> ''"
        if stream == "user_profile"
        else "select count(*) from crm.event_rows e join crm.event_streams s using (stream_id)"
        " where s.tenant = %s and s.stream = %s"
    )
    row = connection.execute(query, (tenant, stream)).fetchone()
    assert row is not None
    return int(row[0])


def _stream(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: row[key] for key in ("state", "error", "rows", "seen", "sealed", "lag_seconds")},
        **{key: row[key] for key in ("null_cursors", "future_rows", "quarantined", "audit")},
    }


def _destination(
    connection: psycopg.Connection[Any], tenant: str, row: dict[str, Any], names: list[str]
) -> dict[str, Any]:
    values = {"tenant": tenant, "destination": row["destination"], "names": names}
    pending = connection.execute(_PENDING, values).fetchone()
    stubs = connection.execute(_STUBS, values).fetchone()
    assert pending is not None
    assert stubs is not None
    waiting = f"{stubs[0]} player(s) have events and no profile: is their row in user_profile?" if stubs[0] else None
    return {
        "state": row["trouble"] or "running",
        "error": row["error"] or waiting,
        "pending": int(pending[0]),
        **{key: int(row[key]) for key in ("accepted", "refused", "dropped", "expired")},
    }
