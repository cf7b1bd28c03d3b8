"""Items/s to an API that answers in 50 ms, and what live events wait for it while a lane of history is full.

`make bench-delivery`. A store with a backlog: every player changed, and bets and deposits of theirs that nobody has
been told of. The daemon itself delivers them to `bench.sink`; every event's id is computed from the store in the end
and has to have arrived, once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import psycopg
import yaml

from bench import sink
from bench.latency import percentile
from connector import app as application, clock
from connector.event import ulid
from connector.store import embedded, players
from connector.store.database import ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAYERS: Final = 20_000
#: Requests a second, the destination's default: no second may see more.
RATE: Final = 100
_EVERY_SECONDS: Final = 0.05
_LAST_SECONDS: Final = 900.0
_NAMES: Final = ("bet_placed", "bet_settled", "deposit_confirmed")
_PLAYERS_IN: Final = f"""
    insert into crm.players (tenant, brand_id, external_id, username, first_name, last_name, country, language, status,
                             status_raw, kyc_status, default_currency_code, traits, is_stub, eligible, marketable,
                             created_at, source_updated_at)
    select 'bench', 'bench', n::text, 'player' || n, 'First' || n, 'Last' || n, 'DE', 'de', 'active', 'ACTIVE',
           'approved', 'EUR', '{{"timezone": "Europe/Berlin", "stag": "1234_5678"}}', false, true, true,
           now() - interval '1 year', now() - interval '1 day'
    from generate_series(1, {PLAYERS}) n;
    insert into crm.player_contacts (player_id, tenant, email, phone)
    select player_id, tenant, username || '@example.com', '+4930' || lpad(external_id, 7, '0') from crm.players;
    insert into crm.player_changes (player_id, reason) select player_id, 'profile' from crm.players order by player_id;
    insert into crm.event_streams (tenant, source, stream, generation, brand_id)
    values ('bench', 'bench', 'casino_bets', 0, 'bench'), ('bench', 'bench', 'deposits', 0, 'bench');
    insert into crm.event_shapes (tenant, names) values
        ('bench', array['payment_method', 'payment_provider', 'fee']),
        ('bench', array['bet_id', 'round_id', 'game_id', 'game_name', 'game_category', 'game_provider', 'amount_real',
                        'amount_bonus', 'payout', 'outcome']);
"""
_BET: Final = """
    n / 2, n / 2, n %% 300, 'Game ' || n %% 300, 'slots', 'studio', '10.00', '2.50'
"""
#: Of twenty events one is a deposit, the others are bets and wins in turn, as they are stored from the views.
_EVENTS_IN: Final = f"""
    insert into crm.event_rows (player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency,
                                amount, fx_rate_locked, mark, transaction_id, shape_id, packed)
    select min_id + (n * 7919) %% {PLAYERS}, now() - %(age)s::interval, 1250, s.stream_id, e.name_id,
           case name when 'bet_placed' then 3 when 'bet_settled' then 4 else 1 end, %(history)s, n::text, 'EUR',
           12.5, 1, n, case when name <> 'deposit_confirmed' then (n / 2)::text end,
           h.shape_id,
           case name when 'deposit_confirmed' then concat_ws(chr(31), 'card', 'acquirer', '0.10')
                     when 'bet_placed' then concat_ws(chr(31), {_BET})
                     else concat_ws(chr(31), {_BET}, '12.50', 'won') end
    from generate_series(%(first)s::bigint, %(first)s + %(count)s - 1) n
    cross join (select min(player_id) as min_id from crm.players) p
    join crm.event_names e on e.name = (array['bet_placed', 'bet_settled', 'deposit_confirmed'])[
        case when n %% 20 = 0 then 3 else 1 + n %% 2 end]
    join crm.event_streams s on s.stream = case when n %% 20 = 0 then 'deposits' else 'casino_bets' end
    join crm.event_shapes h on h.names[1] = case when n %% 20 = 0 then 'payment_method' else 'bet_id' end
    order by n.n
"""
_PARK: Final = """
    insert into crm.parked_events (tenant, destination, player_id, seq, history)
    select 'bench', 'api', player_id, seq, true from crm.event_rows where history
"""
_SENT: Final = """
    select e.occurred_at, s.tenant, s.source, s.stream, s.generation::text, s.brand_id, e.key, n.name
    from crm.event_rows e join crm.event_streams s using (stream_id) join crm.event_names n using (name_id)
