"""`make bench`: every benchmark of speed in one run, one table, and `bench/results.json`, the source of the README's.

Each is a module of its own that can be run alone; what is compared is measured side by side in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bench import delivery, growth, idle, ingest, latency, machine, report
from connector import clock

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Measure what is asked for, keep what was measured before of the rest, print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--bets", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--rivals", type=Path, help="where the environments of dlt and sling are kept from run to run")
    parser.add_argument("--only", nargs="*", help="of ingest, growth, latency, idle, delivery")
    options = parser.parse_args()
    figures = json.loads(report.RESULTS.read_text())["figures"] if report.RESULTS.exists() else {}
    for name, measure in _benchmarks(options).items():
        print(f"{name} ...", flush=True)
        figures[name] = measure()
    results = {"date": f"{clock.now():%Y-%m-%d}", "machine": machine.machine(), "figures": figures}
    results["versions"] = machine.versions(figures.get("ingest", {}))
    report.RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    report.show(results)


def _benchmarks(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, float]]]:
    """Return the benchmarks that this run is made of."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        "ingest": lambda: ingest.run(bets=options.bets, runs=options.runs, folder=options.rivals),
        "growth": lambda: growth.measure(bets=options.bets, runs=options.runs),
        "latency": latency.measure,
        "idle": idle.measure,
        "delivery": lambda: _rounded(delivery.measure()),
    }
    return {name: measure for name, measure in found.items() if not options.only or name in options.only}


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
