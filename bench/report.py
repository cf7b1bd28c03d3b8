"""The table of all figures: from `bench/results.json` to the terminal and to the README.

`python -m bench.report --markdown` prints the README's table. A figure that was not measured is left out; one that
stands beside a target says whether it is reached.
"""

from __future__ import annotations

import argparse
import json
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: A bar inside a cell.
_BAR: Final = r"\|"
RESULTS: Final = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Figure:
    """One line: which group's figures it is made of, how it is computed and written, and what it must reach.

    `needs` names what must have been measured, `value` gets exactly those. `least` and `most` are the target's bound.
    """

    group: str
    work: str
    needs: tuple[str, ...]
    value: Callable[..., float]
    form: str
    least: float | None = None
    most: float | None = None

    def target(self) -> str:
        """Return the target in words, empty where there is none."""
        bound = self.least if self.least is not None else self.most
        return "" if bound is None else f"{'≥' if self.least is not None else '≤'} {self.form.format(bound)}"

    def missed(self, value: float) -> bool:
        """Return whether a value does not reach the target."""
        return (self.least is not None and value < self.least) or (self.most is not None and value > self.most)


def _one(
    group: str, name: str, work: str, form: str, *, least: float | None = None, most: float | None = None
) -> Figure:
    return Figure(group, work, (name,), lambda value: value, form, least, most)


def _ratio(name: str, to: str, work: str, least: float) -> Figure:
    needs = tuple(f"{each}_rows_per_second" for each in (name, to))
    return Figure("ingest", work, needs, operator.truediv, "{:.2f}", least)


_ROWS: Final = "{:,.0f} rows/s"
_SECONDS: Final = "{:.2f} s"
_MB: Final = "{:,.0f} MB"
_RSS: Final = 350.0
FIGURES: Final = (
    _one("ingest", "connector_rows_per_second", "PostgreSQL to store, with deduplication, totals, checkpoint", _ROWS),
    _one("ingest", "reference_rows_per_second", "beside it: `COPY | COPY`, primary and unique key", _ROWS),
    _ratio("connector", "reference", "the connector's share of that", 0.4),
    _one("ingest", "ledger_rows_per_second", "beside it: `COPY | COPY`, the ledger's columns and indexes", _ROWS),
    _one("ingest", "sling_rows_per_second", "beside it: sling, rows only", _ROWS),
    _ratio("connector", "sling", "the connector over sling", 1.3),
    _one("ingest", "dlt_rows_per_second", "beside it: dlt with pyarrow, rows only", _ROWS),
    _ratio("connector", "dlt", "the connector over dlt", 2.0),
    _one("ingest", "mariadb_rows_per_second", "MariaDB to store, the same rows", _ROWS),
    _one("ingest", "driver_rows_per_second", "beside it: its driver reading and nothing else", _ROWS),
    _ratio("mariadb", "driver", "the connector's share of that", 0.8),
    _one("ingest", "connector_rss_mb", "memory at that, PostgreSQL", _MB, most=_RSS),
    _one("ingest", "mariadb_rss_mb", "memory at that, MariaDB", _MB, most=_RSS),
    _one("growth", "small_rows_per_second", "into a store with 1,000,000 events", _ROWS),
    _one("growth", "large_rows_per_second", "into a store with 20,000,000 events", _ROWS),
    _one("growth", "fall_percent", "what that is slower", "{:.1f} %", most=20.0),
    _one("latency", "steady_store_p95_seconds", "commit to store at 200 rows/s, p95", _SECONDS, most=0.6),
    _one("latency", "steady_api_p95_seconds", "commit to accepted by the API at 200 rows/s, p95", _SECONDS, most=1.2),
    _one(
        "latency",
        "beside_bets_store_p95_seconds",
        "50 deposits/s beside 2,000 bets/s: to store, p95",
        _SECONDS,
        most=1.5,
    ),
    _one(
        "latency", "beside_bets_api_p95_seconds", "50 deposits/s beside 2,000 bets/s: to API, p95", _SECONDS, most=2.5
    ),
    _one("latency", "daemon_rss_mb", "memory at that", _MB, most=_RSS),
    _one("delivery", "items_per_second", "delivery to an API that answers in 50 ms", "{:,.0f} items/s", least=20_000),
    _one("delivery", "lost", "items lost at that", "{:,.0f}", most=0),
    _one("delivery", "live_alone_p95_seconds", "a live event to that API, p95", _SECONDS),
    _one("delivery", "live_beside_history_p95_seconds", "the same while a lane of history is full, p95", _SECONDS),
    _one("delivery", "daemon_rss_mb", "memory at that", _MB, most=_RSS),
    _one("idle", "daemon_percent_of_core", "idle, ten streams: of a core", "{:.1f} %", most=2.0),
    _one(
        "idle",
        "replica_ms_per_minute_and_stream",
        "idle: CPU of the replica a minute and stream",
        "{:.0f} ms",
        most=30.0,
    ),
    _one("idle", "daemon_rss_mb", "memory at that", _MB, most=_RSS),
)


def main() -> None:
    """Print the table of bench/results.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("--markdown", action="store_true", help="as it stands in the README")
    results = json.loads(RESULTS.read_text())
    if parser.parse_args().markdown:
        print(markdown(results))
    else:
        show(results)


def lines(results: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """Return of every figure that was measured: the work, the value, the target, and whether it is missed. Pure."""
    found = []
    for figure in FIGURES:
        measured = results["figures"].get(figure.group, {})
        if all(name in measured for name in figure.needs):
            value = figure.value(*(measured[name] for name in figure.needs))
            found.append((figure.work, figure.form.format(value), figure.target(), figure.missed(value)))
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """Return the README's table, and under it what it was measured on."""
    rows = [f"| {work.replace('|', _BAR)} | {value} | {target} |" for work, value, target, _ in lines(results)]
    return "\n".join(["| work | measured | target |", "|---|---|---|", *rows, "", _machine(results)])


def show(results: Mapping[str, Any]) -> None:
    """Print the table on the terminal, what misses its target in red."""
    table = Table(caption=_machine(results))
    for name, justify in (("work", "left"), ("measured", "right"), ("target", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for work, value, target, missed in lines(results):
        table.add_row(work.replace("`", ""), f"[red]{value}[/red]" if missed else value, target)
    Console().print(table)


def _machine(results: Mapping[str, Any]) -> str:
    machine, versions = results["machine"], ", ".join(f"{name} {text}" for name, text in results["versions"].items())
    rows = results["figures"].get("ingest", {}).get("rows", 0)
    size = f"{rows:,.0f} casino bets, whole process, median; " if rows else ""
    return f"Measured {results['date']}: {size}{machine['cpus']} cores of {machine['cpu']}, {versions}."


if __name__ == "__main__":
    main()
