"""Profiles into players: one statement a page, whatever it brings. Inside THE transaction.

What a row of players becomes is written once, as an expression for every column: over what the page says, and over
what was there; e-mail and phone likewise, in a table of their own. A null of the source clears a column, with these
exceptions: the end of a self-exclusion, a wallet's currency, tags and groups of a view that has none, and what a lead
brought along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector import contacts, player
from connector.event import ACCOUNT
from connector.store import edges, identities, player_contacts, players
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    import psycopg

    from connector.contacts import Keys

_MATCHES: Final = tuple(f"{kind}_match" for kind in contacts.KINDS)
_STAGED: Final = (*(name for name in player.PROFILES if name not in ("cursor", "history")), *_MATCHES)
_TYPES: Final[dict[pl.DataType | type[pl.DataType], str]] = {pl.Boolean: "boolean", pl.String: "text"}
_JSON: Final = ("tags", "groups", "traits", "wallets")


def _sql_type(name: str) -> str:
    return "jsonb" if name in _JSON else _TYPES.get(player.PROFILES.get(name, pl.String), "timestamptz")


_STAGE: Final = (
    "create temporary table if not exists stage_profiles ("
    + ", ".join(f"{name} {_sql_type(name)}" for name in _STAGED)
    + ") on commit delete rows"
)
#: Consent -> the flag that withholds it.
_CONSENTS: Final = {
    "email": "email_disabled",
    "sms": "sms_disabled",
    "push": "push_disabled",
    "phone": "calls_disabled",
}
_STAMP: Final = """to_char(s.source_updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
#: What says so: the operator's own word where the view has a column consent_basis (`extra`), else the column itself.
_CONSENT: Final = """
    case when s.{flag} is not null and (p.consents -> '{kind}' -> 'granted')::boolean is distinct from not s.{flag}
    then jsonb_build_object('{kind}', jsonb_build_object(
        'granted', not s.{flag}, 'changed_at', {stamp}, 'basis', coalesce(s.traits ->> 'consent_basis', '{flag}'),
        'version', coalesce((p.consents #>> '{{{kind},version}}')::integer, (p.consents ? '{kind}')::integer, 0) + 1))
    else '{{}}' end
"""
_ANONYMOUS: Final = "s.traits ->> 'anonymous_id'"
#: players column -> what it becomes, where that is more than what the page says.
_NEXT: Final = {
    "status": "case when s.status = 'active' and exists (select from crm.player_conflicts c"
    " where c.player_id = p.player_id and c.resolved_at is null) then 'conflict' else s.status end",
    "status_raw": "s.status_raw",
    "eligible": "s.eligible and not "
    + players.LISTED.format(tags="coalesce(s.tags, p.tags)", groups="coalesce(s.groups, p.groups)"),
    "cooling_off_until": "s.cooling_off_until",
    "rg_self_excluded_until": "coalesce(s.rg_self_excluded_until, p.rg_self_excluded_until)",
    "last_login_at": "greatest(s.last_login_at, p.last_login_at)",
    "default_currency_code": "coalesce(p.default_currency_code, s.default_currency_code)",
    "tags": "coalesce(s.tags, p.tags)",
    "groups": "coalesce(s.groups, p.groups)",
    "traits": "coalesce(p.lead -> 'traits', '{}') || s.traits",
    "source_updated_at": "s.source_updated_at",
    "tags_in_profile": "s.tags is not null",
    "groups_in_profile": "s.groups is not null",
    "consents": "coalesce(p.consents, '{}')"
    + "".join(f" || {_CONSENT.format(kind=kind, flag=flag, stamp=_STAMP).strip()}" for kind, flag in _CONSENTS.items()),
    "anonymous_ids": f"case when {_ANONYMOUS} = any(p.anonymous_ids) or {_ANONYMOUS} is null"
    f" then coalesce(p.anonymous_ids, '{{}}') else coalesce(p.anonymous_ids, '{{}}') || ({_ANONYMOUS}) end",
}
#: Profile column -> players column, where they differ.
_RENAMED: Final = {"registered_at": "created_at"}
for _name in _STAGED:
    _column = _RENAMED.get(_name, _name)
    if _name not in (*ACCOUNT, *_NEXT, "wallets", *contacts.KINDS, *_MATCHES):
        _NEXT[_column] = f"coalesce(s.{_name}, (p.lead ->> '{_column}')::{_sql_type(_name)})"
#: player_contacts column -> what it becomes; the match goes with its contact.
_REACHED: Final = {
    **{kind: f"coalesce(s.{kind}, k.lead_{kind})" for kind in contacts.KINDS},
    **{
        f"{kind}_match": f"case when s.{kind} is null then k.lead_{kind}_match else s.{kind}_match end"
        for kind in contacts.KINDS
    },
}
_JUDGED: Final = ("marketable", "rg_self_excluded")
#: What a destination or a segment can't see moves alone when a user is only touched.
_VISIBLE: Final = (*(name for name in _NEXT if name not in ("source_updated_at", "eligible")), *_JUDGED)
_WRITTEN: Final = (*ACCOUNT, *_NEXT, *_JUDGED)


def _of(row: str, names: Iterable[str]) -> str:
    return ", ".join(f"{row}.{name}" for name in names)


_UPSERT: Final = f"""
    with judged as materialized (
        select s.brand_id, s.external_id, n.*, c.*, j.*, p.player_id is not null as known, p.status as old_status,
               p.kyc_status as old_kyc_status, coalesce(p.is_stub, false) as old_is_stub,
               p.consents as old_consents,
               p.last_login_at as old_last_login_at, p.rg_self_excluded_until as old_rg_self_excluded_until,
               coalesce(p.marketable, true) and not j.marketable as lost,
               p.player_id is null or p.is_stub or ({_of("p", _VISIBLE)})
                   is distinct from ({", ".join(f"{'j' if name in _JUDGED else 'n'}.{name}" for name in _VISIBLE)})
                   or ({_of("k", contacts.KINDS)}) is distinct from ({_of("c", contacts.KINDS)}) as differs,
               ({_of("k", _REACHED)}) is distinct from ({_of("c", _REACHED)}) as moved,
               s.source_updated_at is distinct from p.source_updated_at as touched,
               coalesce(s.source_updated_at < p.source_updated_at, false) and not %(production)s as older,
               p.player_id is not null and p.default_currency_code is null
                   and s.default_currency_code is not null as paid,
               coalesce(greatest(n.cooling_off_until, n.rg_self_excluded_until) > %(at)s, false) as ends
        from pg_temp.stage_profiles s
        left join {players.OF.format(row="s")} p on true
        left join crm.player_contacts k on k.player_id = p.player_id
        cross join lateral (select {", ".join(f"{said} as {name}" for name, said in _NEXT.items())} offset 0) n
        cross join lateral (select {", ".join(f"{said} as {name}" for name, said in _REACHED.items())} offset 0) c
        cross join lateral (select {players.RULE}) j
    ), written as (
        insert into crm.players (tenant, {", ".join(_WRITTEN)})
        select %(tenant)s, {", ".join(_WRITTEN)} from judged where (touched or differs) and not older
        order by brand_id, external_id
        on conflict (tenant, brand_id, external_id) do update set
            {", ".join(f"{name} = excluded.{name}" for name in (*_NEXT, *_JUDGED))}, is_stub = false
        returning player_id, brand_id, external_id
    ), superseded as (
        insert into crm.player_consents (player_id, tenant, kind, version, granted, basis, changed_at)
        select w.player_id, %(tenant)s, old.kind, coalesce((old.said ->> 'version')::integer, 1),
               (old.said ->> 'granted')::boolean, coalesce(old.said ->> 'basis', 'user_profile'),
               (old.said ->> 'changed_at')::timestamptz
        from judged j join written w using (brand_id, external_id)
        cross join lateral jsonb_each(j.old_consents) as old (kind, said)
        where j.old_consents <> j.consents and old.said <> j.consents -> old.kind
        on conflict do nothing
    ), reached as (
        insert into crm.player_contacts (player_id, tenant, {", ".join(_REACHED)})
        select w.player_id, %(tenant)s, {", ".join(f"j.{name}" for name in _REACHED)}
        from judged j join written w using (brand_id, external_id) where j.moved order by w.player_id
        on conflict (player_id) do update set {", ".join(f"{name} = excluded.{name}" for name in _REACHED)}
    )
    select w.player_id, brand_id, external_id, j.known, j.old_status, j.old_kyc_status, j.old_is_stub,
           j.old_last_login_at, j.old_rg_self_excluded_until, j.differs, j.lost, j.paid, j.ends
    from judged j join written w using (brand_id, external_id)
"""
#: Who was erased stays so: of what comes again, only that it was seen is noted (audits compare that).
_BURY: Final = """
    with buried as (
        delete from pg_temp.stage_profiles s using crm.players p
        where p.tenant = %(tenant)s and p.brand_id = s.brand_id and p.external_id = s.external_id
          and p.erased_at is not null
        returning p.player_id, s.brand_id, s.external_id, s.source_updated_at
    ), seen as (
        update crm.players p set source_updated_at = b.source_updated_at from buried b
        where p.player_id = b.player_id and p.source_updated_at is distinct from b.source_updated_at
          and (%(production)s or p.source_updated_at is null or b.source_updated_at > p.source_updated_at)
    )
    select brand_id, external_id from buried
"""
_OLD: Final = tuple(name for name in player.BEFORE if name not in ACCOUNT)
_BURIED: Final = dict.fromkeys(ACCOUNT, pl.String)
_RETURNED: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "player_id": pl.Int64,
    **dict.fromkeys(ACCOUNT, pl.String),
    "known": pl.Boolean,
    **{f"old_{name}": player.BEFORE[name] for name in _OLD},
    **dict.fromkeys(("differs", "lost", "paid", "ends"), pl.Boolean),
}


