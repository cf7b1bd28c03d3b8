"""`make bench-memory`: the daemon's greatest resident memory at a first load of five million rows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

from connector import clock
from connector.demo.stage import Stage

_PATIENCE_SECONDS: Final = 1800.0


def main() -> None:
    """Load a casino of that size from nothing and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory")
    parser.add_argument("--bets", type=int, default=5_000_000)
    options = parser.parse_args()
    with Stage(players=20_000, bets=options.bets, rate=50, tell=print) as stage:
        started = clock.monotonic()
        stage.drain(_PATIENCE_SECONDS)
        seconds = clock.monotonic() - started
        status = Path(f"/proc/{stage.daemon_pid}/status").read_text()
        greatest = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
        rows = sum(stage.see().store.values())
    print(json.dumps({"rows": rows, "seconds": round(seconds, 1), "greatest_rss_mb": round(greatest, 1)}))


if __name__ == "__main__":
    main()
