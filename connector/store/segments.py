"""Segments in the store: read, judged for a few players (realtime) or for all (a refresh), members in `segment_ids`.

Whoever changes memberships holds the store's lock (see database.ordered), and judges under it: what was read before
is only a list of players to look at.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector import clock
from connector.errors import Transient
from connector.segments import definition, windows
from connector.segments.compiler import PLAIN, Compiled, Contacts, compile_all
from connector.segments.definition import InvalidSegment
from connector.segments.draft import NoSegment
from connector.store import segment_feed
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date, datetime

    import psycopg

#: (player, segment, whether the player entered it)
Change = tuple[int, int, bool]
#: Players moved under one hold of the lock.
_PIECE: Final = 5_000
#: Players looked at by one statement of a refresh: fewer where their days have to be added up.
_SLICE: Final = 1_000_000
_SLICE_OF_EVENTS: Final = 200_000
#: Conditions of one statement that judges a few players.
_MOST_CONDITIONS: Final = 1_000
_COLUMNS: Final = (
    "segment_id, tenant, name, description, definition, refresh_strategy, schedule, revision, members,"
    " refreshed_revision, refreshed_at, next_refresh_at, error, created_at, updated_at"
)
_MOVE: Final = """
    with c as (
        select player_id, coalesce(array_agg(segment_id) filter (where entered), '{}') as entered,
               coalesce(array_agg(segment_id) filter (where not entered), '{}') as gone
        from unnest(%s::bigint[], %s::integer[], %s::boolean[]) as u(player_id, segment_id, entered) group by player_id
    )
    update crm.players p
    set segment_ids = array(
        select s from unnest(p.segment_ids || c.entered) s where s <> all(c.gone) group by s order by s)
    from c where c.player_id = p.player_id
"""
_REFRESHED: Final = """
    update crm.segments
    set members = (select count(*) from crm.players where segment_ids @> array[%(segment_id)s::integer]),
        refreshed_revision = revision, refreshed_at = %(at)s, next_refresh_at = %(next)s, error = null
    where segment_id = %(segment_id)s returning members
"""


_CHOSEN: Final = "tenant = %s and coalesce(refresh_strategy = %s, true)"


@dataclass(frozen=True)
class Segment:
    """A segment as it stands; `members` are of `refreshed_revision`."""

    segment_id: int
    tenant: str
    name: str
    description: str
    definition: dict[str, Any]
    refresh_strategy: str
    schedule: str
    revision: int
    members: int | None
    refreshed_revision: int | None
    refreshed_at: datetime | None
    next_refresh_at: datetime | None
    error: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def refreshed(self) -> bool:
        """Return whether a whole refresh of this revision is behind it."""
        return self.members is not None and self.refreshed_revision == self.revision


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did; `first`: of this revision, so that its changes are no news of players."""

    entered: list[int]
    left: list[int]
    members: int
    first: bool


class Unfinished(Transient):
    """The time is up; what was done stays done, and the next call goes on."""


def load(connection: psycopg.Connection[Any], tenant: str, *, strategy: str | None = None) -> list[Segment]:
    """Return the tenant's segments by name, all or those of a refresh strategy."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            f"select {_COLUMNS} from crm.segments where {_CHOSEN} order by name",
            (tenant, strategy),
        ).fetchall()
    return [Segment(**row) for row in rows]


def get(connection: psycopg.Connection[Any], tenant: str, segment_id: int) -> Segment:
    """Return a segment. Raises NoSegment."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            f"select {_COLUMNS} from crm.segments where tenant = %s and segment_id = %s", (tenant, segment_id)
        ).fetchone()
    if row is None:
        raise NoSegment(f"there is no segment {segment_id}", hint="`connector segments list` has them all")
    return Segment(**row)


def zone_of(connection: psycopg.Connection[Any], tenant: str) -> str:
    """Return the tenant's reporting time zone."""
    row = connection.execute("select reporting_timezone from crm.tenants where tenant = %s", (tenant,)).fetchone()
    return "UTC" if row is None else str(row[0])


