"""One person, one player: a lead is claimed by the account that shares a contact, accounts that share one are told.

A lead is a player without `external_id`. A contact is an e-mail address (whatever its case), phone, Telegram id or
wallet, in this order; the first two are known by what finds them (see connector/contacts.py). Two accounts are never
merged, in whatever brand they are: the later one bears status `conflict` until a person has answered. A page is a
handful of statements over its own contacts. Inside THE transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.rows import dict_row

from connector.errors import Misconfigured
from connector.store import players
from connector.store.database import ordered

if TYPE_CHECKING:
    import psycopg

#: Contacts, by priority.
KINDS: Final = ("email", "phone", "telegram", "wallet")
_STAGE: Final = """
    create temporary table if not exists stage_contacts (
        brand_id text, external_id text, arrives boolean, kind int, network text, value text
    ) on commit delete rows;
    create index if not exists stage_contacts_value on stage_contacts (value)
"""
_MINE: Final = f"left join {players.OF.format(row='s')} p on true"
#: What the page says and the store does not know yet. Of an account that has no row at all, everything.
_CONTACTS: Final = f"""
    insert into pg_temp.stage_contacts
    select s.brand_id, s.external_id, p.player_id is null, c.kind, '', c.value
    from pg_temp.stage_profiles s {_MINE} left join crm.player_contacts k on k.player_id = p.player_id
    cross join lateral (values
        (1, s.email_match, k.email_match), (2, s.phone_match, k.phone_match), (3, s.telegram_id, p.telegram_id)
    ) c (kind, value, known)
    where c.value is not null and c.value is distinct from c.known
"""
_WALLETS: Final = "jsonb_to_recordset(s.wallets) as w (network text, address text)"
_WALLET_CONTACTS: Final = f"""
    insert into pg_temp.stage_contacts
    select s.brand_id, s.external_id, p.player_id is null, 4, w.network, w.address
    from pg_temp.stage_profiles s {_MINE} cross join lateral {_WALLETS}
    where s.wallets is not null and not exists (
        select from crm.player_wallets k where k.player_id = p.player_id
          and (k.tenant, k.network, k.address) = (%(tenant)s, w.network, w.address))
"""
_OWNERS: Final = (
    "select k.player_id from crm.player_wallets k"
    " where (k.tenant, k.network, k.address) = (%(tenant)s, w.network, w.value)"
)
#: The players that have a contact `w`, one select a kind: each has its index. Where to look, and what holds there.
_PLAYERS: Final = "crm.players o"
_REACHED: Final = f"{_PLAYERS} join crm.player_contacts k on k.player_id = o.player_id"
_HAVING: Final = (
    (_REACHED, "w.kind = 1 and (k.tenant, k.email_match) = (%(tenant)s, w.value)"),
    (_REACHED, "w.kind = 2 and (k.tenant, k.phone_match) = (%(tenant)s, w.value)"),
    (_PLAYERS, "w.kind = 3 and o.telegram_id = w.value"),
    (_PLAYERS, f"w.kind = 4 and o.player_id in ({_OWNERS})"),
)


def _of_each_kind(select: str) -> str:
    return " union all ".join(
        f"({select.format(where=f'{where} where o.tenant = %(tenant)s and {having}')})" for where, having in _HAVING
    )


_LEADS: Final = _of_each_kind(
    "select o.player_id from {where} and o.external_id is null"
    " and o.brand_id in (w.brand_id, '') order by o.brand_id = '', o.player_id limit 1"
)
#: What a lead brings along is kept apart, so that it holds wherever the source says nothing.
_BROUGHT: Final = (
    *("telegram_id", "username", "first_name", "last_name", "country", "language", "gender"),
    *("date_of_birth", "kyc_status", "affiliate_id", "affiliate_str", "email_disabled", "sms_disabled"),
    *("push_disabled", "calls_disabled", "created_at", "traits"),
)
_CLAIM: Final = f"""
    with wanted as (
        select distinct brand_id, kind, network, value from pg_temp.stage_contacts where arrives
    ), leads as materialized (
        select w.*, o.player_id from wanted w cross join lateral ({_LEADS}) o
    ), matched as (
        select distinct on (c.brand_id, c.external_id) c.brand_id, c.external_id, kind, l.player_id
        from pg_temp.stage_contacts c join leads l using (brand_id, kind, network, value)
        where c.arrives order by c.brand_id, c.external_id, kind, l.player_id
    ), chosen as (
        select distinct on (player_id) * from matched order by player_id, kind, brand_id, external_id
    ), claimed as (
        update crm.players p set brand_id = c.brand_id, external_id = c.external_id, is_stub = true, lead =
            jsonb_strip_nulls(jsonb_build_object({", ".join(f"'{name}', p.{name}" for name in _BROUGHT)}))
        from chosen c where c.player_id = p.player_id
        returning p.player_id
    )
    update crm.player_contacts k set lead_email = email, lead_phone = phone, lead_email_match = email_match,
        lead_phone_match = phone_match
    from claimed c where c.player_id = k.player_id
