"""`make bench-latency`: seconds from commit at the operator to visible in the store and accepted by the API.

Twice over one running demo: single deposits in the casino's ordinary life of 200 rows a second, and 50 deposits a
second beside 2,000 bets a second. Every deposit must arrive, or there is no figure.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import psycopg

from bench import processes
from connector import clock
from connector.demo.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

_LOOK_SECONDS: Final = 0.02
_LAST_SECONDS: Final = 60.0
_EVENTS: Final = 1000
#: A deposit of a player who is not excluded, final at once.
DEPOSIT: Final = """
    insert into casino.payments (
        user_id, account_id, action, amount_cents, currency, success, payment_system, psp_brand,
        created_at, updated_at, finished_at)
    select u.id, a.id, 'deposit', 1000, a.currency, true, 'card', 'probe',
        timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
    from casino.users u join casino.accounts a on a.user_id = u.id and a.main
    where u.state = 'active' and u.cooling_off_until is null and a.currency = 'EUR'
      and not exists (select from casino.users_tags t where t.user_id = u.id)
    offset %s limit 1 returning id
"""
STORED: Final = """
    select e.key from crm.event_rows e join crm.event_streams s using (stream_id)
    where s.stream = 'deposits' and e.key = any(%s)
"""


def main() -> None:
    """Print the figures and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long each of the two is watched")
    parser.add_argument("--rate", type=float, default=200.0, help="rows a second of the casino's ordinary life")
    parser.add_argument("--bets", type=float, default=2000.0, help="bets a second beside the deposits")
    parser.add_argument("--deposits", type=float, default=50.0, help="deposits a second beside the bets")
    options = parser.parse_args()
    print(json.dumps(measure(**vars(options))))


def measure(
    *, rate: float = 200.0, seconds: float = 30.0, bets: float = 2000.0, deposits: float = 50.0
) -> dict[str, float]:
    """Return the 50th and 95th percentile of both, and the daemon's greatest memory."""
    with Stage(players=5_000, bets=20_000, rate=rate, tell=lambda _: None) as stage:
        stage.drain(_LAST_SECONDS)
        steady = _percentiles("steady", *_probe(stage, seconds, every=0.25))
        stage.traffic.stop()
        with _betting(stage, bets, seconds):
            beside = _percentiles("beside_bets", *_probe(stage, seconds, every=1 / deposits))
        return {**steady, **beside, "daemon_rss_mb": round(processes.rss_mb(stage.daemon_pid), 1)}


def _percentiles(name: str, to_store: list[float], to_api: list[float]) -> dict[str, float]:
    """Name the figures of one probe and print them."""
    found = {
        f"{name}_{place}_p{point}_seconds": round(percentile(values, point), 3)
        for place, values in (("store", to_store), ("api", to_api))
        for point in (50, 95)
    }
    for figure, value in found.items():
        print(f"{figure + ':':<32} {value:>8.2f}", flush=True)
    return {**found, f"{name}_probes": float(len(to_api))}


@contextlib.contextmanager
def _betting(stage: Stage, rate: float, seconds: float) -> Iterator[None]:
    """Let another process commit bets meanwhile; raise AssertionError when it could not keep its rate."""
    command = [sys.executable, "-m", "bench.bets_writer", str(rate), str(seconds)]
    environment = {**os.environ, "URL": stage.operator.admin_url}
    writer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment)
    try:
        yield
        said, _ = writer.communicate(timeout=_LAST_SECONDS)
        assert int(said) >= 0.95 * rate * seconds, f"only {int(said)} bets were committed in {seconds:g} s"
    finally:
        writer.kill()
        writer.wait()


def _probe(stage: Stage, seconds: float, *, every: float) -> tuple[list[float], list[float]]:
    """Return the seconds that each deposit, one `every` so many seconds, took to the store and to the API."""
    stored: dict[str, float] = {}
    accepted: dict[str, float] = {}
    born: dict[str, float] = {}
    after = _accepted(stage.api, 0, {})
    started = clock.monotonic()
    with (
        psycopg.connect(stage.operator.admin_url, autocommit=True) as operator,
        psycopg.connect(stage.store_url, autocommit=True) as store,
    ):
        while (now := clock.monotonic()) < started + seconds + _LAST_SECONDS:
            while now >= started + len(born) * every and now < started + seconds:
                row = operator.execute(DEPOSIT, (len(born) % 200,)).fetchone()
                assert row is not None
                now = born[str(row[0])] = clock.monotonic()
            open_ = [key for key in born if key not in stored]
            stored |= {key: clock.monotonic() for (key,) in store.execute(STORED, (open_,))}
            after = _accepted(stage.api, after, accepted)
            if now > started + seconds and len(accepted.keys() & born) == len(stored) == len(born):
                break
            clock.sleep(_LOOK_SECONDS)
    stage.alive()
    missing = born.keys() - (accepted.keys() & stored.keys())
    assert not missing, f"{len(missing)} of {len(born)} deposits never arrived"
    return [stored[key] - at for key, at in born.items()], [accepted[key] - at for key, at in born.items()]


def _accepted(api: httpx.Client, after: int, accepted: dict[str, float]) -> int:
    """Note the deposits that the API has accepted since the event numbered `after`; returns the newest number."""
    while True:
        sought = {"name": "deposit_confirmed", "after": str(after), "limit": str(_EVENTS)}
        events = api.get("/_control/events", params=sought).json()["events"]
        for event in events:
            after = max(after, event["seq"])
            accepted.setdefault(event["attributes"]["transaction_id"], clock.monotonic())
        if len(events) < _EVENTS:
            return after


def percentile(values: list[float], point: int) -> float:
    """Return the value below which `point` percent of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * point // 100)]


if __name__ == "__main__":
    main()
