"""What looking back costs the replica: CPU of our backend in the tail's queries and in the looks', at 1,000 rows/s.

`make bench-sweep`. A thread commits deposits (a time cursor: looks read keys) and bets (an id cursor: looks ask for
gaps) at the operator, 2 % of them rolled back and 2 % late. Both kinds of query run on the one connection that an
operator grants; the kernel's own account of that backend (schedstat, nanoseconds on the CPU) is read before and after.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from connector import app as application, clock, config, poller, sweeper
from connector.demo import casino
from connector.store import embedded
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from connector.sources.reader import Reader

_BEAT_SECONDS: Final = 0.1
#: Every so many beats a transaction rolls back: its ids are gaps for ever; and one commits so many beats late.
_ROLLED_BACK, _LATE, _LATE_BEATS = 50, 50, 20
_DEPOSITS: Final = """
    insert into casino.payments (
        user_id, account_id, action, amount_cents, currency, success, payment_system, psp_brand,
        created_at, updated_at, finished_at)
    select user_id, id, 'deposit', 1000, currency, true, 'card', 'probe', t.at, t.at, t.at
    from casino.accounts, lateral (select timezone('UTC', clock_timestamp()) + id * interval '0' as at) t
    where main order by id limit %s
"""
_BETS: Final = """
    insert into casino.balance_transactions (account_id, reference_type, reference_id, action, amount_cents, created_at)
    select account_id, reference_type, reference_id, 'bet', -100, timezone('UTC', clock_timestamp())
    from casino.balance_transactions where reference_type = 'CasinoGame' order by id limit %s
"""


def main() -> None:
    """Print what tail and looks cost each stream, and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.sweep")
    parser.add_argument("--rate", type=int, default=1000, help="rows a second of each of the two streams")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--lateness", default="40s", help="short, so that every age of look is at work")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        settings = {"fsync": "off", "full_page_writes": "off"}
        operator = embedded.start(root / "operator", settings=settings)
        store = embedded.start(root / "store", settings=settings)
        try:
            built = casino.build(operator, players=2_000, bets=20_000)
            spent = _measure(built, store, options)
        finally:
            store.stop()
            operator.stop()
    for stream in ("deposits", "casino_bets"):
        tail, looks = spent[stream, "tail"], spent[stream, "looks"]
        print(f"{stream:<12} tail {tail * 1000:8.0f} ms   looks {looks * 1000:8.0f} ms   ratio {looks / tail:.2f}")
    print(json.dumps({f"{stream}_{part}_cpu_seconds": seconds for (stream, part), seconds in spent.items()}))


def _measure(built: casino.Casino, store: embedded.Server, options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Run the daemon's own cycle beside the writer, and return CPU seconds of its backend by stream and part."""
    names = ("deposits", "casino_bets")
    source: dict[str, Any] = {
        "name": "bench",
        "url": built.url,
        "lateness": options.lateness,
        "streams": {name: {"view": built.views[name], "start": "now"} for name in names},
    }
    document = {"store": {"url": store.create_database("bench")}, "sources": [source], "web": None}
    app = application.build(config.parse(document, streams=list(STREAMS)))
    spent: dict[tuple[str, str], float] = defaultdict(float)
    stop = threading.Event()
    writer = threading.Thread(target=_write, args=(built.admin_url, options.rate, stop))
    with _accounted(spent):
        writer.start()
        until = clock.monotonic() + options.seconds
        while clock.monotonic() < until:
            busy = app.cycles[0].run_once().busy
            clock.sleep(app.cycles[0].source.wait.busy if busy else app.cycles[0].source.wait.idle)
        stop.set()
        writer.join()
    app.close()
    return dict(spent)


@contextmanager
def _accounted(spent: dict[tuple[str, str], float]) -> Iterator[None]:
    """Book the backend's CPU time of every tick and every look."""
    ticks, look = poller.ticks, sweeper.run_once

    def booked(work: Any, part: str) -> Any:
        def run(desk: poller.Desk, stream: poller.Stream, *arguments: Any, **named: Any) -> Any:
            before = _cpu_seconds(desk.reader)
            try:
                return work(desk, stream, *arguments, **named)
            finally:
                spent[stream.name, part] += _cpu_seconds(desk.reader) - before

        return run

    tick = booked(poller.tick, "tail")

    def one_by_one(*arguments: Any, seconds: float, **named: Any) -> Generator[poller.Tick]:
        until = clock.monotonic() + seconds
        while clock.monotonic() < until:
            done = tick(*arguments, **named)
            yield done
            if not done.more:
                return

    poller.ticks, sweeper.run_once = one_by_one, booked(look, "looks")
    try:
        yield
    finally:
        poller.ticks, sweeper.run_once = ticks, look


def _cpu_seconds(reader: Reader) -> float:
    connection = reader._connection
    if connection is None:
        return 0.0
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return int(Path(f"/proc/{driver.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9


def _write(url: str, rate: int, stop: threading.Event) -> None:
    """Commit rows beat by beat: most at once, some never, some two seconds late."""
    rows = int(rate * _BEAT_SECONDS)
    late: list[tuple[int, psycopg.Connection[Any]]] = []
    beat, started = 0, clock.monotonic()
    with psycopg.connect(url) as connection:
        while not stop.is_set():
            beat += 1
            held = psycopg.connect(url) if beat % _LATE == 0 else connection
            held.execute(_DEPOSITS, (rows,))
            held.execute(_BETS, (rows,))
            if held is not connection:
                late.append((beat + _LATE_BEATS, held))
            elif beat % _ROLLED_BACK == 1:
                connection.rollback()
            else:
                connection.commit()
            while late and late[0][0] <= beat:
                _, done = late.pop(0)
                done.commit()
                done.close()
            stop.wait(max(0.0, started + beat * _BEAT_SECONDS - clock.monotonic()))
    for _, open_ in late:
        open_.close()


if __name__ == "__main__":
    main()