"""
_LIVE_IN: Final = """
    insert into crm.event_rows (player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency,
                                amount, fx_rate_locked, properties)
    select p.player_id, clock_timestamp(), 1000, s.stream_id, n.name_id, 1, false, %s, 'EUR', 10, 1,
           '{"payment_method": "card", "fee": "0.10"}'
    from crm.players p, crm.event_streams s, crm.event_names n
    where p.external_id = %s and s.stream = 'deposits' and n.name = 'deposit_confirmed'
    returning player_id, occurred_at
"""


def main() -> None:
    """Print the figures, and last one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m bench.delivery")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--history", type=int, default=500_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long live events are watched, twice")
    options = parser.parse_args()
    print(json.dumps(measure(events=options.events, history=options.history, seconds=options.seconds)))


def measure(*, events: int = 1_000_000, history: int = 500_000, seconds: float = 15.0) -> dict[str, float]:
    """Deliver a backlog, then watch live events alone and beside history; return the figures, nothing lost."""
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name, contextlib.ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        server = embedded.start(root / "store")
        stack.callback(server.stop)
        bench = stack.enter_context(_stage(root, server.create_database("bench")))
        bench.fill(events, history=False)
        bench.start_daemon()
        figures = _backlog(bench, events) | bench.cost(server)
        figures |= _named("alone", _trickle(bench, seconds))
        figures |= _beside_history(bench, history, seconds)
        figures["daemon_rss_mb"] = bench.greatest_rss()
        requests = bench.sent()
    figures["requests_per_second"] = max(Counter(int(request.at) for request in requests).values())
    assert figures["requests_per_second"] <= RATE, "more requests in a second than the destination allows"
    for name, value in figures.items():
        print(f"{name + ':':<36} {value:>12,.2f}")
    return figures


@dataclass
class Bench:
    """A store, a sink and, once it is started, the daemon between them."""

    root: Path
    store: psycopg.Connection[Any]
    log: Path
    sink_pid: int
    stack: contextlib.ExitStack
    daemon: subprocess.Popen[bytes] | None = None
    live: int = 0
    requests: list[sink.Request] = field(default_factory=list)
    offset: int = 0

    def fill(self, count: int, *, history: bool) -> None:
        """Put events into the ledger; history is put up for sending too."""
        values = {"first": 10_000_000 if history else 0, "count": count, "history": history}
        self.store.execute(_EVENTS_IN, {**values, "age": "30 days" if history else "1 minute"})
        if history:
            self.store.execute(_PARK)
        self.store.execute("analyze")

    def start_daemon(self) -> None:
        """Start `connector run`; it is stopped with the stack."""
        self.daemon = self.stack.enter_context(
            _process("connector", "run", "--config", str(self.root / "config.yaml"), log=self.root / "daemon.log")
        )

    def sent(self) -> list[sink.Request]:
        """Return all that has arrived, in order."""
        self.offset = sink.read(self.log, self.offset, self.requests)
        return self.requests

    def await_items(self, items: int) -> list[sink.Request]:
        """Wait until so many items have arrived, and return what did."""
        deadline = clock.monotonic() + _LAST_SECONDS
        while (came := sum(request.items for request in self.sent())) < items:
            assert self.daemon is not None
            assert self.daemon.poll() is None, (self.root / "daemon.log").read_text()[-2000:]
            assert clock.monotonic() < deadline, f"{came:,} of {items:,} items came"
            clock.sleep(0.5)
        return self.requests

    def deposit(self) -> tuple[str, float]:
        """Commit one deposit with its player's change; return the event's id and the moment of the commit."""
        self.live += 1
        key = f"live{self.live}"
        with self.store.transaction():
            ordered(self.store)
            row = self.store.execute(_LIVE_IN, (key, str(self.live * 17 % PLAYERS + 1))).fetchone()
            assert row is not None
            players.mark(self.store, [row[0]], "profile")
        identity = ("bench", "bench", "deposits", "0", "bench", key, "deposit_confirmed")
        return ulid(int(row[1].timestamp() * 1000), identity), clock.monotonic()

    def cost(self, server: embedded.Server) -> dict[str, float]:
        """Return the CPU seconds of those who have delivered, without the session that filled the store."""
        assert self.daemon is not None
        assert server.process is not None
        ours = self.store.info.backend_pid
        return {
            "daemon_cpu_seconds": _cpu([self.daemon.pid]),
            "sink_cpu_seconds": _cpu([self.sink_pid]),
            "store_cpu_seconds": _cpu([pid for pid in _children(server.process.pid) if pid != ours]),
        }

    def greatest_rss(self) -> float:
        """Return the most memory that the daemon has had, in megabytes."""
        assert self.daemon is not None
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1]) / 1024


