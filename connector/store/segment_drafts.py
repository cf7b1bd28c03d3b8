"""Segments made, changed and taken away by a person, looked at before, and listed after."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from connector import clock, contacts as reach
from connector.segments import definition
from connector.segments.compiler import PLAIN, Compiled, Contacts, compile_all
from connector.segments.draft import NameTaken
from connector.segments.windows import Calendar, following
from connector.store import players, segments
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime

    from connector.contacts import Keys
    from connector.segments.definition import Group
    from connector.segments.draft import Draft
    from connector.store.segments import Segment

#: Up to so many players a preview counts; beyond it the planner's estimate stands.
EXACT_TO: Final = 10_000
_SAMPLE: Final = 10
_PATIENCE: Final = "set local statement_timeout = '8s'"
_PIECE: Final = 5_000
_PAGE: Final = 5_000
#: What a sample shows of a player: nothing that tells who it is.
_SHOWN: Final = (
    "p.player_id, p.brand_id, p.external_id, p.status, p.country, p.language, p.kyc_status, p.deposit_count,"
    " p.total_deposited, p.bet_count, p.last_seen_at"
)
_INSERT: Final = """
    insert into crm.segments
        (tenant, name, description, definition, refresh_strategy, schedule, next_refresh_at)
    values (%(tenant)s, %(name)s, %(description)s, %(definition)s, %(refresh_strategy)s, %(schedule)s, %(next)s)
    returning segment_id
"""
_UPDATE: Final = """
    update crm.segments
    set name = %(name)s, description = %(description)s, definition = %(definition)s,
        refresh_strategy = %(refresh_strategy)s, schedule = %(schedule)s, next_refresh_at = %(next)s,
        revision = revision + %(raised)s, error = case when %(raised)s = 1 then null else error end,
        updated_at = now()
    where segment_id = %(segment_id)s
"""
_TAKE_OUT: Final = """
    update crm.players p set segment_ids = array_remove(p.segment_ids, %(segment_id)s::integer)
    where p.player_id = any(array(
        select player_id from crm.players where segment_ids @> array[%(segment_id)s::integer] limit %(piece)s))
    returning p.player_id
