"""Erasing a person: nothing personal stays of an account, its ledger does, and a tombstone keeps it so.

The tombstone is `players.erased_at`: profiles, labels and properties of events that come again, by whatever way, are
not stored for such an account. Sources: GDPR article 17 (erasure; the ledger is kept by legal obligation), and
Customer.io's `suppress`, which deletes a person and ignores every later write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector.store import audit_log, identities, players
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import polars as pl
    import psycopg

#: Columns of players that say something of the person. What is counted from the ledger stays.
_PERSONAL: Final = (
    *("username", "first_name", "last_name", "telegram_id", "date_of_birth", "gender", "country", "language"),
    *("kyc_status", "affiliate_id", "affiliate_str", "status_raw", "tags", "groups", "lead", "created_at"),
    *("email_disabled", "sms_disabled", "push_disabled", "calls_disabled", "last_login_at"),
    *("cooling_off_until", "rg_self_excluded_until"),
)
_STUB: Final = """
    insert into crm.players (tenant, brand_id, external_id) values (%s, %s, %s)
    on conflict (tenant, brand_id, external_id) do nothing
"""
_FIND: Final = """
    select p.* from crm.players p where (tenant, brand_id, external_id) = (%s, %s, %s) for update
"""
_CONTACTS: Final = """
    select email, phone, lead_email, lead_phone from crm.player_contacts where player_id = any(%s)
"""
#: A lead with a contact of the account is the same person; it has no number of its own that could be asked for.
_LEADS: Final = """
    select p.player_id from crm.player_contacts mine
    join crm.player_contacts c on c.tenant = mine.tenant
      and (c.email_match = mine.email_match or c.phone_match = mine.phone_match)
    join crm.players p on p.player_id = c.player_id and p.external_id is null
    where mine.player_id = %s
"""
_ERASE: Final = f"""
    update crm.players set {", ".join(f"{name} = null" for name in _PERSONAL)},
        traits = '{{}}', consents = '{{}}', anonymous_ids = '{{}}', segment_ids = '{{}}',
        tags_in_profile = false, groups_in_profile = false, is_stub = false,
        status = 'deleted', eligible = false, marketable = false, rg_self_excluded = false,
        deleted_at = coalesce(deleted_at, %(at)s), erased_at = %(at)s
    where player_id = any(%(ids)s)
"""
#: Tables with nothing but what is known of a person or was sent of one.
_EMPTIED: Final = ("player_contacts", "player_labels", "player_wallets", "delivered_profiles", "segment_due")
_LETTERS: Final = (
    "delete from crm.dead_letters where player_id = any(%(ids)s) and kind = 'profile'",
    "update crm.dead_letters set payload = '{}', message = null where player_id = any(%(ids)s)",
)
#: Rows of the account as it was read, and rows that name the person without saying whose they are.
_QUARANTINED: Final = """
    with mine as (
        select id, stream from crm.quarantine
        where tenant = %(tenant)s and ((brand_id, external_id) = (%(brand)s, %(account)s)
           or exists (select from jsonb_each_text(raw) v where lower(v.value) = any(%(known)s)))
    ), dropped as (
        delete from crm.quarantine q using mine where q.id = mine.id and mine.stream = 'user_profile'
    )
    update crm.quarantine q set raw = coalesce((
        select jsonb_object_agg(v.key, v.value) from jsonb_each_text(q.raw) v
        where not exists (select from unnest(%(known)s::text[]) k where strpos(lower(v.value), k) > 0)), '{}')
    from mine where q.id = mine.id and mine.stream <> 'user_profile'
"""
#: No index leads to all events of a player: this reads the ledger once, for as long as that takes.
_PROPERTIES: Final = """
    update crm.event_rows set properties = '{}', packed = null
    where player_id = any(%(ids)s) and (packed is not null or properties::text <> '{}')
"""
_NAMING: Final = """
    select exists (select from crm.event_rows e, unnest(%(known)s::text[]) k
                   where e.player_id = any(%(ids)s) and strpos(lower(coalesce(e.packed, e.properties::text)), k) > 0)
