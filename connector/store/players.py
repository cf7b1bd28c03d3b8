"""Players: resolved for events (unknown ones become stubs), marked when they change, judged by the clock.

Whether a player may be marketed to is a matter of status, tags and groups (`eligible`) and of the moment: an exclusion
or a break ends by itself. Inside THE transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import ACCOUNT
from connector.player import MarketingRules
from connector.store.copying import array
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    import psycopg

#: The rule: what a row `n` of players is at the instant `at`. Nothing else decides who is marketed to.
_EXCLUDED: Final = "(n.status = 'self_excluded' or coalesce(n.rg_self_excluded_until > %(at)s, false))"
RULE: Final = f"""
    {_EXCLUDED} as rg_self_excluded,
    n.eligible and not {_EXCLUDED} and not coalesce(n.cooling_off_until > %(at)s, false) as marketable
"""
#: What the rules say of tags and groups, wherever they come from.
LISTED: Final = (
    "(coalesce({tags} ?| %(excluded_tags)s::text[], false) or coalesce({groups} ?| %(excluded_groups)s::text[], false))"
)
_ELIGIBLE: Final = f"""
    not is_stub and coalesce(status_raw = any(%(statuses)s), false)
    and not {LISTED.format(tags="tags", groups="groups")} and not traits ? 'unreadable_exclusion'
"""
_MINE: Final = "player_id = any(%(player_ids)s)"
_JUDGE: Final = f"""
    with judged as (
        select n.player_id, n.eligible, n.marketable as was_marketable, j.*
        from ({{rows}}) n cross join lateral (select {RULE}) j
    )
    update crm.players p
    set eligible = j.eligible, marketable = j.marketable, rg_self_excluded = j.rg_self_excluded
    from judged j
    where j.player_id = p.player_id
      and (j.eligible, j.marketable, j.rg_self_excluded) <> (p.eligible, p.marketable, p.rg_self_excluded)
    returning p.player_id, j.was_marketable and not p.marketable
"""
_BY_TIME: Final = _JUDGE.format(rows=f"select * from crm.players where {_MINE}")
_TIMED: Final = "player_id, status, cooling_off_until, rg_self_excluded_until, marketable"
_BY_RULES: Final = f"select {_TIMED}, {_ELIGIBLE} as eligible from crm.players where {{which}}"
_KNOWN: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "player_id": pl.Int64,
    "player_currency": pl.String,
    "player_erased": pl.Boolean,
}
#: The player of a `row` (brand_id, external_id). The limit makes the planner look for each alone: while it takes the
#: table for empty it would read all of a tenant's players for a page, and keep that plan until autovacuum has come by.
OF: Final = """
    lateral (
        select * from crm.players
        where tenant = %(tenant)s and brand_id = {row}.brand_id and external_id = {row}.external_id limit 1
    )
"""
_RESOLVE: Final = f"""
    select p.player_id, p.default_currency_code, p.erased_at is not null
    from unnest(%(brands)s::text[], %(ids)s::text[]) with ordinality as w(brand_id, external_id, place)
    left join {OF.format(row="w")} p on true
    order by w.place
"""
_STUBS: Final = """
    insert into crm.players (tenant, brand_id, external_id, is_stub)
    select %s, brand_id, external_id, true from unnest(%s::text[], %s::text[]) as w(brand_id, external_id)
    on conflict do nothing
"""
_MARK: Final = """
    insert into crm.player_changes (player_id, reason) select unnest(%s::bigint[]), %s
    on conflict (player_id, reason) do update set change_seq = nextval('crm.change_seq'), changed_at = now()
"""


def resolve(connection: psycopg.Connection[Any], tenant: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with what `accounts` says of their players."""
    wanted = rows.select_seq(ACCOUNT).unique(maintain_order=True)
    known = pl.concat([wanted, accounts(connection, tenant, wanted)], how="horizontal")
    return rows.join(known, on=ACCOUNT, how="left", maintain_order="left")


