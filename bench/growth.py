"""`make bench-growth`: rows/s into a store with a million events, and into one with twenty million.

Two stores are filled with older events of the same stream and players, in SQL; then the same bets are loaded into
both in turns, each time as of another source, so that nothing is there already. Counts are compared in the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import TYPE_CHECKING, Final

import psycopg

from bench import ingest
from bench.stand import BRAND, TENANT, Stand, settle, stand

if TYPE_CHECKING:
    from bench.processes import Spent

#: Events as the bets of another source have left them: spread over the players, at the times of three years.
_FILL: Final = f"""
    insert into crm.event_streams (tenant, source, stream, generation, brand_id)
    values ('{TENANT}', 'older', 'casino_bets', 0, '{BRAND}');
    insert into crm.event_shapes (tenant, names) values ('{TENANT}',
        '{{{{bet_id,round_id,game_id,game_name,game_category,game_provider,amount_real,amount_bonus}}}}');
    create temporary table player as select row_number() over () - 1 as n, player_id from crm.players;
    create unique index on player (n);
    analyze player;
    insert into crm.event_rows (player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency,
                                amount, fx_rate_locked, mark, shape_id, packed)
    select p.player_id, now() - interval '3 years' + i * interval '3 years' / {{events}}, 100, s.stream_id, e.name_id,
           0, true, i::text, 'EUR', 1.00, 1, i, h.shape_id,
           concat_ws(chr(31), i, i / 2, 'lucky:' || i % 300, 'Salmon Rush', 'slots', 'Lucky Otter', '1.00', '0')
    from generate_series(1, {{events}}::bigint) i
    cross join (select count(*) as players from player) c
    join player p on p.n = i * 7919 % c.players
    cross join (select max(stream_id) as stream_id from crm.event_streams) s
    cross join (select max(shape_id) as shape_id from crm.event_shapes) h
    cross join (select name_id from crm.event_names where name = 'bet_placed') e
"""
#: An index is built faster than it is kept.
_INDEXES: Final = """
    select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
    where indrelid = 'crm.event_rows'::regclass
"""


def main() -> None:
    """Print one line a run and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--bets", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=1_000_000, help="events in the one store")
    parser.add_argument("--large", type=int, default=20_000_000, help="events in the other")
    parser.add_argument("--runs", type=int, default=3)
    print(json.dumps(measure(**vars(parser.parse_args()))))


def measure(
    *, bets: int = 1_000_000, small: int = 1_000_000, large: int = 20_000_000, runs: int = 3
) -> dict[str, float]:
    """Return rows/s at both sizes and how much the second is lower, in percent."""
    with stand(players=ingest.PLAYERS, bets=bets) as built:
        ingest.prepare(built)
        stores = {events: _filled(built, events) for events in (small, large)}
        spent: dict[int, list[Spent]] = {events: [] for events in stores}
        for run in range(runs):
            for events, url in stores.items():
                took = _load(built, url, f"source{run}", f"grown_{events}_{run}")
                spent[events].append(took)
                ingest.tell(f"with {events:,} events there", took, rows=bets)
        for events, url in stores.items():
            with psycopg.connect(url) as connection:
                (there,) = connection.execute("select count(*) from crm.event_rows").fetchone() or (0,)
            assert there == events + runs * bets, f"{there} events of {events + runs * bets}"
    few, many = (bets / statistics.median(run.seconds for run in spent[events]) for events in stores)
    fall = 100 * (1 - many / few)
    print(f"{few:,.0f} rows/s fall to {many:,.0f}: {fall:.1f} %", flush=True)
    return {"small_events": small, "large_events": large, "small_rows_per_second": round(few, 2)} | {
        "large_rows_per_second": round(many, 2),
        "fall_percent": round(fall, 1),
        "small_store_cpu_seconds": round(statistics.median(run.servers["store"] for run in spent[small]), 2),
        "large_store_cpu_seconds": round(statistics.median(run.servers["store"] for run in spent[large]), 2),
    }


def _filled(built: Stand, events: int) -> str:
    """Return a store with players and so many events of theirs."""
    url = built.copy_of(ingest.TEMPLATE, f"grown_{events}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set maintenance_work_mem = '512MB'; set synchronous_commit = off")
        indexes = connection.execute(_INDEXES).fetchall()
        for index, _ in indexes:
            connection.execute(f"drop index {index}".encode())
        connection.execute(_FILL.format(events=events).encode())
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("vacuum (analyze) crm.event_rows")
    settle(built.store)
    return url


def _load(built: Stand, url: str, source: str, name: str) -> Spent:
    settle(built.store)
    streams = {"casino_bets": {"view": built.casino.views["casino_bets"], "start": "beginning"}}
    return ingest.run_once(built, built.configure(name, url, streams, source=source), name)


if __name__ == "__main__":
    main()
