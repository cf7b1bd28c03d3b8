"""`make bench`: rows/s end to end against plain COPY on the same server, and seconds from commit to store and API.

Prints one line a figure and, last, one JSON object with all of them. Everything is measured in one run, so the ratios
hold on a noisy machine where single figures do not.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from bench import latency, throughput
from connector.demo import casino
from connector.store import embedded


def main() -> None:
    """Build one casino and one store, run every benchmark over them."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--bets", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the latency of live rows is watched")
    parser.add_argument("--rate", type=float, default=200.0, help="live rows a second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        operator = embedded.start(root / "operator", settings={"fsync": "off", "full_page_writes": "off"})
        store = embedded.start(root / "store")
        try:
            built = casino.build(operator, players=20_000, bets=options.bets)
            figures = throughput.measure(built, store, options.bets)
        finally:
            store.stop()
            operator.stop()
    figures |= latency.measure(rate=options.rate, seconds=options.seconds)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
