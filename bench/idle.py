"""`make bench-idle`: what a daemon costs that has caught up and sees nothing happen: its own CPU and the replica's.

All streams of the demo's casino are read from a hot standby, with the waiting times that a configuration has by
default, and everything is delivered to an API. The kernel's own account of our backends at the standby (schedstat,
nanoseconds on the CPU) is read twice, and the daemon's, a minute apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from bench import processes
from bench.stand import stand
from connector import app, clock
from connector.demo import casino
from connector.errors import Transient, Unhealthy
from connector.event import NAMES
from connector.store import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.stand import Stand

_PATIENCE_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 20.0
#: After the last row: looks back, first counts and the first minute's checks are not what idling costs.
_CALM_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.5
_BACKENDS: Final = "select pid from pg_stat_activity where application_name = 'connector'"


def main() -> None:
    """Print the figures and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calm", type=float, default=_CALM_SECONDS, help="seconds between the last row and the start")
    options = parser.parse_args()
    print(json.dumps(measure(seconds=options.seconds, calm=options.calm)))


def measure(*, seconds: float = 60.0, calm: float = _CALM_SECONDS) -> dict[str, float]:
    """Return the daemon's share of a core in percent and what its backends cost a minute and stream in milliseconds."""
    with stand(players=5_000, bets=20_000) as built:
        standby = embedded.follow(built.operator, built.root / "standby")
        try:
            with _daemon(built, standby) as pid:
                clock.sleep(calm)
                found = _watch(built, standby, pid, seconds)
        finally:
            standby.stop()
    for figure, value in found.items():
        print(f"{figure + ':':<40} {value:>8.2f}", flush=True)
    return found


@contextlib.contextmanager
def _daemon(built: Stand, standby: embedded.Server) -> Iterator[int]:
    """Run an API and a daemon; give the daemon's pid once everything is stored and delivered."""
    port = embedded.free_port()
    store_url = built.store.create_database("idle")
    streams = {name: {"view": view, "start": "beginning"} for name, view in built.casino.views.items()}
    destination: dict[str, Any] = {"name": "api", "kind": "customerio_track", "url": f"http://127.0.0.1:{port}"}
    destination |= {"site_id": "demo", "api_key": "demo", "events": list(NAMES)}
    configuration = built.configure(
        "idle", store_url, streams, url=built.casino.url_on(standby), destinations=[destination]
    )
    with contextlib.ExitStack() as stack:
        listen = ("--listen", f"127.0.0.1:{port}", "--forget-events", "1000")
        stack.enter_context(_started(built.root / "api.log", "emulate", "customerio", *listen))
        daemon = stack.enter_context(_started(built.root / "daemon.log", "run", "--config", str(configuration)))
        deadline = clock.monotonic() + _PATIENCE_SECONDS
        while not _caught_up(built, configuration):
            if clock.monotonic() > deadline or daemon.poll() is not None:
                raise RuntimeError(f"the daemon did not catch up: {(built.root / 'daemon.log').read_text()[-2000:]}")
            clock.sleep(1.0)
        yield daemon.pid


@contextlib.contextmanager
def _started(log: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "connector", *arguments]
    with log.open("wb") as words:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _caught_up(built: Stand, configuration: Path) -> bool:
    """Whether every row that the views show is in the store, and nothing waits to be sent."""
    try:
        status = app.status(app.load_config(configuration))
    except (Unhealthy, Transient):
        return False
    rows = {stream: row["rows"] for stream, row in status["streams"].items()}
    pending = sum(row["pending"] for row in status["destinations"].values())
    counts = built.casino.counts()
    return bool(rows) and pending == 0 and all(rows.get(stream, 0) >= count for stream, count in counts.items())


def _watch(built: Stand, standby: embedded.Server, pid: int, seconds: float) -> dict[str, float]:
    """Read the accounts for so long."""
    store = built.pids["store"]
    used = processes.cpu_seconds(pid), processes.tree_cpu_seconds(store)
    first, last = _backends(standby), dict[int, int]()
    started = clock.monotonic()
    while clock.monotonic() < started + seconds:
        last |= _backends(standby)  # one that has ended keeps what it had used when last seen
        clock.sleep(_LOOK_SECONDS)
    elapsed = clock.monotonic() - started
    replica = sum(spent - first.get(backend, 0) for backend, spent in last.items()) / 1e6
    own, stored = processes.cpu_seconds(pid) - used[0], processes.tree_cpu_seconds(store) - used[1]
    return {
        "daemon_percent_of_core": round(100 * own / elapsed, 2),
        "replica_ms_per_minute_and_stream": round(replica * 60 / elapsed / len(casino.STREAMS), 2),
        "store_percent_of_core": round(100 * stored / elapsed, 2),
        "daemon_rss_mb": round(processes.rss_mb(pid), 1),
    }


def _backends(standby: embedded.Server) -> dict[int, int]:
    """Return the nanoseconds that each of our backends at the standby has been on the CPU."""
    with psycopg.connect(standby.url(casino.DATABASE)) as connection:
        pids = [pid for (pid,) in connection.execute(_BACKENDS)]
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return found


if __name__ == "__main__":
    main()
