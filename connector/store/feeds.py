"""Where a destination's lane stands: the changed players that it reads in commit order, and what it settles of a batch.

Lane -1 carries exclusions only. Everything here is one short transaction; no network call is made inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import dict_row

from connector.store import delivered, lease as leases, players
from connector.store.database import classify, ordered

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from connector.store.checkpoints import Checkpoint
    from connector.store.delivered import Sent
    from connector.store.lease import Lease

EXCLUSIONS: Final = -1

#: A step reads its next rows in the order of an index, finds what belongs to each by key, and stops. The planner can't
#: know that: it takes a lane for half a percent of all rows, which to stop early at would not pay, and sorts and hashes
#: whole tables, by workers that take longer to start than a step.
_PLANNING: Final = """
    set enable_sort = off; set enable_hashjoin = off; set enable_mergejoin = off;
    set max_parallel_workers_per_gather = 0
"""
_HORIZON: Final = """
    select coalesce((select max(seq) from crm.event_rows), 0),
           coalesce((select max(change_seq) from crm.player_changes), 0)
"""
#: Of the lane, which has every so many-th player.
MINE: Final = "player_id %% %(lanes)s = %(lane)s"
#: The feed's own index finds the rows, then each is joined by key: the size of the tables does not matter.
_CHANGES: Final = """
    with c as materialized (
        select change_seq, reason, player_id from crm.player_changes
        where change_seq > %(after)s and {mine} order by change_seq limit %(limit)s
    )
    select c.change_seq, c.reason, p.*, k.email, k.phone, d.hash as sent_hash, d.names as sent_names,
           d.unsubscribed_by_us
    from c join crm.players p using (player_id)
    left join crm.player_contacts k on k.player_id = p.player_id
    left join lateral (
        select hash, names, unsubscribed_by_us from crm.delivered_profiles
        where tenant = %(tenant)s and destination = %(destination)s and player_id = c.player_id limit 1
    ) d on true
    order by c.change_seq
"""
_LANE_CHANGES: Final = _CHANGES.format(mine=MINE)
_EXCLUSIONS: Final = _CHANGES.format(mine="reason = 'exclusion'")
_PARK_HISTORY: Final = """
    insert into crm.parked_events (tenant, destination, player_id, seq, history)
    select s.tenant, %(destination)s, e.player_id, e.seq, true
    from crm.event_rows e join crm.event_streams s using (stream_id) join crm.event_names n using (name_id)
    where (s.tenant, s.source, s.stream) = (%(tenant)s, %(source)s, %(stream)s)
      and e.history and e.key = any(%(keys)s) and n.name = any(%(names)s)
    on conflict do nothing
"""
_EXPIRE_PARKED: Final = f"""
    with gone as (
        delete from crm.parked_events w using crm.event_rows e
        where w.tenant = %(tenant)s and w.destination = %(destination)s and w.{MINE} and e.seq = w.seq
          and not w.history and w.salt is null and e.occurred_at < now() - make_interval(secs => %(older)s)
        returning w.seq
    )
    update crm.feeds set expired = expired + (select count(*) from gone)
    where tenant = %(tenant)s and destination = %(destination)s and lane = %(lane)s
"""
_DELIVERED: Final = """
    insert into crm.deliveries (tenant, destination, player_ids, seqs) values (%s, %s, %s::bigint[], %s::bigint[])
"""
_DEAD_LETTER: Final = """
    insert into crm.dead_letters (tenant, destination, player_id, seq, kind, name, reason, field, message, payload)
    values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_PARK: Final = """
    insert into crm.parked_events (tenant, destination, player_id, seq) values (%s, %s, %s, %s) on conflict do nothing
"""
_UNPARK: Final = "delete from crm.parked_events where tenant = %s and destination = %s and seq = any(%s::bigint[])"


@dataclass(frozen=True)
class Lane:
    """One lane of one destination."""

    tenant: str
    destination: str
    number: int
    lanes: int

    @property
    def lease_name(self) -> str:
        """Return the name of the lease under which this lane is settled."""
        return f"{self.tenant}/destination:{self.destination}:{self.number}"


