"""Fifty realtime segments over a million players: what a page of events costs more, and what a whole refresh costs.

`make bench-segments`. A store is filled with players and with the roll-up of their last ninety days, about twenty rows
for each who plays. Then pages of 5,000 events of 1,000 players are committed as by a source's thread, and after each
the audience's steps are measured: the roll-up of the page, the players' fifty segments, marks and events of those who
entered or left. A whole refresh of a trait segment is measured the first time and after one membership in a hundred
has changed. Nothing is printed before every membership has been compared to a computation of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
from psycopg.types.json import Jsonb

from connector import audience, clock
from connector.event import EVENTS, NAMES
from connector.money import Rates
from connector.normalised import Normalised
from connector.store import checkpoints, database, embedded, lease as leases, player_days, segments
from connector.store.checkpoints import Checkpoint
from connector.store.commit import Batch, commit

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.store.lease import Lease

_TENANT: Final = "bench"
#: Memory as of a server that is meant for a million players; the embedded one has 256 MB by default.
_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "1GB"}
_PLAYERS_OF_PAGE: Final = 1_000
_EVENTS_OF_PAGE: Final = 5_000
_FILL: Final = """
    insert into crm.tenants (tenant, base_currency) values ('bench', 'EUR');
    insert into crm.players (tenant, brand_id, external_id, default_currency_code, is_stub, status, kyc_status, country,
                             total_deposited, total_wagered, bet_count, created_at, last_seen_at, last_deposit_at)
    select 'bench', 'bench', n::text, 'EUR', false, 'active', (array['verified', 'pending', null])[1 + n % 3],
           (array['ES', 'DE', 'FI', 'PT', 'BR'])[1 + n % 5], n * 7919::bigint % 1000000, n * 104729::bigint % 9000000,
           n % 3000, now() - n % 900 * interval '1 day', now() - n % 200 * interval '1 day',
           case when n % 4 = 0 then now() - n % 120 * interval '1 day' end
    from generate_series(1, {players}) n;
    insert into crm.player_days (tenant, player_id, day, name_id, events, total, least, greatest, last_at, last_amount)
    select 'bench', p.player_id, d.day, names.name_id, 1 + p.player_id % 9, 500 * (1 + p.player_id % 40), 100,
           100 + p.player_id * 31 % 9000, d.day + interval '20 hours', 100 + p.player_id * 17 % 9000
    from crm.players p
    cross join lateral (select current_date - (p.player_id * 13 % 7 + k * 9)::int as day from generate_series(0, 9) k) d
    cross join unnest(array[{bet}, {deposit}]::smallint[]) names(name_id)
    where p.player_id % {every} = 0;
    analyze;
"""
#: The feed begins at the end of a ledger that is empty: its days stand there as if they had been counted.
_BUILT: Final = """
    insert into crm.segment_feed (tenant, zone, play, built, day) values ('bench', 'UTC', '{FUN}', true, current_date)
"""


@dataclass
class Bench:
    """A filled store, its loop's connection and a writer's."""

    players: int
    writing: psycopg.Connection[Any]
    looking: psycopg.Connection[Any]
    owner: psycopg.Connection[Any]
    lease: Lease
    checkpoint: Checkpoint = field(
        default_factory=lambda: Checkpoint(
            _TENANT, "bench", "casino_bets", 0, "id", ("id",), ("bench",), None, None, None
        )
    )
    number: int = 0

    def page(self) -> None:
        """Commit a page of bets and deposits of now."""
        first, self.number = self.number, self.number + _EVENTS_OF_PAGE
        ids = pl.int_range(first, self.number, eager=True)
        start = first // _EVENTS_OF_PAGE * _PLAYERS_OF_PAGE
        columns: dict[str, Any] = {
            "brand_id": pl.lit("bench"),
            "external_id": ((start + ids % _PLAYERS_OF_PAGE) * 7919 % self.players + 1).cast(pl.String),
            "key": ids.cast(pl.String),
            "name": pl.when(ids % 10 == 0).then(pl.lit("deposit_confirmed")).otherwise(pl.lit("bet_placed")),
            "occurred_at": pl.lit(clock.now()),
            "amount": (ids % 97 + 1).cast(pl.Decimal(38, 18)),
            "currency": pl.lit("EUR"),
            "effect": pl.when(ids % 10 == 0).then(pl.lit("deposited")).otherwise(pl.lit("wagered")),
            "sign": pl.lit(1),
            "properties": pl.lit("{}"),
            "history": pl.lit(value=False),
        }
        named = {name: columns.get(name, pl.lit(None)) for name in EVENTS}
        events = pl.select(**named).select(pl.col(name).cast(kind) for name, kind in EVENTS.items())
        commit(
            self.writing,
            Batch(self.checkpoint, Normalised(events=events), fresh=True),
            rates=Rates("EUR", {"EUR": Decimal(1)}),
            lease=self.lease,
        )

    def follow(self) -> tuple[float, float]:
        """Do what the audience's loop does with a page; returns seconds of the roll-up and of the rest."""
        at = clock.now()
        began = clock.monotonic()
        while player_days.advance(self.looking, _TENANT, at):
            pass
        rolled = clock.monotonic()
        while audience.evaluate_due(self.looking, _TENANT, at.date(), at, lease=self.lease, limit=audience.PLAYERS):
            pass
        return rolled - began, clock.monotonic() - rolled