def _backlog(bench: Bench, events: int) -> dict[str, float]:
    """Measure from the daemon's start to the last item; every event that is in the store has come once."""
    started = clock.monotonic()
    requests = bench.await_items(events + PLAYERS)
    seconds = requests[-1].at - started
    came = Counter(event_id for request in requests for event_id in request.ids)
    wanted = _ids(bench.store)
    assert came.keys() == wanted, f"{len(wanted - came.keys()):,} of {len(wanted):,} events are missing"
    items = sum(request.items for request in requests)
    return {
        "items_per_second": items / seconds,
        "items": items,
        "lost": len(wanted - came.keys()),
        "sent_twice": sum(came.values()) - len(came),
        "items_per_request": items / len(requests),
        "bytes_per_item": sum(request.bytes for request in requests) / items,
    }


def _beside_history(bench: Bench, history: int, seconds: float) -> dict[str, float]:
    """Measure live events while history is delivered, which must last longer than they are watched."""
    before = sum(request.items for request in bench.sent())
    bench.fill(history, history=True)
    flowing = len(bench.await_items(before + 1)) - 1
    started = bench.requests[flowing].at
    waits = _trickle(bench, seconds)
    parked = bench.store.execute("select count(*) from crm.parked_events").fetchone()
    assert parked is not None
    assert parked[0] > 0, "history was delivered before the live events were: use more of it"
    requests = bench.await_items(before + 2 * len(waits) + history)
    missing = _ids(bench.store) - {event_id for request in requests for event_id in request.ids}
    assert not missing, f"{len(missing):,} events are missing"
    speed = history / (requests[-1].at - started)
    return {**_named("beside_history", waits), "history_per_second": speed}


def _trickle(bench: Bench, seconds: float) -> list[float]:
    """Commit a deposit every _EVERY_SECONDS; return how long each took from its commit to the API."""
    born: dict[str, float] = {}
    before, started = len(bench.sent()), clock.monotonic()
    while clock.monotonic() < started + seconds:
        event_id, at = bench.deposit()
        born[event_id] = at
        clock.sleep(max(0.0, started + len(born) * _EVERY_SECONDS - clock.monotonic()))
    deadline = clock.monotonic() + _LAST_SECONDS
    while True:
        came = {event_id: request.at for request in bench.sent()[before:] for event_id in request.ids}
        if born.keys() <= came.keys():
            return [came[event_id] - at for event_id, at in born.items()]
        assert clock.monotonic() < deadline, f"{len(born.keys() - came.keys())} live events did not come"
        clock.sleep(0.5)


def _named(what: str, waits: list[float]) -> dict[str, float]:
    return {f"live_{what}_p{point}_seconds": percentile(waits, point) for point in (50, 95)}


def _ids(store: psycopg.Connection[Any]) -> set[str]:
    with store.transaction(), store.cursor("ids") as cursor:
        return {ulid(int(at.timestamp() * 1000), tuple(identity)) for at, *identity in cursor.execute(_SENT)}


@contextlib.contextmanager
def _stage(root: Path, url: str) -> Iterator[Bench]:
    """Write the configuration, make the store's schema and players, start the sink."""
    port, log = embedded.free_port(), root / "sink.log"
    document: dict[str, Any] = {
        "tenant": "bench",
        "store": {"url": url},
        "web": None,
        "sources": [{"name": "bench", "url": "postgresql://nobody@127.0.0.1:9/none", "streams": {"deposits": {}}}],
        "destinations": [
            {"name": "api", "kind": "customerio_track", "url": f"http://127.0.0.1:{port}", "site_id": "s"}
            | {"api_key": "k", "rate": RATE, "events": list(_NAMES)}
        ],
    }
    (root / "config.yaml").write_text(yaml.safe_dump(document))
    application.build(application.load_config(root / "config.yaml")).close()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(psycopg.connect(url, autocommit=True))
        store.execute(_PLAYERS_IN.encode())
        process = stack.enter_context(_process("bench.sink", str(port), str(log), log=root / "sink.err"))
        _await(lambda: httpx.get(f"http://127.0.0.1:{port}/api/v1/accounts/region").is_success)
        yield Bench(root, store, log, process.pid, stack)


@contextlib.contextmanager
def _process(module: str, *arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await(ready: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 30.0
    while True:
        with contextlib.suppress(httpx.TransportError):
            if ready():
                return
        assert clock.monotonic() < deadline, "the sink did not start"
        clock.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu(pids: list[int]) -> float:
    """Return the CPU seconds of processes, all their threads."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


if __name__ == "__main__":
    main()