@dataclass
class Place:
    """Where a lane stands: everything up to these numbers is settled."""

    event_seq: int
    change_seq: int


@dataclass(frozen=True)
class Settled:
    """The outcome of one batch.

    Accepted are (player_id, seq; 0: the profile), letters (player_id, seq, kind, name, reason, field, message,
    payload).
    """

    accepted: Sequence[tuple[int, int]] = ()
    letters: Sequence[tuple[Any, ...]] = ()
    profiles: Sequence[Sent] = ()
    distrusted: Sequence[int] = ()
    parked: Sequence[tuple[int, int]] = ()
    unparked: Sequence[int] = ()
    dropped: int = 0
    expired: int = 0


def open_lane(connection: psycopg.Connection[Any], lane: Lane) -> Place:
    """Return where the lane stands. If the number of lanes changed, all restart from the lowest position of any."""
    connection.execute(_PLANNING)
    row = connection.execute(
        """
        select coalesce(min(event_seq), 0), coalesce(min(change_seq), 0), bool_and(lanes = %(lanes)s) from crm.feeds
        where tenant = %(tenant)s and destination = %(destination)s and (lane >= 0) = (%(lane)s >= 0)
        """,
        vars_of(lane),
    ).fetchone()
    assert row is not None
    if row[2] is False and lane.number != EXCLUSIONS:
        connection.execute(
            """
            with old as (
                delete from crm.feeds
                where tenant = %(tenant)s and destination = %(destination)s and lane >= 0 returning *
            )
            insert into crm.feeds
                (tenant, destination, lane, lanes, event_seq, change_seq, accepted, refused, dropped, expired)
            select %(tenant)s, %(destination)s, number, %(lanes)s, min(event_seq), min(change_seq),
                   case number when 0 then sum(accepted) else 0 end, case number when 0 then sum(refused) else 0 end,
                   case number when 0 then sum(dropped) else 0 end, case number when 0 then sum(expired) else 0 end
            from old, generate_series(0, %(lanes)s - 1) as number group by number
            """,
            vars_of(lane),
        )
    place = connection.execute(
        """
        insert into crm.feeds as f (tenant, destination, lane, lanes)
        values (%(tenant)s, %(destination)s, %(lane)s, %(lanes)s)
        on conflict (tenant, destination, lane) do update set lanes = excluded.lanes, state = 'running', error = null
        returning event_seq, change_seq
        """,
        vars_of(lane),
    ).fetchone()
    assert place is not None
    return Place(*place)


def excluded(connection: psycopg.Connection[Any], player_ids: Collection[int]) -> set[int]:
    """Return which of these players may not be marketed to as of now."""
    query = "select player_id from crm.players where player_id = any(%s::bigint[]) and not marketable"
    return {player_id for (player_id,) in connection.execute(query, (_array(player_ids),))}


def horizon(connection: psycopg.Connection[Any]) -> Place:
    """Return the newest committed numbers. Numbers are drawn in commit order, so all below them are visible."""
    row = connection.execute(_HORIZON).fetchone()
    assert row is not None
    return Place(*row)


def changes(connection: psycopg.Connection[Any], lane: Lane, *, after: int, limit: int) -> list[dict[str, Any]]:
    """Return changed players of the lane, of any tenant, in their newest state, with what was last accepted of them.

    Contacts are as they are stored: see contacts.opened.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        query = _EXCLUSIONS if lane.number == EXCLUSIONS else _LANE_CHANGES
        return cursor.execute(query, {**vars_of(lane), "after": after, "limit": limit}).fetchall()


def park_history(
    connection: psycopg.Connection[Any], checkpoint: Checkpoint, destination: str, *, keys: list[str], names: list[str]
) -> None:
    """Put history events of a stream up for sending to one destination, inside the caller's transaction. Idempotent."""
    values = {"tenant": checkpoint.tenant, "source": checkpoint.source, "stream": checkpoint.stream}
    connection.execute(_PARK_HISTORY, {**values, "destination": destination, "keys": keys, "names": names})


