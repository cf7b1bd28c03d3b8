"""Contacts of players, apart from them: which keys they are under, and how they come under the newest one.

`key_id` is the least key of a row's contacts, 0 where one is plain. Re-encrypting changes no contact and no player:
nobody is marked for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector import contacts
from connector.errors import Halted, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import polars as pl
    import psycopg

    from connector.contacts import Keys

#: Rows of one transaction of a rotation: it holds up nobody for long.
PIECE: Final = 2000
_MATCHES: Final = tuple(f"{name}_match" for name in contacts.COLUMNS)
_WRITTEN: Final = (*contacts.COLUMNS, *_MATCHES)
_ROW: Final = ", ".join(f"k.{name}" for name in ("player_id", *contacts.COLUMNS))
_PIECE: Final = f"""
    select {_ROW} from crm.player_contacts k
    where k.tenant = %(tenant)s and k.key_id = %(number)s and k.player_id > %(after)s
    order by k.player_id limit {PIECE} for update skip locked
"""
_STAGED: Final = f"""
    select {_ROW} from pg_temp.stage_profiles s
    join crm.players p on p.tenant = %(tenant)s and p.brand_id = s.brand_id and p.external_id = s.external_id
    join crm.player_contacts k using (player_id) where k.key_id < %(newest)s for update of k
"""
_PLAIN: Final = f"""
    select {_ROW} from crm.player_contacts k where k.tenant = %(tenant)s and k.key_id = 0
      and (k.email_match = any(%(email)s) or k.phone_match = any(%(phone)s)) for update
"""
_REWRITE: Final = f"""
    update crm.player_contacts k set {", ".join(f"{name} = v.{name}" for name in _WRITTEN)}
    from unnest(%s::bigint[], {", ".join("%s::text[]" for _ in _WRITTEN)}) as v (player_id, {", ".join(_WRITTEN)})
    where v.player_id = k.player_id
"""
_BEHIND: Final = "select from crm.player_contacts where tenant = %s and key_id < %s limit 1"
_COUNTS: Final = """
    select key_id, count(*) from crm.player_contacts where tenant = %s and key_id is not null group by 1 order by 1
"""
#: By the index: the size of the table does not matter.
_NEXT_KEY: Final = "select min(key_id) from crm.player_contacts where tenant = %s and key_id > %s"
_SAMPLE: Final = "select * from crm.player_contacts where tenant = %s and key_id = %s limit 5"


@dataclass(frozen=True)
class Piece:
    """What a piece of a rotation did: rows that are under the newest key now, players whose row can't be decrypted."""

    last: int
    rotated: int
    unreadable: Sequence[int]


def counts(connection: psycopg.Connection[Any], tenant: str) -> dict[int, int]:
    """Return how many players' contacts are under which key; 0: plain."""
    return {int(key_id): int(rows) for key_id, rows in connection.execute(_COUNTS, (tenant,)).fetchall()}


def require(connection: psycopg.Connection[Any], tenant: str, keys: Keys | None) -> None:
    """Make sure that every encrypted contact can be read and found. Raises Misconfigured with the key that is missing.

    Called at start. Some rows of every key are decrypted, so that another key under the same id is noticed too.
    """
    number = 0
    with connection.cursor(row_factory=dict_row) as cursor:
        while (found := connection.execute(_NEXT_KEY, (tenant, number)).fetchone()) and found[0] is not None:
            number = int(found[0])
            if keys is None or number not in keys.secrets:
                raise Misconfigured(
                    f"contacts in the store are encrypted with key {number}, which personal_data.keys does not have",
                    hint=f"put the line of key {number} back: it may go once `connector keys show` counts no row of it",
                )
            _check(cursor.execute(_SAMPLE, (tenant, number)).fetchall(), tenant, keys, number)


def _check(rows: Sequence[dict[str, Any]], tenant: str, keys: Keys, number: int) -> None:
    again, unreadable = _rewritten(rows, tenant, keys)
    if len(unreadable) == len(rows) > 0:
        raise Misconfigured(
            f"key {number} of personal_data.keys is not the one that contacts in the store are encrypted with",
            hint=f"put the line of key {number} back as it was, and give a new key a new, greater id",
        )
    now = {row["player_id"]: row for row in again}
    known = [
        row[name] == now[row["player_id"]][name]
        for row in rows
        if row["player_id"] in now
        for name in _MATCHES
        if row[name] is not None
    ]
    if known and not any(known):
        raise Misconfigured(
            "the match key of personal_data.keys is not the one that contacts in the store are found by",
            hint="put the line back as it was: the match key is never changed",
        )


def renew(connection: psycopg.Connection[Any], tenant: str, profiles: pl.DataFrame, keys: Keys) -> None:
    """Bring under the newest key what the staged profiles are compared with: their own contacts and those they share.

    Inside THE transaction, `profiles` as they came: so an unchanged contact is seen to be unchanged, and a shared one
    to be shared, whatever has not been rotated yet.
    """
    behind = connection.execute(_BEHIND, (tenant, keys.newest)).fetchone()
    if behind is None:
        return
    values: dict[str, Any] = {"tenant": tenant, "newest": keys.newest}
    for kind in contacts.KINDS:
        values[kind] = profiles.select_seq(contacts.plain_match(kind)).to_series().drop_nulls().to_list()
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = {row["player_id"]: row for which in (_STAGED, _PLAIN) for row in cursor.execute(which, values)}
        _rewrite(cursor, _rewritten(rows.values(), tenant, keys)[0])


def rotation(connection: psycopg.Connection[Any], tenant: str, keys: Keys) -> Iterator[Piece]:
    """Bring every row under the newest key, a piece in a transaction of its own: stopped, the next one goes on there.

    It never waits for a row that somebody else holds, and passes it by: beside a running daemon nothing can deadlock.
    """
    for number in [number for number in counts(connection, tenant) if number < keys.newest]:
        after = 0
        while (piece := _rotate(connection, tenant, keys, number=number, after=after)) is not None:
            after = piece.last
            yield piece


def _rotate(connection: psycopg.Connection[Any], tenant: str, keys: Keys, *, number: int, after: int) -> Piece | None:
    values = {"tenant": tenant, "number": number, "after": after}
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_PIECE, values).fetchall()
        if not rows:
            return None
        written, unreadable = _rewritten(rows, tenant, keys)
        _rewrite(cursor, written)
    return Piece(rows[-1]["player_id"], len(written), unreadable)


def _rewritten(rows: Iterable[dict[str, Any]], tenant: str, keys: Keys) -> tuple[list[dict[str, Any]], list[int]]:
    """Return rows under the newest key, and the players of those that can't be decrypted."""
    written: list[dict[str, Any]] = []
    unreadable: list[int] = []
    for row in rows:
        try:
            plain = contacts.opened(row, tenant, keys)
        except Halted:
            unreadable.append(row["player_id"])
            continue
        sealed = {name: contacts.sealed(plain[name], tenant, kind, keys) for name, kind in contacts.COLUMNS.items()}
        written.append(
            {"player_id": row["player_id"]}
            | {name: text for name, (text, _) in sealed.items()}
            | {f"{name}_match": match for name, (_, match) in sealed.items()}
        )
    return written, unreadable


def _rewrite(cursor: psycopg.Cursor[Any], rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        cursor.execute(_REWRITE, [[row[name] for row in rows] for name in ("player_id", *_WRITTEN)])