def accounts(connection: psycopg.Connection[Any], tenant: str, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return `player_id`, `player_currency` and `player_erased` of accounts, which are distinct, in their order.

    Players never seen before become stubs.
    """
    known = _known(connection, tenant, wanted)
    if not known["player_id"].null_count():
        return known
    missing = wanted.filter(known["player_id"].is_null())
    connection.execute(_STUBS, (tenant, array(missing["brand_id"]), array(missing["external_id"])))
    return _known(connection, tenant, wanted)


def _known(connection: psycopg.Connection[Any], tenant: str, wanted: pl.DataFrame) -> pl.DataFrame:
    values = {"tenant": tenant, "brands": array(wanted["brand_id"]), "ids": array(wanted["external_id"])}
    rows = connection.execute(_RESOLVE, values).fetchall()
    return pl.DataFrame(rows, schema=_KNOWN, orient="row")


def mark(connection: psycopg.Connection[Any], player_ids: Iterable[int], reason: str) -> None:
    """Note for every destination that these players changed; `change_seq` follows commit order."""
    listed = list(player_ids)
    if listed:
        connection.execute(_MARK, (listed, reason))


def judge(connection: psycopg.Connection[Any], player_ids: Iterable[int], at: datetime) -> list[int]:
    """Judge players as of an instant, when time has passed an edge of theirs; returns those who changed, marked.

    The caller's transaction holds the store's lock (see database.ordered). Who may no longer be marketed to is marked
    as an exclusion too, which goes before everything else.
    """
    return _judged(connection, _BY_TIME, {"player_ids": list(player_ids), "at": at})


def judge_by_rules(
    connection: psycopg.Connection[Any], tenant: str, player_ids: Iterable[int], at: datetime
) -> list[int]:
    """Judge players anew whose tags or groups have changed; else as `judge`."""
    values = {**bound(rules_of(connection, tenant)), "player_ids": list(player_ids), "at": at}
    return _judged(connection, _JUDGE.format(rows=_BY_RULES.format(which=_MINE)), values)


def apply_rules(connection: psycopg.Connection[Any], tenant: str, rules: MarketingRules, at: datetime) -> int:
    """Judge every player anew when the marketing rules have changed since the last start; returns how many changed.

    Called at start, before the first page. Those who lose their marketing are sent at once.
    """
    written = rules.written()
    with connection.transaction():
        ordered(connection)
        row = connection.execute("select marketing_rules from crm.tenants where tenant = %s", (tenant,)).fetchone()
        if row is None or row[0] == written:
            return 0
        statement = _JUDGE.format(rows=_BY_RULES.format(which="tenant = %(tenant)s and not is_stub"))
        changed = _judged(connection, statement, {**bound(rules), "tenant": tenant, "at": at})
        connection.execute("update crm.tenants set marketing_rules = %s where tenant = %s", (written, tenant))
    return len(changed)


def rules_of(connection: psycopg.Connection[Any], tenant: str) -> MarketingRules | None:
    """Return the rules that the tenant's players are judged by, None before the first start."""
    row = connection.execute("select marketing_rules from crm.tenants where tenant = %s", (tenant,)).fetchone()
    return None if row is None or row[0] is None else MarketingRules.read(row[0])


def bound(rules: MarketingRules | None) -> dict[str, list[str]]:
    """Return the rules as parameters of the statements here; None excludes by no tag and no group."""
    rules = rules or MarketingRules()
    return {
        "statuses": sorted(rules.statuses),
        "excluded_tags": sorted(rules.excluded_tags),
        "excluded_groups": sorted(rules.excluded_groups),
    }


def _judged(connection: psycopg.Connection[Any], statement: str, values: dict[str, Any]) -> list[int]:
    changed = connection.execute(statement, values).fetchall()
    mark(connection, [player_id for player_id, _ in changed], "profile")
    mark(connection, [player_id for player_id, excluded in changed if excluded], "exclusion")
    return [player_id for player_id, _ in changed]