def expire_parked(connection: psycopg.Connection[Any], lane: Lane, *, older_than: float) -> None:
    """Let go of waiting events that have become too old to send, and count them."""
    connection.execute(_EXPIRE_PARKED, {**vars_of(lane), "older": older_than})


def settle(connection: psycopg.Connection[Any], lane: Lane, place: Place, settled: Settled, lease: Lease) -> None:
    """Record a batch's outcome and the lane's new place in one transaction, under the lane's lease."""
    try:
        with connection.transaction():
            _settle(connection, lane, place, settled)
            leases.assert_held(connection, lease)
    except psycopg.OperationalError as error:
        raise classify(error) from error


def _settle(connection: psycopg.Connection[Any], lane: Lane, place: Place, settled: Settled) -> None:
    who = (lane.tenant, lane.destination)
    delivered.accept(connection, *who, settled.profiles)
    delivered.distrust(connection, *who, settled.distrusted)
    with connection.cursor() as cursor:
        for statement, rows in ((_DEAD_LETTER, settled.letters), (_PARK, settled.parked)):
            if rows:
                cursor.executemany(statement, [(*who, *row) for row in rows])
    if settled.accepted:
        connection.execute(_DELIVERED, (*who, *map(_array, zip(*settled.accepted, strict=True))))
    if settled.unparked:
        connection.execute(_UNPARK, (*who, _array(settled.unparked)))
    connection.execute(
        """
        update crm.feeds set event_seq = %s, change_seq = %s, accepted = accepted + %s, refused = refused + %s,
               dropped = dropped + %s, expired = expired + %s, state = 'running', error = null,
               delivered_at = case when %s then now() else delivered_at end
        where tenant = %s and destination = %s and lane = %s
        """,
        (
            *(place.event_seq, place.change_seq, len(settled.accepted), len(settled.letters)),
            *(settled.dropped, settled.expired, bool(settled.accepted)),
            *(*who, lane.number),
        ),
    )


def _array(numbers: Iterable[int]) -> str:
    """Return a bigint[] as the server reads it: the driver takes seven times as long over a list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def set_state(connection: psycopg.Connection[Any], lane: Lane, state: str, error: str | None) -> None:
    """Record what a lane is doing: running, waiting or stopped, and why."""
    connection.execute(
        """
        update crm.feeds set state = %(state)s, error = %(error)s
        where tenant = %(tenant)s and destination = %(destination)s and lane = %(lane)s
        """,
        {**vars_of(lane), "state": state, "error": error},
    )


def refresh(connection: psycopg.Connection[Any], lane: Lane, *, older_than: float, limit: int) -> None:
    """Mark profiles that were last sent long ago, so that they are sent again."""
    rows = connection.execute(
        f"""
        select player_id from crm.delivered_profiles
        where tenant = %(tenant)s and destination = %(destination)s and {MINE}
          and sent_at < now() - make_interval(secs => %(older)s)
        order by sent_at limit %(limit)s
        """,
        {**vars_of(lane), "older": older_than, "limit": limit},
    ).fetchall()
    if rows:
        with connection.transaction():
            ordered(connection)
            players.mark(connection, [player_id for (player_id,) in rows], "refresh")


def vars_of(lane: Lane) -> dict[str, Any]:
    """Return a lane as statement parameters."""
    return {"tenant": lane.tenant, "destination": lane.destination, "lane": lane.number, "lanes": lane.lanes}


def letter(
    player_id: int, seq: int | None, kind: str, name: str, refusal: tuple[str, str, str], body: bytes
) -> tuple[Any, ...]:
    """Return a dead letter: the API's reason and the item as it was sent."""
    reason, field, message = refusal
    return (player_id, seq, kind, name, reason, field, message, body.decode())