@dataclass(frozen=True)
class Upserted:
    """What a page of profiles did.

    `profiles` are the page's without those of erased accounts, `before` the state of the players that existed (see
    player.changes), `paid` those whose currency is known since this page: what waited for it can be counted.
    """

    profiles: pl.DataFrame
    before: pl.DataFrame
    changed: int
    paid: Sequence[int]


def upsert(
    connection: psycopg.Connection[Any],
    tenant: str,
    profiles: pl.DataFrame,
    *,
    production: bool,
    at: datetime,
    keys: Keys | None = None,
) -> Upserted:
    """Bring players up to date from profiles, judged as of `at`, and mark what destinations can see.

    With `keys` contacts are encrypted here, before anything is sent to the store.

    The production reader's rows win: it read them in the later snapshot, whatever their `dt_update`. Another reader
    (backfill, retry) never overwrites a newer `dt_update`. Idempotent: an unchanged player is not marked.
    """
    latest = profiles.unique([*ACCOUNT], keep="last", maintain_order=True)
    staged = contacts.staged(latest, tenant, keys)
    connection.execute(_STAGE)
    copy_frame(connection, f"pg_temp.stage_profiles ({', '.join(_STAGED)})", staged.select_seq(_STAGED))
    rules = players.bound(players.rules_of(connection, tenant))
    values = {**rules, "tenant": tenant, "production": production, "at": at}
    buried = connection.execute(_BURY, values).fetchall()
    if keys is not None:
        player_contacts.renew(connection, tenant, latest, keys)
    wallets = bool(latest["wallets"].is_not_null().any())
    identities.claim(connection, tenant, wallets=wallets)
    rows = connection.execute(_UPSERT, values).fetchall()
    judged = pl.DataFrame(rows, schema=_RETURNED, orient="row")
    if wallets:
        identities.keep_wallets(connection, tenant, production=production)
    conflicts = identities.raise_conflicts(connection, tenant)
    connection.execute("delete from pg_temp.stage_profiles")
    changed = judged.filter("differs")
    players.mark(connection, {*changed["player_id"], *conflicts}, "profile")
    players.mark(connection, changed.filter("lost")["player_id"], "exclusion")
    edges.expect_ends(connection, judged.filter("ends")["player_id"].to_list(), at)
    before = judged.filter("known").rename({f"old_{name}": name for name in _OLD}).select_seq(list(player.BEFORE))
    alive = profiles.join(pl.DataFrame(buried, schema=_BURIED, orient="row"), on=ACCOUNT, how="anti")
    return Upserted(alive, before, changed.height, judged.filter("paid")["player_id"].to_list())
