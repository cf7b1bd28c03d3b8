"""A new day moves every rolling window: whom it concerns, and which segments want a whole refresh by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import psycopg

    from connector.store.player_days import Feed

#: Of a window of N days, the day that leaves it and the one that enters: the latter has rows that were ahead of time.
_MOVED: Final = """
    insert into crm.segment_due (tenant, player_id)
    select distinct d.tenant, d.player_id
    from crm.player_days d join crm.event_names n using (name_id)
    where d.tenant = %(tenant)s and n.name = %(event)s
      and (d.day > %(was)s::date - %(days)s and d.day <= %(is)s::date - %(days)s or d.day > %(was)s and d.day <= %(is)s)
    order by 1, 2 on conflict do nothing
"""
#: Of a time N days ago by the calendar, those whom the moving boundary has passed, and some more: a midnight that the
#: clocks leave out is another instant to each who computes it.
_PASSED: Final = """
    insert into crm.segment_due (tenant, player_id)
    select tenant, player_id from crm.players
    where tenant = %(tenant)s
      and {column} >= (%(was)s::date - %(days)s + 1)::timestamp at time zone %(zone)s - interval '2 hours'
      and {column} <= (%(is)s::date - %(days)s + 1)::timestamp at time zone %(zone)s + interval '2 hours'
    order by 1, 2 on conflict do nothing
"""
_TIMES: Final = """
    select attname from pg_attribute
    where attrelid = 'crm.players'::regclass and atttypid = 'timestamptz'::regtype and attnum > 0
"""
#: Fields of a vertical's activity that have a column of their own.
_VERTICAL_TIMES: Final = {
    "vertical_activity.casino.last_bet_at": "last_casino_bet_at",
    "vertical_activity.sportsbook.last_bet_at": "last_sport_bet_at",
}
_REALTIME: Final = """
    select segment_id, definition from crm.segments
    where tenant = %s and refresh_strategy = 'realtime' and members is not null
"""
_WANTS_REFRESH: Final = """
    select segment_id from crm.segments
    where tenant = %(tenant)s and (next_refresh_at <= %(at)s or next_refresh_at is null
        and refresh_strategy = 'realtime' and refreshed_revision is distinct from revision)
    order by next_refresh_at nulls first, segment_id limit 1
"""
_FAILED: Final = """
    update crm.segments set error = %s, next_refresh_at = %s::timestamptz + interval '10 minutes' where segment_id = %s
"""


def pass_days(connection: psycopg.Connection[Any], tenant: str, feed: Feed) -> bool:
    """Make everybody due whom the days since `feed.day` concern; returns whether there was a new day.

    Idempotent, a statement a transaction: a run that was cut is repeated whole, the day moves on last.
    """
    if feed.day is not None and feed.day >= feed.today:
        return False
    bounds = {"tenant": tenant, "was": feed.day or feed.today, "is": feed.today, "zone": feed.zone}
    windows, times, others = _moving(connection, tenant)
    for event, days in sorted(windows):
        connection.execute(_MOVED, {**bounds, "event": event, "days": days})
    for column, days in sorted(times):
        connection.execute(sql.SQL(_PASSED).format(column=sql.Identifier(column)), {**bounds, "days": days})
    connection.execute("update crm.segments set next_refresh_at = now() where segment_id = any(%s)", (others,))
    connection.execute("update crm.segment_feed set day = %s where tenant = %s", (feed.today, tenant))
    return True


def wanting_refresh(connection: psycopg.Connection[Any], tenant: str, at: datetime) -> int | None:
    """Return a segment that is to be refreshed as a whole now: by its schedule, or because it never was as it is."""
    row = connection.execute(_WANTS_REFRESH, {"tenant": tenant, "at": at}).fetchone()
    return None if row is None else int(row[0])


def failed(connection: psycopg.Connection[Any], segment_id: int, error: str, at: datetime) -> None:
    """Note why a segment's refresh failed; it is tried again in ten minutes."""
    connection.execute(_FAILED, (error, at, segment_id))


def _moving(
    connection: psycopg.Connection[Any], tenant: str
) -> tuple[set[tuple[str, int]], set[tuple[str, int]], list[int]]:
    """Return what realtime segments use that moves with the day: windows, times by column, and segments of others."""
    columns = {name: name for (name,) in connection.execute(_TIMES)} | _VERTICAL_TIMES
    windows: set[tuple[str, int]] = set()
    times: set[tuple[str, int]] = set()
    others: set[int] = set()
    for segment_id, definition in connection.execute(_REALTIME, (tenant,)).fetchall():
        for kind, name, days in _rolling(definition):
            if kind == "event":
                windows.add((name, days))
            elif name in columns:
                times.add((columns[name], days))
            else:
                others.add(segment_id)
    return windows, times, sorted(others)


def _rolling(node: Any) -> Iterator[tuple[str, str, int]]:
    """Yield what a definition has of rolling windows: ("event", name, days) or ("trait", field, days)."""
    for condition in node.get("conditions", ()):
        yield from _rolling(condition)
    if node.get("type") == "event":
        yield "event", node["event"], node["window"]["days"]
        return
    value = node.get("value")
    for operand in value if isinstance(value, list) else [value]:
        if isinstance(operand, dict):
            yield "trait", node["field"], operand["days"]