"""
_OTHER: Final = _of_each_kind("select from {where} and o.external_id <> w.external_id limit 1")
_EARLIEST: Final = _of_each_kind(
    "select o.external_id, (array_agg(o.player_id order by o.created_at, o.player_id))[1] as player_id,"
    " coalesce(min(o.created_at), 'infinity') as since from {where} and o.external_id is not null"
    " group by o.external_id order by since, player_id limit 2"
)
#: The ids that had the contact before this page: of two or more, each account has been told already.
_BEFORE: Final = _of_each_kind(
    "select o.external_id from {where} and o.external_id is not null and not exists ("
    "select from pg_temp.stage_contacts t where (t.kind, t.network, t.value) = (w.kind, w.network, w.value)"
    " and t.brand_id = o.brand_id and t.external_id = o.external_id) group by o.external_id limit 2"
)
_ALONE: Final = _of_each_kind("select o.brand_id, o.external_id from {where} and o.external_id = w.alone")
#: An account is told from the earliest other one with its contact: a number that thousands share makes no more rows.
#: Asked about are those of the page, and those of the one id that was alone with it until now.
_RAISE: Final = f"""
    with shared as materialized (
        select w.* from pg_temp.stage_contacts w cross join lateral ({_OTHER}) o
    ), contacts as materialized (
        select distinct kind, network, value from shared
    ), earliest as materialized (
        select w.*, o.* from contacts w cross join lateral ({_EARLIEST}) o
    ), alone as materialized (
        select w.*, min(o.external_id) as alone from contacts w cross join lateral ({_BEFORE}) o
        group by w.kind, w.network, w.value having count(*) = 1
    ), asked as materialized (
        select brand_id, external_id, kind, network, value from shared
        union select o.brand_id, o.external_id, w.kind, w.network, w.value from alone w cross join lateral ({_ALONE}) o
    ), pairs as (
        select distinct on (w.kind, w.network, w.value, o.player_id) w.kind, o.player_id, e.player_id as other_id,
               (coalesce(o.created_at, 'infinity'), o.player_id) > (e.since, e.player_id) as later
        from asked w
        join crm.players o on o.tenant = %(tenant)s and o.brand_id = w.brand_id and o.external_id = w.external_id
        left join crm.player_contacts k on k.player_id = o.player_id
        join earliest e on (e.kind, e.network, e.value) = (w.kind, w.network, w.value)
            and e.external_id <> o.external_id
        where {" or ".join(f"({having})" for _, having in _HAVING)}
        order by w.kind, w.network, w.value, o.player_id, e.since, e.player_id
    ), raised as (
        insert into crm.player_conflicts (player_id, other_id, matched_by)
        select distinct on (least(player_id, other_id), greatest(player_id, other_id))
               case when later then player_id else other_id end, case when later then other_id else player_id end,
               (%(kinds)s::text[])[kind]
        from pairs n
        where not exists (select from crm.player_conflicts k where (k.player_id, k.other_id)
                          in ((n.player_id, n.other_id), (n.other_id, n.player_id)))
        order by least(player_id, other_id), greatest(player_id, other_id), kind
        returning player_id
    )
    select player_id from raised
"""
_OPEN: Final = """
    select c.player_id, p.brand_id, p.external_id, p.status, c.other_id, o.brand_id as other_brand_id,
           o.external_id as other_external_id, c.matched_by, c.found_at
    from crm.player_conflicts c join crm.players p using (player_id) join crm.players o on o.player_id = c.other_id
    where p.tenant = %s and c.resolved_at is null order by c.found_at, c.player_id, c.other_id
"""
_FREED: Final = """
    update crm.players p set status = 'active' where player_id = %s and status = 'conflict'
      and not exists (select from crm.player_conflicts c where c.player_id = p.player_id and c.resolved_at is null)
    returning player_id
