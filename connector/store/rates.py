"""Rates on a timeline: written from a stream or a file, and the one that held when an event happened.

The latest rate at or before the event counts. A rate that is corrected holds for what is priced from then on: locked
amounts never change. A fixed rate wins over the timeline, and where all are fixed nobody looks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import AMOUNT, INSTANT
from connector.money import plain, valued
from connector.store.copying import copy_frame

if TYPE_CHECKING:
    import psycopg

    from connector.money import Rates

_STAGE: Final = """
    create temporary table if not exists stage_rates (currency text, valid_from timestamptz, rate numeric)
    on commit delete rows
"""
#: The one who told a rate first may correct it; what another origin says of the same instant is left alone.
_INSERT: Final = """
    insert into crm.fx_rates as r (tenant, base, currency, valid_from, rate, origin)
    select %s, %s, currency, valid_from, rate, %s from pg_temp.stage_rates order by currency, valid_from
    on conflict (tenant, base, currency, valid_from) do update set rate = excluded.rate
    where r.origin = excluded.origin and r.rate <> excluded.rate
"""
_TIMELINE: Final = """
    select r.currency, r.valid_from, r.rate::text
    from unnest(%(currencies)s::text[], %(first)s::timestamptz[], %(last)s::timestamptz[]) w(currency, first, last)
    cross join lateral (
        (select * from crm.fx_rates
         where tenant = %(tenant)s and base = %(base)s and currency = w.currency and valid_from <= w.first
         order by valid_from desc limit 1)
        union all
        select * from crm.fx_rates
        where tenant = %(tenant)s and base = %(base)s and currency = w.currency
          and valid_from > w.first and valid_from <= w.last
    ) r
"""
_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "currency": pl.String,
    "valid_from": INSTANT,
    "rate": pl.String,
}


def insert(connection: psycopg.Connection[Any], tenant: str, told: pl.DataFrame, rates: Rates, *, origin: str) -> int:
    """Write rates (see normalised.RATES) inside the caller's transaction; returns how many were new or corrected.

    Rates of another base are left out: they say nothing of this tenant's. So are those of the base and of play money.
    """
    useful = told.filter(
        pl.col("base").fill_null(rates.base) == rates.base,
        pl.col("currency") != rates.base,
        ~rates.is_play(pl.col("currency")),
    ).unique(["currency", "valid_from"], keep="last", maintain_order=True)
    if useful.is_empty():
        return 0
    connection.execute(_STAGE)
    rows = useful.select_seq("currency", "valid_from", plain(pl.col("rate")))
    copy_frame(connection, "pg_temp.stage_rates (currency, valid_from, rate)", rows)
    written = connection.execute(_INSERT, (tenant, rates.base, origin)).rowcount
    connection.execute("delete from pg_temp.stage_rates")
    return written


def known(connection: psycopg.Connection[Any], tenant: str, base: str) -> set[str]:
    """Return the currencies that have a rate at any time."""
    found = connection.execute(
        "select distinct currency from crm.fx_rates where tenant = %s and base = %s", (tenant, base)
    )
    return {currency for (currency,) in found}


def priced(connection: psycopg.Connection[Any], tenant: str, rows: pl.DataFrame, rates: Rates) -> pl.DataFrame:
    """Return rows (currency, occurred_at, native, native_stake) with play, rate, fx_rate_locked and base amounts.

    By the rates of their time; one query at most, whatever the number of rows.
    """
    rated = rated_at(connection, tenant, rows, rates)
    play = rates.is_play(pl.col("currency")).alias("play")
    return valued(rated.with_columns_seq(play, fx_rate_locked=plain(pl.col("rate"))), rates)


def rated_at(
    connection: psycopg.Connection[Any], tenant: str, rows: pl.DataFrame, rates: Rates, *, at: str = "occurred_at"
) -> pl.DataFrame:
    """Return rows with the `rate` of their currency at an instant, null where there is none."""
    rated = rows.with_columns_seq(rate=rates.expression(pl.col("currency")))
    constant = [*rates.constant, *rates.play]
    wanted = rated.filter(pl.col("currency").is_not_null() & ~pl.col("currency").is_in(constant))
    if wanted.is_empty():
        return rated
    timeline = _timeline(connection, tenant, rates.base, wanted, at)
    if timeline.is_empty():
        return rated
    found = (
        rated.with_row_index("ordinal")
        .select_seq("ordinal", "currency", at)
        .sort(at)
        .join_asof(timeline, left_on=at, right_on="valid_from", by="currency", check_sortedness=False)
        .sort("ordinal")
    )
    return rated.with_columns_seq(rate=pl.coalesce(rated["rate"], found["rate"]))


def _timeline(
    connection: psycopg.Connection[Any], tenant: str, base: str, wanted: pl.DataFrame, at: str
) -> pl.DataFrame:
    """Return what holds between each currency's first and last row, ordered by time."""
    spans = wanted.group_by("currency").agg(first=pl.col(at).min(), last=pl.col(at).max())
    listed = {"currencies": spans["currency"], "first": spans["first"], "last": spans["last"]}
    values = {"tenant": tenant, "base": base, **{name: column.to_list() for name, column in listed.items()}}
    found = pl.DataFrame(connection.execute(_TIMELINE, values).fetchall(), schema=_SCHEMA, orient="row")
    return found.with_columns_seq(pl.col("rate").cast(AMOUNT)).sort("valid_from")
