"""Rows/s: casino bets end to end, `COPY | COPY` into a table like the ledger, and into a bare one."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg

from connector import clock, config, opening, poller
from connector.cycle import Cycle
from connector.metrics import Metrics
from connector.money import Rates
from connector.player import MarketingRules
from connector.store import database
from connector.streams import STREAMS

if TYPE_CHECKING:
    from connector.demo.casino import Casino
    from connector.store.embedded import Server

#: The ledger's columns and indexes, and the same rows with neither. The view's rows are cut to what both can hold.
_REFERENCE = """
    create table bench_reference (like crm.event_rows including defaults);
    create unique index on bench_reference (seq);
    create unique index on bench_reference (stream_id, key, name_id);
    create index on bench_reference using brin (stream_id, mark int8_minmax_multi_ops);
"""
_READ = """
    copy (select user_ext_id, bet_date, 100, 1, case type when 'bet' then 1 else 2 end, 3, true, id, null, currency,
                 coalesce(bet_amount, win_amount), 1, null, null, id,
                 jsonb_strip_nulls(jsonb_build_object('bet_id', bet_id, 'game_id', game_id, 'game_name', game_name,
                   'game_category', game_category, 'game_provider', game_provider))
          from {view} order by id) to stdout (format csv)
"""
_COLUMNS = (
    "player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, transaction_id, currency, amount,"
    " fx_rate_locked, stake, stake_base, mark, properties"
)
_BARE = "create table bench_bare (like crm.event_rows including defaults)"


def measure(casino: Casino, store: Server, bets: int) -> dict[str, float]:
    """Return rows/s of the three, and the ratio of the first to the second."""
    store_url = store.create_database("bench")
    settings = _settings(casino, store_url)
    opened = database.Database(store_url)
    database.migrate(opened)
    end_to_end = _end_to_end(settings, opened, bets)
    print(f"end to end:            {end_to_end:>10,.0f} rows/s")
    reference = _copy(casino, store_url, _REFERENCE, "bench_reference", bets)
    print(f"COPY | COPY reference: {reference:>10,.0f} rows/s (columns and indexes of the ledger)")
    bare = _copy(casino, store_url, _BARE, "bench_bare", bets)
    print(f"COPY | COPY bare:      {bare:>10,.0f} rows/s (no index)")
    print(f"ratio to reference:    {end_to_end / reference:>10.2f}")
    return {"rows_per_second": end_to_end, "reference": reference, "bare": bare, "ratio": end_to_end / reference}


def _settings(casino: Casino, store_url: str) -> config.Config:
    streams = {"user_profile": {"view": casino.views["user_profile"]}}
    streams["casino_bets"] = {"view": casino.views["casino_bets"], "start": "beginning"}
    source: dict[str, Any] = {"name": "bench", "url": casino.url, "streams": streams}
    return config.parse({"tenant": "bench", "store": {"url": store_url}, "sources": [source]})


def _end_to_end(settings: config.Config, opened: database.Database, bets: int) -> float:
    """Users first, unmeasured, so that bets meet their players as they do in life; then every bet, timed."""
    with opened.connect() as connection:
        connection.execute("insert into crm.tenants values ('bench', 'EUR')")
    rates = Rates("EUR", {"GBP": Decimal("1.17"), "TRX": Decimal("0.25"), "BTC": Decimal(60_000)})
    cycle = Cycle("bench", settings.sources[0], opened, rates, MarketingRules(), Metrics())
    desk = cycle.sit_down()
    assert desk is not None
    users, casino_bets = cycle.slots
    sample = desk.reader.sample()
    for slot in (users, casino_bets):
        slot.stream = opening.open_stream(desk, STREAMS[slot.name], slot.settings, sample)
    while poller.tick(desk, users.stream, sample, horizon=None).more:  # type: ignore[arg-type]
        pass
    started, rows = clock.monotonic(), 0
    for tick in poller.ticks(desk, casino_bets.stream, sample, horizon=None, most=bets):  # type: ignore[arg-type]
        rows += tick.rows
    elapsed = clock.monotonic() - started
    cycle.close()
    assert rows == bets, (rows, bets)
    return rows / elapsed


def _copy(casino: Casino, store_url: str, ddl: str, table: str, bets: int) -> float:
    with psycopg.connect(casino.admin_url) as reader, psycopg.connect(store_url) as writer:
        writer.execute(ddl)
        writer.commit()
        started = clock.monotonic()
        statement = _READ.format(view=casino.views["casino_bets"])
        with (
            reader.cursor().copy(statement) as source,
            writer.cursor().copy(f"copy {table} ({_COLUMNS}) from stdin (format csv)") as target,
        ):
            for chunk in source:
                target.write(chunk)
        writer.commit()
        return bets / (clock.monotonic() - started)
