"""The daily roll-up that event conditions of segments read: what a player did on a day, by name of the event.

An exactly-once consumer of the ledger: the position (crm.segment_feed) moves in the transaction that writes the rows.
That transaction holds the tenant's row of segment_feed and nothing else that a writer of the ledger waits for; a
writer that settles an amount takes that row too, so that each amount is counted by one of the two and never by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from connector import clock
from connector.store.database import ordered

if TYPE_CHECKING:
    from datetime import date, datetime

    import polars as pl
    import psycopg

#: Sequence numbers of one transaction; changes of players and rows that are thrown away likewise.
PIECE: Final = 50_000
#: Days before today that are kept; a window has 365 at most, today included.
KEPT_DAYS: Final = 366
_START: Final = "insert into crm.segment_feed (tenant) select tenant from crm.tenants where tenant = %s"
_FEED: Final = """
    select f.event_seq, f.change_seq, f.day, f.zone, f.play, f.built, t.reporting_timezone, t.play_currencies,
           (%(at)s::timestamptz at time zone t.reporting_timezone)::date
    from crm.segment_feed f join crm.tenants t using (tenant) where f.tenant = %(tenant)s
"""
_LOCK: Final = "select from crm.segment_feed where tenant = %s for update"
_HEADS: Final = """
    select coalesce((select max(seq) from crm.event_rows), 0),
           coalesce((select max(change_seq) from crm.player_changes), 0)
"""
_MINE: Final = "e.stream_id = any(array(select stream_id from crm.event_streams where tenant = %(tenant)s))"
_NO_SEGMENTS: Final = """
    e.name_id <> all(array(select name_id from crm.event_names where name like 'custom\\_segment\\_%%'))
"""
#: What counts is decided here and nowhere else; `events` is what one row adds to the number of them.
_ROLL: Final = f"""
    insert into crm.player_days as d
        (tenant, player_id, day, name_id, events, total, least, greatest, last_at, last_amount)
    select %(tenant)s, e.player_id, (e.occurred_at at time zone %(zone)s)::date as day, e.name_id,
           count(*) * %(events)s, coalesce(sum(e.amount_base), 0), min(e.amount_base), max(e.amount_base),
           max(e.occurred_at) filter (where e.amount_base is not null),
           (array_agg(e.amount_base order by e.occurred_at desc, e.amount_base desc)
               filter (where e.amount_base is not null))[1]
    from crm.event_rows e
    where {{which}} and {_NO_SEGMENTS}
      and (e.amount is null or e.currency is not null and e.currency <> all(%(play)s::text[]))
      and e.occurred_at >= (%(today)s::date - {KEPT_DAYS})::timestamp at time zone %(zone)s
    group by e.player_id, day, e.name_id order by e.player_id, day, e.name_id
    on conflict (player_id, day, name_id) do update set
        events = d.events + excluded.events, total = d.total + excluded.total,
        least = least(d.least, excluded.least), greatest = greatest(d.greatest, excluded.greatest),
        last_at = greatest(d.last_at, excluded.last_at),
        last_amount = case
            when excluded.last_at is null or (d.last_at, d.last_amount) > (excluded.last_at, excluded.last_amount)
            then d.last_amount else excluded.last_amount end
"""
_ADD: Final = _ROLL.format(which=f"e.seq > %(first)s and e.seq <= %(until)s and {_MINE}")
_SETTLE: Final = _ROLL.format(which="e.seq = any(%(seqs)s)")
_DUE: Final = """
    insert into crm.segment_due (tenant, player_id)
    select %(tenant)s, player_id from ({players}) p order by player_id on conflict do nothing
"""
_DUE_BY_EVENTS: Final = _DUE.format(
    players=f"""
        select distinct e.player_id from crm.event_rows e
        where e.seq > %(first)s and e.seq <= %(until)s and {_MINE} and {_NO_SEGMENTS}
    """
)
#: Who is only sent again has not changed.
_DUE_BY_CHANGES: Final = _DUE.format(
    players="""
        select distinct c.player_id from crm.player_changes c join crm.players q using (player_id)
        where c.change_seq > %(first)s and c.change_seq <= %(until)s and c.reason <> 'refresh'
          and q.tenant = %(tenant)s
    """
)
_SETTLED: Final = _DUE.format(players="select distinct unnest(%(players)s::bigint[]) as player_id")
_TENANT_OF: Final = """
    select f.tenant, f.event_seq, f.zone, f.play, f.built from crm.players p join crm.segment_feed f using (tenant)
    where p.player_id = %s for update of f
"""
_MOVE: Final = "update crm.segment_feed set event_seq = %s, change_seq = %s where tenant = %s"
_FORGET: Final = """
    delete from crm.player_days where ctid = any(array(
        select ctid from crm.player_days where tenant = %(tenant)s and {which} limit %(limit)s))
"""
_ANEW: Final = """
    update crm.segment_feed set event_seq = 0, built = false, day = null, zone = %(zone)s, play = %(play)s
    where tenant = %(tenant)s
"""
#: What is of another time zone or older than the days is looked at as a whole.
_BUILT: Final = """
    with due as (
        update crm.segments set next_refresh_at = %(at)s
        where tenant = %(tenant)s and refresh_strategy = 'realtime' and members is not null
    )
    update crm.segment_feed set built = true, change_seq = %(changes)s, day = %(today)s where tenant = %(tenant)s