"""
_NOTE: Final = """
    insert into crm.erasures (tenant, player_id, mode, requested_by, requested_at, erased_at)
    values (%(tenant)s, %(player)s, %(mode)s, %(by)s, %(since)s, %(at)s) on conflict (player_id) do nothing
"""
#: A shorter text would be found in rows that have nothing to do with the person.
_TELLING: Final = 4


@dataclass(frozen=True)
class Request:
    """Who is to be erased, who asked for it and when. `mode` is the operator's own word: all erase alike."""

    brand_id: str
    external_id: str
    requested_by: str
    requested_at: datetime
    mode: str = "delete"


@dataclass(frozen=True)
class Erased:
    """What an erasure met: an account that was not erased before (`fresh`), and events that named the person."""

    fresh: bool
    in_ledger: bool


def erase(connection: psycopg.Connection[Any], tenant: str, request: Request, at: datetime) -> Erased:
    """Erase an account of a tenant, known or not; of one that was erased before, whatever has come since.

    Inside a transaction of the caller's, which holds every writer up for as long as it takes to read the ledger.
    Destinations are told by the feed, before everything else.
    """
    ordered(connection)
    connection.execute("set local statement_timeout = 0")
    connection.execute(_STUB, (tenant, request.brand_id, request.external_id))
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_FIND, (tenant, request.brand_id, request.external_id)).fetchone()
    assert row is not None
    player_id = row["player_id"]
    ids = [player_id, *(lead for (lead,) in connection.execute(_LEADS, (player_id,)))]
    known = _texts([*_named(row), *(text for found in connection.execute(_CONTACTS, (ids,)) for text in found)])
    values = {
        "tenant": tenant,
        "player": player_id,
        "ids": ids,
        "at": row["erased_at"] or at,
        "known": known,
        "brand": request.brand_id,
        "account": request.external_id,
        "mode": request.mode,
        "by": request.requested_by,
        "since": request.requested_at,
    }
    (in_ledger,) = connection.execute(_NAMING, values).fetchone() or (False,)
    for statement in (_ERASE, *_LETTERS, _QUARANTINED, _PROPERTIES, _NOTE):
        connection.execute(statement, values)
    for table in _EMPTIED:
        connection.execute(f"delete from crm.{table} where player_id = any(%(ids)s)", values)
    identities.answer_all(connection, player_id, "erased")
    players.mark(connection, [player_id], "profile")
    players.mark(connection, [player_id], "exclusion")
    if row["erased_at"] is None:
        told = {"mode": request.mode, "requested_at": request.requested_at.isoformat()}
        audit_log.append(connection, tenant, "erasure", f"player {player_id}", told, actor=request.requested_by)
    return Erased(row["erased_at"] is None, bool(in_ledger))


def erase_all(connection: psycopg.Connection[Any], tenant: str, requests: pl.DataFrame, at: datetime) -> int:
    """Erase whom a page of `erasures` names; returns how many were not erased before. Inside THE transaction."""
    erased = 0
    for row in requests.iter_rows(named=True):
        place = (tenant, row["brand_id"], row["external_id"])
        done = connection.execute(
            "select from crm.players where (tenant, brand_id, external_id) = (%s, %s, %s) and erased_at is not null",
            place,
        ).fetchone()
        if done is None:
            asked = Request(row["brand_id"], row["external_id"], "erasures", row["requested_at"], row["mode"])
            erased += erase(connection, tenant, asked, at).fresh
    return erased


def _named(row: dict[str, Any]) -> list[Any]:
    lead = row["lead"] or {}
    columns = ("username", "first_name", "last_name", "telegram_id")
    return [*(row[name] for name in columns), *(lead.get(name) for name in columns)]


def _texts(found: Iterable[Any]) -> list[str]:
    """Return the texts that would name the person wherever they stand, in lower case; encrypted ones stand nowhere."""
    texts = {str(text).lower() for text in found if text is not None}
    return sorted(text for text in texts if len(text) >= _TELLING and not text.startswith("enc:v"))