"""


def claim(connection: psycopg.Connection[Any], tenant: str, *, wallets: bool) -> None:
    """Note the staged profiles' new contacts, and give leads with one of them the account's brand and id.

    Before the profiles are written: a claimed lead keeps its `player_id`. Only an account without any row claims one: a
    stub has events of its own, and two rows are not made one, so there the lead stays a lead.
    """
    values = {"tenant": tenant}
    connection.execute(_STAGE)
    connection.execute(_CONTACTS, values)
    if wallets:
        connection.execute(_WALLET_CONTACTS, values)
    leads = connection.execute(
        "select from crm.players where tenant = %s and external_id is null limit 1", (tenant,)
    ).fetchone()
    if leads is not None:
        connection.execute(_CLAIM, values)


def keep_wallets(connection: psycopg.Connection[Any], tenant: str, *, production: bool) -> None:
    """Store the wallets of the staged profiles, after those are written; what a profile no longer lists goes.

    As there, a profile of another reader than the production one says nothing where a newer one is known.
    """
    values = {"tenant": tenant, "production": production}
    newest = "(%(production)s or s.source_updated_at is not distinct from p.source_updated_at)"
    mine = f"from pg_temp.stage_profiles s {_MINE} where p.player_id is not null and s.wallets is not null and {newest}"
    connection.execute(
        f"delete from crm.player_wallets k using (select p.player_id, s.wallets {mine}) m"
        " where k.player_id = m.player_id and not m.wallets"
        " @> jsonb_build_array(jsonb_build_object('network', k.network, 'address', k.address))",
        values,
    )
    connection.execute(
        f"insert into crm.player_wallets select %(tenant)s, w.network, w.address, m.player_id"
        f" from (select p.player_id, s.wallets {mine}) m"
        " cross join lateral jsonb_to_recordset(m.wallets) as w (network text, address text) on conflict do nothing",
        values,
    )


def raise_conflicts(connection: psycopg.Connection[Any], tenant: str) -> list[int]:
    """Note accounts of other ids that have a staged contact too; returns those that bear status conflict since now.

    After the profiles are written. A pair that was noted before, answered or not, is left as it is.
    """
    raised = connection.execute(_RAISE, {"tenant": tenant, "kinds": list(KINDS)}).fetchall()
    connection.execute("delete from pg_temp.stage_contacts")
    if not raised:
        return []
    later = connection.execute(
        "update crm.players set status = 'conflict' where player_id = any(%s) and status = 'active'"
        " returning player_id",
        ([player_id for (player_id,) in raised],),
    ).fetchall()
    return [player_id for (player_id,) in later]


def conflicts(connection: psycopg.Connection[Any], tenant: str) -> list[dict[str, Any]]:
    """Return what waits for an answer: ids and brands of both accounts, and what they share. Nothing personal."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_OPEN, (tenant,)).fetchall()


def answer(connection: psycopg.Connection[Any], tenant: str, one: int, other: int, resolution: str) -> bool:
    """Record a person's answer; both accounts stay. Returns whether a status was given back.

    Raises Misconfigured for two players that are in no open conflict.
    """
    with connection.transaction():
        ordered(connection)
        answered = connection.execute(
            """
            update crm.player_conflicts c set resolved_at = now(), resolution = %s from crm.players p
            where p.player_id = c.player_id and p.tenant = %s and c.resolved_at is null
              and (c.player_id, c.other_id) in ((%s, %s), (%s, %s)) returning c.player_id
            """,
            (resolution, tenant, one, other, other, one),
        ).fetchone()
        if answered is None:
            raise Misconfigured(
                f"players {one} and {other} are in no open conflict", hint="`connector players conflicts` lists them"
            )
        freed = connection.execute(_FREED, answered).fetchall()
        players.mark(connection, [player_id for (player_id,) in freed], "profile")
    return bool(freed)


def answer_all(connection: psycopg.Connection[Any], player_id: int, resolution: str) -> None:
    """Answer for every open conflict of a player; whoever is in no other one has its status back, and is marked."""
    answered = connection.execute(
        "update crm.player_conflicts set resolved_at = now(), resolution = %s"
        " where resolved_at is null and %s in (player_id, other_id) returning player_id",
        (resolution, player_id),
    ).fetchall()
    freed = [row for later in answered if (row := connection.execute(_FREED, later).fetchone()) is not None]
    players.mark(connection, [player_id for (player_id,) in freed], "profile")


def player(connection: psycopg.Connection[Any], tenant: str, brand_id: str, external_id: str) -> dict[str, Any] | None:
    """Return the row of one account with its contacts as they are stored, None where there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select p.*, k.email, k.phone, k.lead_email, k.lead_phone"
            " from crm.players p left join crm.player_contacts k using (player_id)"
            " where (p.tenant, p.brand_id, p.external_id) = (%s, %s, %s)",
            (tenant, brand_id, external_id),
        ).fetchone()


def player_id(connection: psycopg.Connection[Any], tenant: str, brand_id: str, external_id: str) -> int:
    """Return the store's number of an account. Raises Misconfigured where there is none."""
    row = connection.execute(
        "select player_id from crm.players where (tenant, brand_id, external_id) = (%s, %s, %s)",
        (tenant, brand_id, external_id),
    ).fetchone()
    if row is None:
        raise Misconfigured(
            f"brand {brand_id} has no player {external_id}", hint="ids are compared as they are written"
        )
    return int(row[0])