def definitions() -> list[dict[str, Any]]:
    """Return fifty definitions: a third of traits alone, the rest with one or two event windows."""
    made = []
    for number in range(50):
        money = _trait("total_deposited", ">", 900_000 + 1_900 * number)
        conditions = [money, _trait("country", "!=", ("ES", "DE", "FI")[number % 3])]
        if number % 3 == 1:
            conditions.append(_event("bet_placed", 1 + number, "count", number))
        if number % 3 == 2:
            conditions += [_event("deposit_confirmed", 2 + number, "sum", 1000 * number)]
            conditions += [_event("bet_placed", 7, ("min", "max", "last")[number % 9 // 3], 300 + number)]
        made.append({"operator": "AND", "conditions": conditions})
    return made


def main() -> None:
    """Print both figures; last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.segments")
    parser.add_argument("--players", type=int, default=1_000_000)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--active", type=int, default=4, help="one player in so many has played")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        server = embedded.start(root / "store", settings=_SETTINGS)
        try:
            found = _measure(server, options)
        finally:
            server.stop()
    print(f"{options.players:,} players, 50 realtime segments; a page: 5,000 events of 1,000 players")
    print(f"a page adds p50 {found['page_p50_ms']:.0f} ms, p95 {found['page_p95_ms']:.0f} ms")
    print(f"  of which roll-up p50 {found['rollup_p50_ms']:.0f} ms, segments p50 {found['segments_p50_ms']:.0f} ms")
    print(
        f"a trait segment: first refresh {found['first_seconds']:.1f} s ({found['first_members']:,} members),"
        f" again {found['refresh_seconds']:.2f} s ({found['refresh_changed']:,} memberships changed)"
    )
    print(json.dumps(found))


def _measure(server: embedded.Server, options: argparse.Namespace) -> dict[str, float]:
    store = database.open_store(server.url())
    database.migrate(store)
    bet, deposit = (NAMES.index(name) + 1 for name in ("bet_placed", "deposit_confirmed"))
    with (
        psycopg.connect(server.url(), autocommit=True) as owner,
        store.connect() as writing,
        store.connect() as looking,
    ):
        filling = _FILL.format(players=options.players, bet=bet, deposit=deposit, every=options.active)
        owner.execute(filling.encode())
        owner.execute(_BUILT)
        lease = leases.acquire(writing, "bench/all")
        assert lease is not None
        bench = Bench(options.players, writing, looking, owner, lease)
        checkpoints.create(writing, bench.checkpoint)
        numbers = [_create(looking, index, definition) for index, definition in enumerate(definitions())]
        found = _refreshes(bench, numbers[0], options.players)
        for number in numbers[1:]:
            segments.refresh(looking, _TENANT, number, clock.now().date())
        owner.execute("vacuum analyze")
        _settle_down(bench)
        found |= _pages(bench, options.pages)
        _compare(owner)
    store.close()
    return found


def _refreshes(bench: Bench, number: int, players: int) -> dict[str, float]:
    today = clock.now().date()
    (first, done) = _timed(lambda: segments.refresh(bench.looking, _TENANT, number, today))
    bench.owner.execute("vacuum analyze crm.players")
    changed = """
        update crm.players set total_deposited = case when total_deposited > 900000 then 0 else 999999 end
        where player_id % 100 = 1
    """
    bench.writing.execute(changed.encode())
    (again, then) = _timed(lambda: segments.refresh(bench.looking, _TENANT, number, today))
    moved = len(then.entered) + len(then.left)
    assert moved <= players / 100
    return {
        "first_seconds": first,
        "first_members": done.members,
        "refresh_seconds": again,
        "refresh_changed": moved,
    }


def _pages(bench: Bench, pages: int) -> dict[str, float]:
    rolled, looked, both = [], [], []
    for _ in range(pages):
        bench.page()
        roll, look = bench.follow()
        rolled.append(roll * 1000)
        looked.append(look * 1000)
        both.append((roll + look) * 1000)
    return {
        "page_p50_ms": statistics.median(both),
        "page_p95_ms": sorted(both)[int(len(both) * 0.95) - 1],
        "rollup_p50_ms": statistics.median(rolled),
        "segments_p50_ms": statistics.median(looked),
    }


def _settle_down(bench: Bench) -> None:
    """Let what the refreshes marked be seen: a page is measured alone."""
    bench.looking.execute(
        "update crm.segment_feed set change_seq = (select coalesce(max(change_seq), 0) from crm.player_changes)"
    )
    bench.looking.execute("delete from crm.segment_due")
    bench.page()
    bench.follow()


def _compare(connection: psycopg.Connection[Any]) -> None:
    """Compute every membership anew, segment by segment, with statements written here."""
    today = clock.now().date()
    rows = connection.execute("select segment_id, definition, members from crm.segments order by segment_id").fetchall()
    wrong = []
    for number, definition, _ in rows:
        said = " and ".join(_said(condition, today) for condition in definition["conditions"])
        wrong.append(f"count(*) filter (where (({said}) is true) <> (segment_ids @> array[{int(number)}]))")
    found = connection.execute(f"select {', '.join(wrong)} from crm.players p".encode()).fetchone()
    assert found is not None
    assert not any(found), dict(zip((number for number, _, _ in rows), found, strict=True))
    counted = "select segment_id, count(*) from crm.players, unnest(segment_ids) segment_id group by segment_id"
    counts = dict(connection.execute(counted).fetchall())
    assert {number: members for number, _, members in rows if members} == counts


def _said(condition: dict[str, Any], today: Any) -> str:
    if condition["type"] == "trait":
        value = condition["value"]
        quoted = f"'{value}'" if isinstance(value, str) else value
        distinct = "is distinct from" if condition["op"] == "!=" else condition["op"]
        return f"p.{condition['field']} {distinct} {quoted}"
    aggregate = {
        "count": "coalesce(sum(events), 0)",
        "sum": "coalesce(sum(total), 0)",
        "min": "min(least)",
        "max": "max(greatest)",
        "last": "(array_agg(last_amount order by last_at desc))[1]",
    }[condition["aggregation"]]
    first = today - timedelta(days=condition["window"]["days"] - 1)
    return f"""(
        select {aggregate} from crm.player_days d
        where d.player_id = p.player_id and name_id = {NAMES.index(condition["event"]) + 1}
          and day between '{first}' and '{today}') {condition["op"]} {condition["value"]}"""


def _create(connection: psycopg.Connection[Any], index: int, definition: dict[str, Any]) -> int:
    row = connection.execute(
        "insert into crm.segments (tenant, name, definition) values (%s, %s, %s) returning segment_id",
        (_TENANT, f"segment {index}", Jsonb(definition)),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _trait(name: str, op: str, value: Any) -> dict[str, Any]:
    return {"type": "trait", "field": name, "op": op, "value": value}


def _event(name: str, days: int, aggregation: str, value: int) -> dict[str, Any]:
    window = {"kind": "rolling", "days": days}
    return {"type": "event", "event": name, "window": window, "aggregation": aggregation, "op": ">=", "value": value}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = clock.monotonic()
    done = work()
    return clock.monotonic() - began, done


if __name__ == "__main__":
    main()