def evaluate(
    connection: psycopg.Connection[Any],
    tenant: str,
    player_ids: Sequence[int],
    today: date,
    *,
    contacts: Contacts = PLAIN,
) -> list[Change]:
    """Judge players by every realtime segment that has been refreshed, as of a day; returns who entered or left.

    Writes `segment_ids` of those alone; telling of it is the caller's. Inside the caller's transaction, which holds the
    store's lock. A segment that can't be compiled any more keeps its members and says why.
    """
    chosen = [segment for segment in load(connection, tenant, strategy="realtime") if segment.refreshed]
    calendar = windows.Calendar(today, zone_of(connection, tenant))
    trees = {}
    for segment in chosen:
        try:
            tree = definition.parse(segment.definition)
            compile_all({segment.segment_id: tree}, calendar, contacts)
        except InvalidSegment as error:
            note(connection, segment, str(error))
        else:
            trees[segment.segment_id] = tree
    changes: list[Change] = []
    for part in _parts(trees):
        compiled = compile_all(part, calendar, contacts)
        changes += judged(connection, tenant, compiled, player_ids)
    move(connection, changes)
    return changes


def refresh(
    connection: psycopg.Connection[Any],
    tenant: str,
    segment_id: int,
    today: date,
    *,
    contacts: Contacts = PLAIN,
    seconds: float = inf,
) -> Refreshed:
    """Bring a segment's members to what its definition says of every player, as of a day, touching only who moves.

    In transactions of its own, each of a piece of players, under the store's lock and told of (see `announce`); repeat
    it after any failure. Raises NoSegment, InvalidSegment (noted with the segment), Transient: edited meanwhile;
    Unfinished after so many `seconds`.
    """
    segment = get(connection, tenant, segment_id)
    zone = zone_of(connection, tenant)
    try:
        tree = definition.parse(segment.definition)
        compiled = compile_all({segment_id: tree}, windows.Calendar(today, zone), contacts)
    except InvalidSegment as error:
        note(connection, segment, str(error))
        raise
    first, changes, deadline = not segment.refreshed, list[Change](), clock.monotonic() + seconds
    for ids in _differing(connection, tenant, compiled):
        with connection.transaction():
            _hold(connection, segment)
            changes += _settle(connection, tenant, compiled, ids, first=first)
        if clock.monotonic() > deadline:
            raise Unfinished(f"segment {segment.name!r} has more members to move", hint="refresh it again")
    with connection.transaction():
        _hold(connection, segment)
        if first and segment.refresh_strategy == "realtime":  # until now nobody looked at players who changed meanwhile
            for ids in _differing(connection, tenant, compiled):
                changes += _settle(connection, tenant, compiled, ids, first=first)
        members = _finish(connection, segment, zone)
    entered = [player_id for player_id, _, came in changes if came]
    return Refreshed(entered, [player_id for player_id, _, came in changes if not came], members, first)


def announce(connection: psycopg.Connection[Any], tenant: str, changes: Sequence[Change], *, first: bool) -> None:
    """Tell of memberships that a refresh has changed: a `first` one brings history, so it only marks the players."""
    segment_feed.announce(connection, tenant, changes, clock.now(), refreshed=True, history=first)


def judged(
    connection: psycopg.Connection[Any], tenant: str, compiled: Compiled, player_ids: Sequence[int]
) -> list[Change]:
    """Return how memberships of these players differ from what the compiled segments say."""
    met = ", ".join(f"case when {said} then {number} end" for number, said in compiled.predicates.items())
    events = compiled.events("d.player_id = any(%(player_ids)s)")
    statement = f"""
        {f"with e as materialized ({events})" if events else ""}
        select p.player_id, p.segment_ids,
               case when p.erased_at is null then array_remove(array[{met}]::integer[], null) else '{{}}' end
        from crm.players p {"left join e on e.player_id = p.player_id" if events else ""}
        where p.tenant = %(tenant)s and p.player_id = any(%(player_ids)s)
    """
    numbers = set(compiled.predicates)
    rows = ask(connection, tenant, compiled, statement, {"player_ids": list(player_ids)})
    return [
        (player_id, number, number in met)
        for player_id, has, met in rows
        for number in sorted(numbers.intersection(has).symmetric_difference(met))
    ]


def move(connection: psycopg.Connection[Any], changes: Sequence[Change]) -> None:
    """Write memberships; inside a transaction that holds the store's lock."""
    if changes:
        connection.execute(_MOVE, tuple(list(column) for column in zip(*changes, strict=True)))


