"""`make bench-ingest`: casino bets of 20,000 players from the operator's view into the store, whole process.

Every contender reads the same rows of the same view through the same role, one after the other and in turns, each time
into a fresh copy of a database that has the store's schema and the players; its servers have written everything out
before. A run is a process from its start to its end, interpreter and all. Counts and sums are compared before any speed
is printed; the figure is the median of the runs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from bench import mariadb, processes, references, rivals
from bench.stand import BRAND, TENANT, Stand, settle, stand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.processes import Spent

PLAYERS: Final = 20_000
#: The store that every run starts from: schema and players, no event.
TEMPLATE: Final = "loaded"
_SOURCE: Final = """
    select user_ext_id::text, currency,
           coalesce(sum(bet_amount) filter (where type = 'bet'), 0)
             - coalesce(sum(bet_amount) filter (where type = 'rollback_bet'), 0),
           coalesce(sum(win_amount) filter (where type = 'win'), 0)
             - coalesce(sum(win_amount) filter (where type = 'rollback_win'), 0),
           count(*) filter (where type = 'bet') - count(*) filter (where type = 'rollback_bet')
    from {view} group by 1, 2
"""
_TOTALS: Final = """
    select p.external_id, m.currency, m.wagered, m.won, m.bet_count
    from crm.player_money m join crm.players p using (player_id) where p.tenant = %s and p.brand_id = %s
"""
#: Players whose totals in the base currency are not the sums of their events.
_APART: Final = """
    select count(*) from crm.players p left join (
        select player_id, sum(amount_base * sign(effect)) filter (where abs(effect) = 3) wagered,
               sum(amount_base * sign(effect)) filter (where abs(effect) = 4) won
        from crm.event_rows group by player_id
    ) e using (player_id)
    where (p.total_wagered, p.total_won) is distinct from (coalesce(e.wagered, 0), coalesce(e.won, 0))
"""


@dataclass(frozen=True)
class Contender:
    """Who copies: `load` gets a fresh database and a name for its files, `check` raises unless everything is there.

    One that is `foreign` may fail without harm to the others: its figure is missing then.
    """

    name: str
    label: str
    load: Callable[[Stand, str, str], Spent]
    check: Callable[[Stand, str], None]
    foreign: bool = False


def main() -> None:
    """Print one line a run and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.ingest")
    parser.add_argument("--bets", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="of connector, reference, ledger, dlt, sling, mariadb, driver")
    parser.add_argument("--rivals", type=Path, help="where the environments of dlt and sling are kept from run to run")
    options = parser.parse_args()
    print(json.dumps(run(bets=options.bets, runs=options.runs, only=options.only, folder=options.rivals)))


def run(*, bets: int, runs: int, only: Sequence[str] | None = None, folder: Path | None = None) -> dict[str, float]:
    """Build everything, let those that are asked for run, and return the figures."""
    with stand(players=PLAYERS, bets=bets) as built, contenders(built, only, folder) as chosen:
        prepare(built)
        return figures(measure(built, chosen, runs=runs), rows=bets)


@contextlib.contextmanager
def contenders(built: Stand, only: Sequence[str] | None, folder: Path | None) -> Iterator[list[Contender]]:
    """Give everyone who copies, the connector first; those that can't be had are left out."""
    found = [
        Contender("connector", "connector, with totals", connector, check),
        Contender("reference", "COPY | COPY, primary and unique key", references.reference, references.check),
        Contender("ledger", "COPY | COPY, the ledger's columns", references.ledger, references.check),
    ]
    found = [contender for contender in found if not only or contender.name in only]
    for name, packages, load in (("dlt", rivals.DLT, rivals.dlt), ("sling", rivals.SLING, rivals.sling)):
        wanted = not only or name in only
        if wanted and (environment := rivals.install(folder or built.root / "rivals", name, packages)) is not None:
            copies = functools.partial(load, environment)
            found.append(Contender(name, f"{packages[0]}", copies, rivals.check, foreign=True))
    with contextlib.ExitStack() as stack:
        wanted = not only or bool({"mariadb", "driver"} & set(only))
        if wanted and (server := stack.enter_context(mariadb.serve(built))) is not None:
            load, read = functools.partial(mariadb.connector, server), functools.partial(mariadb.driver, server)
            label = f"MariaDB {server.version}"
            found.append(Contender("mariadb", f"connector from {label}", load, check))
            found.append(Contender("driver", f"pymysql alone, {label}", read, lambda *_: None))
        yield found