"""


@dataclass(frozen=True)
class Feed:
    """Where a tenant's roll-up stands; `zone` and `play` are what its days were counted by, None before the first."""

    event_seq: int
    change_seq: int
    day: date | None
    zone: str | None
    play: list[str] | None
    built: bool
    zone_now: str
    play_now: list[str]
    #: The reporting time zone's date at the instant that was asked of.
    today: date

    @property
    def stale(self) -> bool:
        """Return whether the days are of another time zone, or hold what is play money now."""
        return (self.zone, sorted(self.play or ())) != (self.zone_now, sorted(self.play_now))


def feed(connection: psycopg.Connection[Any], tenant: str, at: datetime) -> Feed | None:
    """Return where the roll-up stands, None before its first piece. Changes nothing."""
    row = connection.execute(_FEED, {"tenant": tenant, "at": at}).fetchone()
    return None if row is None else Feed(*row)


def advance(connection: psycopg.Connection[Any], tenant: str, at: datetime, *, limit: int = PIECE) -> bool:
    """Roll up one piece in a transaction of its own; returns whether there is more.

    Called again and again by the audience's loop, and by a command that needs the days now: two at once wait for each
    other. Must not be called with the store's lock held (see database.ordered). Players are put into segment_due with
    the piece that touches them, once the days are built.
    """
    if feed(connection, tenant, at) is None:
        return _start(connection, tenant)
    with connection.transaction():
        connection.execute(_LOCK, (tenant,))
        now = feed(connection, tenant, at)
        assert now is not None
        if now.stale:
            _start_anew(connection, tenant, now, limit)
            return True
        events, changes = _heads(connection)
        until = min(events, now.event_seq + limit)
        add(connection, tenant, now.event_seq, until, at=at)
        changed = min(changes, now.change_seq + limit) if now.built else now.change_seq
        if changed > now.change_seq:
            bounds = {"tenant": tenant, "first": now.change_seq, "until": changed}
            connection.execute(_DUE_BY_CHANGES, bounds)
        if (until, changed) > (now.event_seq, now.change_seq):
            connection.execute(_MOVE, (until, changed, tenant))
        if not now.built and until == events:
            values = {"tenant": tenant, "at": at, "changes": changes, "today": now.today}
            connection.execute(_BUILT, values)
            return False
        return until < events or (now.built and changed < changes)


def add(connection: psycopg.Connection[Any], tenant: str, first_seq: int, until_seq: int, *, at: datetime) -> None:
    """Add the events (first_seq, until_seq] to the days, and their players to those who are due.

    Inside a transaction that holds the tenant's row of segment_feed and moves its position.
    """
    now = feed(connection, tenant, at)
    if now is None or until_seq <= first_seq:
        return
    values = {"tenant": tenant, "first": first_seq, "until": until_seq, "today": now.today}
    connection.execute(_ADD, {**values, "zone": now.zone, "play": now.play, "events": 1})
    if now.built:
        connection.execute(_DUE_BY_EVENTS, values)


def settle(connection: psycopg.Connection[Any], rows: pl.DataFrame, *, base_only: bool) -> None:
    """Add amounts that have become known to the days; `base_only`: their events were counted before.

    Called with the ledger's rows (seq, player_id) of one tenant, after they were completed and in the same transaction,
    which may hold the store's lock. What the roll-up has not reached yet is left to it. Their players become due.
    """
    if rows.is_empty():
        return
    row = connection.execute(_TENANT_OF, (rows["player_id"][0],)).fetchone()
    if row is None or row[2] is None:
        return
    tenant, reached, zone, play, built = row
    done = rows.filter(rows["seq"] <= reached)
    if done.is_empty():
        return
    now = feed(connection, tenant, clock.now())
    assert now is not None
    values = {"tenant": tenant, "zone": zone, "play": play, "today": now.today, "events": 0 if base_only else 1}
    connection.execute(_SETTLE, {**values, "seqs": done["seq"].to_list()})
    if built:
        connection.execute(_SETTLED, {"tenant": tenant, "players": done["player_id"].to_list()})


def prune(connection: psycopg.Connection[Any], tenant: str, today: date, *, limit: int = PIECE) -> bool:
    """Forget a piece of the days that no window reaches any more; returns whether there may be more."""
    which = f"name_id = any(array(select name_id from crm.event_names)) and day < %(today)s::date - {KEPT_DAYS}"
    values = {"tenant": tenant, "today": today, "limit": limit}
    return connection.execute(_FORGET.format(which=which), values).rowcount == limit


def rest(connection: psycopg.Connection[Any], tenant: str) -> None:
    """Note that nobody needs the days now: whoever does later catches up first, and looks at everybody then."""
    connection.execute("update crm.segment_feed set built = false where tenant = %s and built", (tenant,))


def _start(connection: psycopg.Connection[Any], tenant: str) -> bool:
    """Begin the days of a tenant, behind every writer that may have settled something and seen nobody who counts."""
    with connection.transaction():
        ordered(connection)
        return connection.execute(f"{_START} on conflict do nothing", (tenant,)).rowcount == 1


def _start_anew(connection: psycopg.Connection[Any], tenant: str, now: Feed, limit: int) -> None:
    """Throw a piece of the days away; with the last one, begin from the beginning with what holds now."""
    gone = connection.execute(_FORGET.format(which="true"), {"tenant": tenant, "limit": limit}).rowcount
    done = gone < limit
    values = {"zone": now.zone_now if done else None, "play": now.play_now if done else None, "tenant": tenant}
    connection.execute(_ANEW, values)


def _heads(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """Return the newest committed numbers; they are drawn in commit order, so everything below them is visible."""
    row = connection.execute(_HEADS).fetchone()
    assert row is not None
    return row[0], row[1]