def note(connection: psycopg.Connection[Any], segment: Segment, error: str) -> None:
    """Keep why a segment can't be judged, where `list` and `show` tell it."""
    connection.execute(
        "update crm.segments set error = %(error)s where segment_id = %(id)s and error is distinct from %(error)s",
        {"error": error, "id": segment.segment_id},
    )


_BECOME: Final = "select set_config('app.tenant_id', %s, true), set_config('role', %s, true)"


def ask(
    connection: psycopg.Connection[Any], tenant: str, compiled: Compiled, statement: str, values: dict[str, Any]
) -> list[Any]:
    """Run compiled SQL: the one place where what a person has defined reaches the server.

    As one who may read this tenant's rows and change nothing; contacts only where a condition names them.
    """
    bound = {**compiled.values, **values, "tenant": tenant}
    role = "crm_contacts" if compiled.personal else "crm_app"
    with connection.transaction():
        connection.execute(_BECOME, (tenant, role))
        rows = connection.execute(statement.encode(), bound, prepare=False).fetchall()
        connection.execute(_BECOME, (tenant, "none"))
    return rows


def upcoming(segment: Segment, at: datetime, zone: str) -> datetime | None:
    """Return when a segment is refreshed next by its schedule, None where it has none."""
    return windows.following(segment.schedule, at, zone) if segment.refresh_strategy == "scheduled" else None


def _parts(trees: dict[int, definition.Group]) -> Iterator[dict[int, definition.Group]]:
    """Split segments so that no statement has too many conditions."""
    part: dict[int, definition.Group] = {}
    size = 0
    for number, tree in trees.items():
        count = definition.size(tree)
        if part and size + count > _MOST_CONDITIONS:
            yield part
            part, size = {}, 0
        part[number] = tree
        size += count
    if part:
        yield part


def _hold(connection: psycopg.Connection[Any], segment: Segment) -> None:
    """Take the store's lock, and demand that the segment is still what it was."""
    ordered(connection)
    row = connection.execute(
        "select revision from crm.segments where segment_id = %s", (segment.segment_id,)
    ).fetchone()
    if row is None or row[0] != segment.revision:
        raise Transient(f"segment {segment.name!r} was changed while it was refreshed", hint="refresh it again")


def _settle(
    connection: psycopg.Connection[Any], tenant: str, compiled: Compiled, ids: Sequence[int], *, first: bool
) -> list[Change]:
    changes = judged(connection, tenant, compiled, ids)
    move(connection, changes)
    announce(connection, tenant, changes, first=first)
    return changes


def _differing(connection: psycopg.Connection[Any], tenant: str, compiled: Compiled) -> Iterator[list[int]]:
    """Yield players whose membership is not what the one compiled segment says, in pieces."""
    ((number, said),) = compiled.predicates.items()
    events = compiled.events("d.player_id > %(after)s and d.player_id <= %(until)s")
    found = f"""
        from crm.players p {"left join e on e.player_id = p.player_id" if events else ""}
        where p.tenant = %(tenant)s and p.player_id > %(after)s and p.player_id <= %(until)s
    """
    met = f"p.erased_at is null and {said}"
    entered, members = f"not p.segment_ids @> array[{number}]", f"p.player_id in (select crm.members({number}))"
    statement = f"""
        {f"with e as materialized ({events})" if events else ""}
        select p.player_id {found} and {met} and {entered}
        union all select p.player_id {found} and {members} and ({met}) is not true
    """
    width = _SLICE_OF_EVENTS if events else _SLICE
    ((last,),) = connection.execute("select coalesce(max(player_id), 0) from crm.players").fetchall()
    for after in range(0, last, width):
        rows = ask(connection, tenant, compiled, statement, {"after": after, "until": after + width})
        ids = (player_id for (player_id,) in rows)
        while piece := list(itertools.islice(ids, _PIECE)):
            yield piece


def _finish(connection: psycopg.Connection[Any], segment: Segment, zone: str) -> int:
    at = clock.now()
    values = {"segment_id": segment.segment_id, "at": at, "next": upcoming(segment, at, zone)}
    ((members,),) = connection.execute(_REFRESHED, values).fetchall()
    return int(members)
