"""Midnight for a million depositors: how long it takes, and what it does to live ingest.

`make bench-windows`. A store is filled with players who each deposited yesterday, the day before and three weeks ago:
every one of them changes at midnight. Beside the edges' loop, at its own pace, pages of bets are committed as by a
source's thread; their rows a second are counted before and meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg

from connector import clock
from connector.edges import PLAYERS
from connector.event import EVENTS
from connector.money import Rates
from connector.normalised import Normalised
from connector.store import checkpoints, database, edges, embedded, lease as leases
from connector.store.checkpoints import Checkpoint
from connector.store.commit import Batch, commit

if TYPE_CHECKING:
    from connector.store.lease import Lease

_PAGE: Final = 20_000
_PACE_SECONDS: Final = 0.01
_FILL: Final = """
    insert into crm.tenants (tenant, base_currency) values ('bench', 'EUR');
    insert into crm.players (tenant, brand_id, external_id, default_currency_code, is_stub)
    select 'bench', 'bench', n::text, 'EUR', false from generate_series(1, {players}) n;
    insert into crm.event_streams (tenant, source, stream, generation, brand_id)
    values ('bench', 'bench', 'deposits', 0, 'bench');
    insert into crm.event_rows (player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency,
                                amount, fx_rate_locked, properties)
    select player_id, timestamptz '{midnight}' - days * interval '1 day' + interval '12 hours', 1000,
           (select max(stream_id) from crm.event_streams),
           (select name_id from crm.event_names where name = 'deposit_confirmed'), 1, false,
           player_id || '-' || days, 'EUR', 10, 1, '{{}}'
    from crm.players, unnest(array[1, 2, 21]) days;
    insert into crm.player_edges (player_id, tenant, edge_at)
    select player_id, 'bench', timestamptz '{midnight}' from crm.players;
    analyze;
"""


@dataclass
class Ingest:
    """Live bets: pages of a stream above everything read before."""

    connection: psycopg.Connection[Any]
    lease: Lease
    players: int
    rows: int = 0

    def run(self, stop: threading.Event) -> None:
        """Commit page after page until told to stop."""
        checkpoint = Checkpoint("bench", "bench", "casino_bets", 0, "id", ("id",), ("bench",), None, None, None)
        checkpoints.create(self.connection, checkpoint)
        for number in itertools.count():
            if stop.is_set():
                return
            batch = Batch(checkpoint, Normalised(events=self._page(number)), fresh=True)
            commit(self.connection, batch, rates=Rates("EUR", {}), lease=self.lease)
            self.rows += _PAGE

    def _page(self, number: int) -> pl.DataFrame:
        ids = pl.int_range(number * _PAGE, (number + 1) * _PAGE, eager=True)
        columns: dict[str, Any] = {
            "brand_id": pl.lit("bench"),
            "external_id": (ids * 7919 % self.players + 1).cast(pl.String),
            "key": ids.cast(pl.String),
            "name": pl.lit("bet_placed"),
            "occurred_at": pl.lit(clock.now()),
            "amount": pl.lit(Decimal(1)),
            "currency": pl.lit("EUR"),
            "effect": pl.lit("wagered"),
            "sign": pl.lit(1),
            "properties": pl.lit("{}"),
            "history": pl.lit(value=False),
        }
        named = {name: columns.get(name, pl.lit(None)) for name in EVENTS}
        return pl.select(**named).select(pl.col(name).cast(kind) for name, kind in EVENTS.items())


def main() -> None:
    """Print how long midnight took and the ingest before and meanwhile; last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.windows")
    parser.add_argument("--players", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of ingest alone, before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        server = embedded.start(root / "store", settings={"fsync": "off", "full_page_writes": "off"})
        try:
            found = _measure(server, options)
        finally:
            server.stop()
    print(f"midnight for {options.players:,} depositors: {found['midnight_seconds']:.1f} s")
    print(f"ingest before {found['before']:,.0f} rows/s, meanwhile {found['meanwhile']:,.0f} rows/s")
    print(json.dumps(found))


def _measure(server: embedded.Server, options: argparse.Namespace) -> dict[str, float]:
    store = database.open_store(server.url())
    database.migrate(store)
    midnight = datetime(2026, 1, 15, tzinfo=UTC)
    with psycopg.connect(server.url(), autocommit=True) as owner:
        owner.execute(_FILL.format(players=options.players, midnight=midnight.isoformat()).encode())
    stop = threading.Event()
    with store.connect() as writing, store.connect() as passing:
        leased = [leases.acquire(connection, f"bench/{index}") for index, connection in enumerate((writing, passing))]
        assert leased[0] is not None
        assert leased[1] is not None
        ingest = Ingest(writing, leased[0], options.players)
        keeper = threading.Thread(target=_keep, args=(store, [lease for lease in leased if lease], stop))
        thread = threading.Thread(target=ingest.run, args=(stop,))
        for each in (keeper, thread):
            each.start()
        stop.wait(options.seconds / 4)
        before = _rate(ingest, lambda: stop.wait(options.seconds))
        began, seconds = ingest.rows, clock.monotonic()
        while edges.pass_due(passing, "bench", midnight + timedelta(seconds=1), limit=PLAYERS, lease=leased[1]):
            stop.wait(_PACE_SECONDS)
        took = clock.monotonic() - seconds
        meanwhile = (ingest.rows - began) / took
        stop.set()
        for each in (keeper, thread):
            each.join()
    store.close()
    return {"players": options.players, "midnight_seconds": took, "before": before, "meanwhile": meanwhile}


def _rate(ingest: Ingest, wait: Any) -> float:
    began, seconds = ingest.rows, clock.monotonic()
    wait()
    return (ingest.rows - began) / (clock.monotonic() - seconds)


def _keep(store: database.Database, held: list[Lease], stop: threading.Event) -> None:
    with store.connect() as connection:
        while not stop.wait(leases.TTL_SECONDS / 4):
            leases.renew(connection, held)


if __name__ == "__main__":
    main()