def prepare(built: Stand) -> None:
    """Build the store that every run starts from: the players come before their bets, as in life."""
    url = built.store.create_database(TEMPLATE)
    streams = {"user_profile": {"view": built.casino.views["user_profile"], "start": "beginning"}}
    run_once(built, built.configure("users", url, streams), "users")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze)")
    settle(built.operator)


def measure(built: Stand, contenders: Sequence[Contender], *, runs: int) -> Mapping[str, list[Spent]]:
    """Let the contenders run in turns, each run into a fresh database that is checked and dropped."""
    spent: dict[str, list[Spent]] = {contender.name: [] for contender in contenders}
    for run in range(runs):
        for contender in contenders:
            name = f"{contender.name}_{run}"
            url = built.copy_of(TEMPLATE, name)
            try:
                took = contender.load(built, url, name)
                contender.check(built, url)
            except (RuntimeError, AssertionError) as error:
                if not contender.foreign:
                    raise
                print(f"{contender.label}: {error}", flush=True)
                continue
            finally:
                built.drop(name)
            spent[contender.name].append(took)
            tell(contender.label, took, rows=built.casino.counts()["casino_bets"])
    return spent


def tell(label: str, took: Spent, *, rows: int) -> None:
    """Print one run."""
    servers = "".join(f"  {name} {seconds:5.2f} s" for name, seconds in took.servers.items())
    memory = f"  {took.rss_mb:5.0f} MB" if took.rss_mb else ""
    print(
        f"{label:<36} {rows / took.seconds:>9,.0f} rows/s  {took.seconds:6.2f} s"
        f"  CPU: own {took.cpu_seconds:5.2f} s{servers}{memory}",
        flush=True,
    )


def figures(spent: Mapping[str, Sequence[Spent]], *, rows: int) -> dict[str, float]:
    """Return the medians of everyone: rows/s, CPU; and the greatest memory."""
    found = {"rows": float(rows)}
    for name, runs in spent.items():
        if not runs:
            continue
        found[f"{name}_rows_per_second"] = rows / middle(runs)
        found[f"{name}_cpu_seconds"] = statistics.median(run.cpu_seconds for run in runs)
        found[f"{name}_rss_mb"] = max(run.rss_mb for run in runs)
        for server in runs[0].servers:
            found[f"{name}_{server}_cpu_seconds"] = statistics.median(run.servers[server] for run in runs)
    return {name: round(value, 2) for name, value in found.items()}


def middle(runs: Sequence[Spent]) -> float:
    """Return the median of the seconds."""
    return statistics.median(run.seconds for run in runs)


def connector(built: Stand, store_url: str, name: str) -> Spent:
    """Run the connector to the head of casino_bets, with everything that it does in life but sending."""
    streams = {"casino_bets": {"view": built.casino.views["casino_bets"], "start": "beginning"}}
    return run_once(built, built.configure(name, store_url, streams), name)


def run_once(built: Stand, configuration: Path, name: str) -> Spent:
    """Run `connector run --once`, a process of its own."""
    command = [sys.executable, "-m", "connector", "run", "--once", "--log-level", "warning"]
    command += ["--config", str(configuration)]
    return processes.run(command, built.root / f"{name}.log", servers=built.pids)


def check(built: Stand, store_url: str) -> None:
    """Raise AssertionError unless the store has every event once and every player's totals are the source's sums."""
    with psycopg.connect(built.casino.admin_url) as connection:
        view = built.casino.views["casino_bets"]
        expected = {row[:2]: row[2:] for row in connection.execute(_SOURCE.format(view=view).encode())}
    with psycopg.connect(store_url) as connection:
        (events,) = connection.execute("select count(*) from crm.event_rows").fetchone() or (0,)
        (apart,) = connection.execute(_APART).fetchone() or (None,)
        totals = {row[:2]: row[2:] for row in connection.execute(_TOTALS, (TENANT, BRAND))}
    rows = built.casino.counts()["casino_bets"]
    assert events == rows, f"{events} events of {rows} rows"
    differing = [key for key in expected.keys() | totals.keys() if expected.get(key) != totals.get(key)]
    assert not differing, f"totals of {len(differing)} players are not the source's, first {differing[0]}"
    assert apart == 0, f"totals of {apart} players are not the sums of their events"


if __name__ == "__main__":
    main()
