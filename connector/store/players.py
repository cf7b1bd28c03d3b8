"""Players: resolved for events (unknown ones become stubs), brought up to date by profiles. Inside THE transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector import player
from connector.store.copying import copy_frame
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

#: Profile column -> players column, where they differ.
_RENAMED: Final = {"registered_at": "created_at"}
_IDENTITY: Final = ["brand_id", "external_id"]
_NOT_STORED: Final = ("cursor", "history")
_STORED: Final = tuple(name for name in player.PROFILES if name not in _NOT_STORED)
_TYPES: Final[dict[pl.DataType | type[pl.DataType], str]] = {pl.Boolean: "boolean", pl.String: "text"}
_JSON: Final = ("tags", "groups", "traits")


def _sql_type(name: str) -> str:
    if name in _JSON:
        return "jsonb"
    return _TYPES.get(player.PROFILES[name], "timestamptz")


def _column(name: str) -> str:
    return _RENAMED.get(name, name)


#: What a destination or a segment can see; source_updated_at moves alone when a user is only touched.
_VISIBLE: Final = tuple(name for name in _STORED if name not in ("brand_id", "external_id", "source_updated_at"))
_STAGE: Final = (
    "create temporary table if not exists stage_profiles ("
    + ", ".join(f"{name} {_sql_type(name)}" for name in _STORED)
    + ") on commit delete rows"
)
#: A wallet's currency is chosen once: the first one stays.
_NEXT: Final = {"default_currency_code": "coalesce(p.default_currency_code, s.default_currency_code)"}
_REPLACED: Final = tuple(name for name in _STORED if name not in (*_IDENTITY, *_NEXT))
_BEFORE: Final = f"""
    select p.player_id, p.brand_id, p.external_id, p.status, p.kyc_status, p.is_stub, p.marketable,
           s.marketable, s.source_updated_at is distinct from p.source_updated_at,
           (p.is_stub or ({", ".join(f"p.{_column(name)}" for name in _VISIBLE)})
               is distinct from ({", ".join(_NEXT.get(name, f"s.{name}") for name in _VISIBLE)})),
           coalesce(s.source_updated_at < p.source_updated_at, false),
           p.default_currency_code is null and s.default_currency_code is not null
    from pg_temp.stage_profiles s
    join crm.players p on p.tenant = %(tenant)s and p.brand_id = s.brand_id and p.external_id = s.external_id
"""
_UPSERT: Final = f"""
    insert into crm.players as p (tenant, {", ".join(_column(name) for name in _STORED)})
    select %(tenant)s, {", ".join(f"s.{name}" for name in _STORED)} from pg_temp.stage_profiles s
    where not exists (
        select from unnest(%(skip_brands)s::text[], %(skip_ids)s::text[]) k(brand_id, external_id)
        where k.brand_id = s.brand_id and k.external_id = s.external_id)
    order by s.brand_id, s.external_id
    on conflict (tenant, brand_id, external_id) do update set
        {", ".join(f"{_column(name)} = excluded.{_column(name)}" for name in _REPLACED)},
        default_currency_code = coalesce(p.default_currency_code, excluded.default_currency_code),
        is_stub = false
    returning player_id, brand_id, external_id
"""
_JUDGE: Final = """
    with judged as (
        select player_id, coalesce(status_raw = any(%(statuses)s), false)
            and not coalesce(tags ?| %(tags)s::text[], false) and not coalesce(groups ?| %(groups)s::text[], false)
            and not traits ? 'unreadable_exclusion'
            and coalesce((traits ->> 'cooling_off_until')::timestamptz <= now(), true) as now
        from crm.players where tenant = %(tenant)s and not is_stub
    )
    update crm.players p set marketable = j.now from judged j
    where j.player_id = p.player_id and j.now <> p.marketable
    returning p.player_id, p.marketable
"""
_RESOLVE: Final = """
    select p.player_id, p.brand_id, p.external_id, p.default_currency_code
    from unnest(%s::text[], %s::text[]) as w(brand_id, external_id)
    join crm.players p on p.tenant = %s and p.brand_id = w.brand_id and p.external_id = w.external_id
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


@dataclass(frozen=True)
class Upserted:
    """What a page of profiles did.

    `before` is the state of the players that existed (see player.changes), `paid` are those whose currency is known
    since this page: what waited for it can be counted.
    """

    before: pl.DataFrame
    changed: int
    paid: Sequence[int]


