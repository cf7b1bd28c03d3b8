"""Edges in time: the next moment at which a player changes with no new row, found by index, passed in bounded pieces.

A payment is an edge when it enters and leaves each window (previous day, last 7, 30, 90 days), an exclusion when it
ends. Days are the tenant's reporting time zone's; trailing windows are N times 24 hours, exact to the microsecond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from connector.store import lease as leases, players
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    from connector.store.lease import Lease

#: Of payments (player_id, occurred_at), each player's next edge after `at`. A day can be 25 hours long: hence 92 days.
_PAYMENT_EDGES: Final = """
    select p.player_id, min(v.edge_at) as edge_at
    from payments p
    cross join (select reporting_timezone as zone from crm.tenants where tenant = %(tenant)s) t
    cross join lateral (select date_trunc('day', p.occurred_at at time zone t.zone) as day) d
    cross join lateral (values
        (p.occurred_at),
        ((d.day + interval '1 day') at time zone t.zone),
        ((d.day + interval '2 days') at time zone t.zone),
        (p.occurred_at + interval '168 hours'),
        (p.occurred_at + interval '720 hours'),
        (p.occurred_at + interval '2160 hours')
    ) v(edge_at)
    where p.occurred_at > %(at)s::timestamptz - interval '92 days' and v.edge_at > %(at)s
    group by p.player_id
"""
_EXPECT: Final = f"""
    with payments as (
        select * from unnest(%(players)s::bigint[], %(times)s::timestamptz[]) as u(player_id, occurred_at)
    )
    insert into crm.player_edges as e (player_id, tenant, edge_at)
    select n.player_id, %(tenant)s, n.edge_at from ({_PAYMENT_EDGES}) n order by n.player_id
    on conflict (player_id) do update set edge_at = excluded.edge_at where e.edge_at > excluded.edge_at
"""
_EXPECT_ENDS: Final = """
    insert into crm.player_edges as e (player_id, tenant, edge_at)
    select player_id, tenant, least(
               case when cooling_off_until > %(at)s then cooling_off_until end,
               case when rg_self_excluded_until > %(at)s then rg_self_excluded_until end)
    from crm.players
    where player_id = any(%(players)s) and greatest(cooling_off_until, rg_self_excluded_until) > %(at)s
    order by player_id
    on conflict (player_id) do update set edge_at = excluded.edge_at where e.edge_at > excluded.edge_at
"""
_DUE: Final = """
    select player_id, edge_at from crm.player_edges where tenant = %s and edge_at <= %s order by edge_at limit %s
"""
_NEXT: Final = f"""
    with payments as (
        select player_id, occurred_at from crm.event_rows
        where player_id = any(%(players)s) and effect in (-2, -1, 1, 2)
          and occurred_at > %(at)s::timestamptz - interval '92 days'
    ), payment_edges as ({_PAYMENT_EDGES})
    select p.player_id, least(
               n.edge_at, case when p.cooling_off_until > %(at)s then p.cooling_off_until end,
               case when p.rg_self_excluded_until > %(at)s then p.rg_self_excluded_until end)
    from crm.players p left join payment_edges n using (player_id)
    where p.player_id = any(%(players)s)
"""
#: Marked by a commit between the reading and the lock: what was read of them may be of yesterday.
_MARKED: Final = "select player_id from crm.player_changes where change_seq > %s and player_id = any(%s)"
#: What a commit has brought nearer meanwhile stays as it is: it is due at the next pass.
_MOVE: Final = """
    with u as (select * from unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[]) as u(player_id, was, becomes)),
    gone as (
        delete from crm.player_edges e using u
        where e.player_id = u.player_id and e.edge_at = u.was and u.becomes is null
    )
    update crm.player_edges e set edge_at = u.becomes from u
    where e.player_id = u.player_id and e.edge_at = u.was and u.becomes is not null
"""
_USE: Final = """
    update crm.tenants set reporting_timezone = %(zone)s, play_currencies = %(play)s::text[]
    where tenant = %(tenant)s and (reporting_timezone, play_currencies) <> (%(zone)s, %(play)s::text[])
"""


def expect(
    connection: psycopg.Connection[Any], tenant: str, payments: tuple[Sequence[int], Sequence[datetime]], at: datetime
) -> None:
    """Note when payments (player ids, business times) will next move a window. Inside THE transaction. Idempotent."""
    player_ids, times = payments
    if player_ids:
        connection.execute(_EXPECT, {"tenant": tenant, "players": player_ids, "times": times, "at": at})


def expect_ends(connection: psycopg.Connection[Any], player_ids: Sequence[int], at: datetime) -> None:
    """Note when exclusions of these players will end. Inside the transaction that wrote them. Idempotent."""
    if player_ids:
        connection.execute(_EXPECT_ENDS, {"players": player_ids, "at": at})


def pass_due(connection: psycopg.Connection[Any], tenant: str, at: datetime, *, limit: int, lease: Lease) -> int:
    """Mark up to `limit` players whose edge has passed and note their next one; returns how many there were.

    One transaction, called by the edges' loop again and again: what was done stays done. Readings come before the
    lock that every writer of the feeds waits for; those of players whom a commit changed meanwhile are made again.
    """
    with connection.transaction():
        due = connection.execute(_DUE, (tenant, at, limit)).fetchall()
        if not due:
            return 0
        ids, was = [player_id for player_id, _ in due], [edge_at for _, edge_at in due]
        (seen,) = connection.execute("select coalesce(max(change_seq), 0) from crm.player_changes").fetchone() or (0,)
        becomes = _next(connection, tenant, ids, at)
        ordered(connection)
        marked = [player_id for (player_id,) in connection.execute(_MARKED, (seen, ids))]
        becomes |= _next(connection, tenant, marked, at) if marked else {}
        players.judge(connection, sorted(ids), at)
        players.mark(connection, sorted(ids), "profile")
        connection.execute(_MOVE, (ids, was, [becomes.get(player_id) for player_id in ids]))
        leases.assert_held(connection, lease)
    return len(due)


def _next(
    connection: psycopg.Connection[Any], tenant: str, player_ids: Sequence[int], at: datetime
) -> dict[int, datetime | None]:
    """Return each player's next edge after `at`, None where there is none."""
    values = {"tenant": tenant, "players": player_ids, "at": at}
    return dict(connection.execute(_NEXT, values).fetchall())


def use(connection: psycopg.Connection[Any], tenant: str, *, zone: str, play: Sequence[str]) -> None:
    """Count days in this time zone, and these currencies in no total.

    Called at start, before the first page. Where that is new, every player is looked at anew.
    """
    with connection.transaction():
        if connection.execute(_USE, {"tenant": tenant, "zone": zone, "play": sorted(play)}).rowcount:
            connection.execute("update crm.player_edges set edge_at = now() where tenant = %s", (tenant,))
