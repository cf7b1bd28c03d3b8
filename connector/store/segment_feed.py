"""Memberships become news: who entered or left a segment is marked for destinations and told in the ledger.

And what the audience's loop asks before: who is due, whom a new day concerns, which segment wants a whole refresh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from connector.event import NAMES
from connector.store import ledger, players
from connector.store.database import ordered
from connector.store.ledger import StreamKey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    import psycopg

#: The ledger's stream of memberships: of no source, so that no audit and no checkpoint knows of it.
SOURCE: Final = "connector"
STREAM: Final = "segments"
_NAME_IDS: Final = [NAMES.index(name) + 1 for name in ("custom_segment_left", "custom_segment_entered")]
_TOLD: Final = f"""
    insert into crm.event_rows (player_id, occurred_at, stream_id, name_id, effect, history, key, properties)
    select c.player_id, %(at)s, s.stream_id, (array{_NAME_IDS})[c.entered::int + 1], 0, false,
           concat_ws('|', c.segment_id, c.player_id, m.change_seq),
           jsonb_build_object('segment_id', c.segment_id, 'segment', g.name)
    from unnest(%(players)s::bigint[], %(segments)s::int[], %(entered)s::boolean[])
        with ordinality c(player_id, segment_id, entered, place)
    join crm.players p using (player_id) join crm.segments g using (segment_id)
    join crm.player_changes m on m.player_id = c.player_id and m.reason = 'profile'
    join crm.event_streams s on (s.tenant, s.source, s.stream, s.generation, s.brand_id)
        = (%(tenant)s, '{SOURCE}', '{STREAM}', 0, p.brand_id)
    order by c.place
"""
_BRANDS: Final = "select distinct brand_id from crm.players where player_id = any(%s) order by brand_id"
_COUNT: Final = """
    update crm.segments g set members = g.members + c.more
    from (select segment_id, sum(case when entered then 1 else -1 end) as more
          from unnest(%s::int[], %s::boolean[]) as u(segment_id, entered) group by segment_id) c
    where g.segment_id = c.segment_id
"""
_HEAD: Final = "select coalesce(max(change_seq), 0) from crm.player_changes"
#: Marks of memberships are nothing that a segment could ask for: where all before them is seen, so are they.
_SEEN: Final = f"""
    update crm.segment_feed set change_seq = ({_HEAD}) where tenant = %s and built and change_seq = %s
"""
_TAKE: Final = "delete from crm.segment_due where tenant = %s and player_id = any(%s)"


def announce(
    connection: psycopg.Connection[Any],
    tenant: str,
    changes: Sequence[tuple[int, int, bool]],
    at: datetime,
    *,
    refreshed: bool = False,
    history: bool = False,
) -> None:
    """Tell of memberships that changed: (player_id, segment_id, entered), each pair of player and segment once.

    Inside the transaction that changed them. `refreshed`: it has counted the segments' members itself; `history`: the
    players were found by the first refresh of a definition, which is no event for any of them.
    """
    if not changes:
        return
    ordered(connection)
    listed, segments, entered = ([change[index] for change in changes] for index in range(3))
    marked = sorted(set(listed))
    (head,) = connection.execute(_HEAD).fetchone() or (0,)
    players.mark(connection, marked, "profile")
    if not refreshed:
        connection.execute(_COUNT, (segments, entered))
    if not history:
        for (brand,) in connection.execute(_BRANDS, (marked,)).fetchall():
            ledger.stream_id(connection, StreamKey(tenant, SOURCE, STREAM, 0), brand)
        values = {"tenant": tenant, "at": at, "players": listed, "segments": segments, "entered": entered}
        connection.execute(_TOLD, values)
    connection.execute(_SEEN, (tenant, head))


def named(connection: psycopg.Connection[Any], tenant: str, names: Collection[str]) -> dict[int, str]:
    """Return the segments of these names that there are, by number."""
    rows = connection.execute(
        "select segment_id, name from crm.segments where tenant = %s and name = any(%s)", (tenant, list(names))
    )
    return dict(rows.fetchall())


def any_segment(connection: psycopg.Connection[Any], tenant: str) -> bool:
    """Return whether the tenant has a segment: nothing is paid by who has none."""
    row = connection.execute("select exists (select from crm.segments where tenant = %s)", (tenant,)).fetchone()
    return bool(row and row[0])


def due(connection: psycopg.Connection[Any], tenant: str, *, limit: int) -> list[int]:
    """Return players whose segments are to be looked at."""
    query = "select player_id from crm.segment_due where tenant = %s order by player_id limit %s"
    return [player_id for (player_id,) in connection.execute(query, (tenant, limit))]


def take(connection: psycopg.Connection[Any], tenant: str, player_ids: Sequence[int]) -> None:
    """Take players off those who are due, inside the transaction that looks at them, with the store's lock held.

    The feed's row is locked first: a roll-up by another process holds it when it makes players due.
    """
    connection.execute("select from crm.segment_feed where tenant = %s for update", (tenant,))
    connection.execute(_TAKE, (tenant, list(player_ids)))
