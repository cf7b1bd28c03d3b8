"""Events that are due: what a destination's lane reads of the ledger, in commit order, and what waited for its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

from connector.store.feeds import MINE, Lane, Place, vars_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    import psycopg

#: The player has a change that this lane has not sent: its events wait for that. Mostly no player of the lane has one,
#: and that is one question for all of a step's events.
_WAITING: Final = f"""
    exists (select from crm.player_changes c where c.change_seq > %(changes)s and c.{MINE})
    and exists (select from crm.player_changes c where c.change_seq > %(changes)s and c.player_id = e.player_id)
"""
_EVENT_COLUMNS: Final = f"""
    e.seq, e.player_id, p.brand_id, p.external_id, p.marketable, p.is_stub, {_WAITING} as waiting, e.stream_id,
    e.name_id, e.key, coalesce(e.transaction_id, e.key), e.occurred_at, e.amount, e.currency, e.shape_id, e.properties,
    e.packed, e.salt
"""
_EVENTS: Final = f"""
    with e as materialized (
        select *, null::text as salt from crm.event_rows
        where seq > %(after)s and seq <= %(until)s and not history and {MINE}
          and name_id = any(array(select name_id from crm.event_names where name = any(%(names)s)))
          and stream_id = any(array(select stream_id from crm.event_streams where tenant = %(tenant)s))
        order by seq limit %(limit)s
    )
    select {_EVENT_COLUMNS} from e join crm.players p using (player_id) order by e.seq
"""
#: An event younger than this can trigger a campaign at Customer.io: history waits until it can't.
_HARMLESS_SECONDS: Final = 72 * 3600
_PARKED: Final = f"""
    with e as materialized (
        select e.*, w.salt from crm.parked_events w
        join crm.event_rows e using (seq, player_id)
        join crm.players p using (player_id)
        where w.tenant = %(tenant)s and w.destination = %(destination)s and w.{MINE} and not p.is_stub
          and {{which}}
        order by w.seq limit %(limit)s
    )
    select {_EVENT_COLUMNS} from e join crm.players p using (player_id) order by e.seq
"""
_PARKED_HISTORY: Final = _PARKED.format(
    which=f"w.history and e.occurred_at < now() - make_interval(secs => {_HARMLESS_SECONDS})"
)
_PARKED_LIVE: Final = _PARKED.format(which="not w.history")
#: How many sequence numbers one look for events spans: bounds the scan when most events are not subscribed to.
SPAN: Final = 100_000


class Due(NamedTuple):
    """An event of the ledger, and what its player is now. `waiting`: the player has an unsent change, which goes first.

    `salt`: a resend of what the destination had before, under another id. What the numbers stand for: see Names.
    """

    seq: int
    player_id: int
    brand_id: str
    external_id: str
    marketable: bool
    is_stub: bool
    waiting: bool
    stream_id: int
    name_id: int
    key: str
    transaction_id: str
    occurred_at: datetime
    amount: Decimal | None
    currency: str | None
    shape_id: int | None
    properties: Mapping[str, str] | None
    packed: str | None
    salt: str | None


class Names:
    """What the small numbers in the ledger's rows stand for. Each is asked for once: those tables are only added to."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        #: A stream's source, name and generation.
        self.streams = _Named(
            connection, "select source, stream, generation::text from crm.event_streams where stream_id = %s"
        )
        self.events = _Named(connection, "select name from crm.event_names where name_id = %s")
        #: The names of packed values, as event.named takes them.
        self.shapes = _Named(connection, "select names from crm.event_shapes where shape_id = %s")


class _Named(dict[int, tuple[Any, ...]]):
    """Rows by number."""

    def __init__(self, connection: psycopg.Connection[Any], query: LiteralString) -> None:
        super().__init__()
        self._connection, self._query = connection, query

    def __missing__(self, number: int) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(self._query, (number,)).fetchone()
        assert row is not None
        self[number] = row
        return row


def events(
    connection: psycopg.Connection[Any], lane: Lane, place: Place, *, until: int, names: Collection[str], limit: int
) -> list[Due]:
    """Return live events of the lane that the destination subscribes to, in commit order, from `place` to `until`."""
    with connection.cursor(row_factory=_due) as cursor:
        values = {**vars_of(lane), "after": place.event_seq, "changes": place.change_seq, "until": until}
        return cursor.execute(_EVENTS, {**values, "names": list(names), "limit": limit}).fetchall()


def parked(connection: psycopg.Connection[Any], lane: Lane, place: Place, *, history: bool, limit: int) -> list[Due]:
    """Return waiting events whose time has come, live ones or history."""
    with connection.cursor(row_factory=_due) as cursor:
        values = {**vars_of(lane), "changes": place.change_seq, "limit": limit}
        return cursor.execute(_PARKED_HISTORY if history else _PARKED_LIVE, values).fetchall()


def _due(_: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Due]:
    """Make rows of an event each: a row factory of the driver's."""
    return Due._make