"""


@dataclass(frozen=True)
class Preview:
    """How many a definition finds, whether that was counted (`exact`) or estimated, and a few of them."""

    estimate: int
    exact: bool
    sample: list[dict[str, Any]]


def create(connection: psycopg.Connection[Any], tenant: str, draft: Draft, *, contacts: Contacts = PLAIN) -> Segment:
    """Write a new segment, without members: a realtime one is due at once. Raises NameTaken, InvalidSegment."""
    _compilable(draft, contacts)
    at, zone = clock.now(), segments.zone_of(connection, tenant)
    values = {**_values(draft), "tenant": tenant, "next": _due(draft, at, zone, changed=True)}
    try:
        ((segment_id,),) = connection.execute(_INSERT, values).fetchall()
    except psycopg.errors.UniqueViolation:
        raise _taken(draft) from None
    return segments.get(connection, tenant, segment_id)


def edit(
    connection: psycopg.Connection[Any], tenant: str, segment_id: int, draft: Draft, *, contacts: Contacts = PLAIN
) -> Segment:
    """Make a segment what the draft says; another definition is another revision, whose members are due anew.

    Raises NoSegment, NameTaken, InvalidSegment.
    """
    _compilable(draft, contacts)
    at, zone = clock.now(), segments.zone_of(connection, tenant)
    try:
        with connection.transaction():
            ordered(connection)
            before = segments.get(connection, tenant, segment_id)
            raised = definition.written(draft.definition) != before.definition
            changed = raised or not before.refreshed or draft.refresh_strategy != before.refresh_strategy
            due = _due(draft, at, zone, changed=changed)
            values = {**_values(draft), "segment_id": segment_id, "raised": int(raised), "next": due}
            connection.execute(_UPDATE, values)
    except psycopg.errors.UniqueViolation:
        raise _taken(draft) from None
    return segments.get(connection, tenant, segment_id)


def said_of(segment: Segment) -> dict[str, Any]:
    """Return what a person said of a segment that is there, as draft.parse reads it."""
    return {
        name: getattr(segment, name) for name in ("name", "description", "definition", "refresh_strategy", "schedule")
    }


def delete(connection: psycopg.Connection[Any], tenant: str, segment_id: int) -> int:
    """Take a segment away and its members out of it, in pieces, marked; returns how many they were. Raises NoSegment.

    It is retired first, so that nobody enters meanwhile; repeat it after any failure.
    """
    segment = segments.get(connection, tenant, segment_id)
    retire = (
        "update crm.segments set refresh_strategy = 'on_demand', refreshed_revision = null, next_refresh_at = null,"
        " revision = revision + 1 where segment_id = %s"
    )
    connection.execute(retire, (segment.segment_id,))
    count = 0
    while True:
        with connection.transaction():
            ordered(connection)
            values = {"segment_id": segment_id, "piece": _PIECE}
            ids = [player_id for (player_id,) in connection.execute(_TAKE_OUT, values).fetchall()]
            players.mark(connection, sorted(ids), "profile")
            if len(ids) < _PIECE:
                connection.execute("delete from crm.segments where segment_id = %s", (segment_id,))
        count += len(ids)
        if len(ids) < _PIECE:
            return count


def preview(
    connection: psycopg.Connection[Any], tenant: str, tree: Group, today: date, *, contacts: Contacts = PLAIN
) -> Preview:
    """Return how many players a definition finds, as of a day, and ten of them, without contacts and names.

    Exact up to EXACT_TO players, where that is quickly counted; else it is what the server's planner expects.
    """
    compiled = compile_all({0: tree}, Calendar(today, segments.zone_of(connection, tenant)), contacts)
    found = _found(compiled)
    sample: list[dict[str, Any]] = []
    counted = EXACT_TO + 1
    try:
        with connection.transaction():
            connection.execute(_PATIENCE)
            names = [name.strip().removeprefix("p.") for name in _SHOWN.split(",")]
            rows = segments.ask(connection, tenant, compiled, f"select {_SHOWN} {found} limit {_SAMPLE}", {})
            sample = [dict(zip(names, row, strict=True)) for row in rows]
            limited = f"select count(*) from (select {found} limit {EXACT_TO + 1}) found"
            ((counted,),) = segments.ask(connection, tenant, compiled, limited, {})
    except psycopg.errors.QueryCanceled:
        pass
    if counted <= EXACT_TO:
        return Preview(counted, exact=True, sample=sample)
    ((plan,),) = segments.ask(connection, tenant, compiled, f"explain (format json) select {found}", {})
    return Preview(int(plan[0]["Plan"]["Plan Rows"]), exact=False, sample=sample)


def members(
    connection: psycopg.Connection[Any], tenant: str, segment_id: int, *, after: int = 0, limit: int = 100
) -> list[dict[str, Any]]:
    """Return a page of members behind a player's number, without contacts and names."""
    statement = f"""
        select {_SHOWN} from crm.players p
        where p.tenant = %s and p.segment_ids @> array[%s::integer] and p.player_id > %s order by p.player_id limit %s
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, (tenant, segment_id, after, limit)).fetchall()


def export(
    connection: psycopg.Connection[Any], tenant: str, segment_id: int, *, personal: bool, keys: Keys | None = None
) -> Iterator[dict[str, Any]]:
    """Yield every member's brand and id, and contacts if they are asked for, page by page.

    Raises Halted where contacts are encrypted with a key that `keys` does not have.
    """
    after = 0
    while page := members(connection, tenant, segment_id, after=after, limit=_PAGE):
        after = page[-1]["player_id"]
        reached = _reached(connection, [row["player_id"] for row in page]) if personal else {}
        for row in page:
            said = {"brand": row["brand_id"], "external_id": row["external_id"]}
            told = reach.opened(reached.get(row["player_id"], {}), tenant, keys)
            yield {**said, "email": told.get("email"), "phone": told.get("phone")} if personal else said


def _reached(connection: psycopg.Connection[Any], ids: list[int]) -> dict[int, dict[str, Any]]:
    query = "select player_id, email, phone from crm.player_contacts where player_id = any(%s)"
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row["player_id"]: row for row in cursor.execute(query, (ids,))}


def _found(compiled: Compiled) -> str:
    """Return the players that the one compiled segment finds, one by one: a limit ends it early."""
    events = compiled.events("d.player_id = p.player_id")
    (said,) = compiled.predicates.values()
    joined = f"left join lateral ({events}) e on true" if events else ""
    return f"from crm.players p {joined} where p.tenant = %(tenant)s and p.erased_at is null and {said}"


def _values(draft: Draft) -> dict[str, Any]:
    said = {name: value for name, value in asdict(draft).items() if name != "definition"}
    return {**said, "definition": Jsonb(definition.written(draft.definition))}


def _due(draft: Draft, at: datetime, zone: str, *, changed: bool) -> datetime | None:
    """Return when a segment is refreshed next: a realtime one at once, and never again."""
    if draft.refresh_strategy == "scheduled":
        return following(draft.schedule, at, zone)
    return at if draft.refresh_strategy == "realtime" and changed else None


def _compilable(draft: Draft, contacts: Contacts) -> None:
    compile_all({0: draft.definition}, Calendar(clock.now().date(), "UTC"), contacts)


def _taken(draft: Draft) -> NameTaken:
    return NameTaken(f"another segment is named {draft.name!r}", hint="edit that one, or give this one another name")