def resolve(connection: psycopg.Connection[Any], tenant: str, events: pl.DataFrame) -> pl.DataFrame:
    """Return events with `player_id` and `player_currency`; players never seen before become stubs."""
    wanted = events.select(_IDENTITY).unique(maintain_order=True)
    known = _known(connection, tenant, wanted)
    if known.height < wanted.height:
        missing = wanted.join(known, on=_IDENTITY, how="anti")
        connection.execute(_STUBS, (tenant, missing["brand_id"].to_list(), missing["external_id"].to_list()))
        known = pl.concat([known, _known(connection, tenant, missing)])
    return events.join(known, on=_IDENTITY, how="left", maintain_order="left")


def upsert(connection: psycopg.Connection[Any], tenant: str, profiles: pl.DataFrame, *, production: bool) -> Upserted:
    """Bring players up to date from profiles and mark what destinations can see.

    The production reader's rows win: it read them in the later snapshot, whatever their `dt_update`. Another reader
    (backfill, retry) never overwrites a newer `dt_update`. Idempotent: an unchanged player is not marked.
    """
    latest = profiles.unique(_IDENTITY, keep="last", maintain_order=True)
    connection.execute(_STAGE)
    copy_frame(connection, f"pg_temp.stage_profiles ({', '.join(_STORED)})", latest.select(_STORED))
    before = _before(connection, tenant)
    stale = before.filter((~pl.col("touched") & ~pl.col("differs")) | (pl.col("older") & (not production)))
    written = connection.execute(
        _UPSERT,
        {"tenant": tenant, "skip_brands": stale["brand_id"].to_list(), "skip_ids": stale["external_id"].to_list()},
    ).fetchall()
    connection.execute("delete from pg_temp.stage_profiles")
    ids = pl.DataFrame(
        written, schema={"player_id": pl.Int64, "brand_id": pl.String, "external_id": pl.String}, orient="row"
    )
    judged = ids.join(before.drop("player_id"), on=_IDENTITY, how="left")
    changed = judged.filter(pl.col("differs").fill_null(value=True))
    excluded = changed.filter(
        pl.col("marketable").fill_null(value=True) & ~pl.col("now_marketable").fill_null(value=True)
    )
    mark(connection, changed["player_id"], "profile")
    mark(connection, excluded["player_id"], "exclusion")
    current = before.join(stale, on=_IDENTITY, how="anti")
    return Upserted(current, changed.height, judged.filter("paid")["player_id"].to_list())


def mark(connection: psycopg.Connection[Any], player_ids: Iterable[int], reason: str) -> None:
    """Note for every destination that these players changed; `change_seq` follows commit order."""
    listed = list(player_ids)
    if listed:
        connection.execute(_MARK, (listed, reason))


def _known(connection: psycopg.Connection[Any], tenant: str, wanted: pl.DataFrame) -> pl.DataFrame:
    rows = connection.execute(
        _RESOLVE, (wanted["brand_id"].to_list(), wanted["external_id"].to_list(), tenant)
    ).fetchall()
    schema = {"player_id": pl.Int64, "brand_id": pl.String, "external_id": pl.String, "player_currency": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _before(connection: psycopg.Connection[Any], tenant: str) -> pl.DataFrame:
    schema = {
        "player_id": pl.Int64,
        "brand_id": pl.String,
        "external_id": pl.String,
        "status": pl.String,
        "kyc_status": pl.String,
        **dict.fromkeys(("is_stub", "marketable", "now_marketable", "touched", "differs", "older", "paid"), pl.Boolean),
    }
    return pl.DataFrame(connection.execute(_BEFORE, {"tenant": tenant}).fetchall(), schema=schema, orient="row")


def apply_rules(connection: psycopg.Connection[Any], tenant: str, rules: player.MarketingRules) -> int:
    """Judge every player anew when the marketing rules have changed since the last start; returns how many changed.

    Called at start, before the first page. Those who lose their marketing are sent at once.
    """
    written = rules.written()
    with connection.transaction():
        ordered(connection)
        row = connection.execute("select marketing_rules from crm.tenants where tenant = %s", (tenant,)).fetchone()
        if row is None or row[0] == written:
            return 0
        values = {"tenant": tenant, "statuses": sorted(rules.statuses)}
        values |= {"tags": sorted(rules.excluded_tags), "groups": sorted(rules.excluded_groups)}
        changed = connection.execute(_JUDGE, values).fetchall()
        mark(connection, [player_id for player_id, _ in changed], "profile")
        mark(connection, [player_id for player_id, now in changed if not now], "exclusion")
        connection.execute("update crm.tenants set marketing_rules = %s where tenant = %s", (written, tenant))
    return len(changed)
