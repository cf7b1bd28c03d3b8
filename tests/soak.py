"""`make soak MINUTES=10`: a living casino, two daemons on one configuration, and every fault there is, at random.

The daemons read a hot standby and write their store through proxies that cut, stall, slow and refuse; they are killed
and frozen; servers restart, replay pauses, sessions are ended, locks are held. Afterwards everything is left alone, and
what the replica shows is compared with the store key by key. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import yaml

from bench.latency import DEPOSIT, STORED, percentile
from connector import clock
from connector.demo.stage import THROWAWAY, Stage
from connector.store import embedded
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

#: Stream -> (its event key, its cursor) at the operator.
KEYS: Final = {
    "deposits": ("transaction_id::text", "dt_finalized"),
    "withdrawals": ("transaction_id::text || '|' || withdrawal_status", "dt_finalized"),
    "casino_bets": ("id::text", "id"),
    "sport_bet_open": ("id::text", "id"),
    "sport_bet_settled": ("id::text", "id"),
    "failed_deposits": ("transaction_id::text", "dt_finalized"),
    "bonuses": ("id::text", "id"),
}
_END_SESSIONS: Final = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'connector' and pid <> pg_backend_pid()"
_PATIENCE_SECONDS: Final = 180.0
_PROBES_APART: Final = 1.0


@dataclass
class Soak:
    """The stage, its two daemons, and the faults done to them."""

    stage: Stage
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    pause: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """Put a standby and the proxies between casino and daemons, and start both daemons."""
        self.stage.kill_daemon()
        operator, store = self.stage.servers
        self.standby = embedded.follow(operator, self.stage.root / "standby", settings=THROWAWAY)
        self.stage.servers.append(self.standby)
        self.source_proxy, self.store_proxy = Proxy(self.standby.port), Proxy(store.port)
        self.file = self.stage.root / "soak.yaml"
        document = yaml.safe_load((self.stage.root / "config.yaml").read_text())
        document["sources"][0]["url"] = self.source_proxy.through(self.stage.operator.url_on(self.standby))
        document["store"]["url"] = self.store_proxy.through(self.stage.store_url)
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))
        self.daemons = [self.start(), self.start()]

    def start(self) -> subprocess.Popen[bytes]:
        """Start one daemon more; its log is added to the last one's."""
        with (self.stage.root / "soak.log").open("ab") as log:
            command = [sys.executable, "-m", "connector", "run", "--config", str(self.file)]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def strike(self) -> None:
        """Do one fault, chosen at random, and end it."""
        name = self.rng.choice(sorted(FAULTS))
        self.done[name] += 1
        FAULTS[name](self)

    def wait(self, least: float, most: float) -> None:
        """Let the fault last."""
        self.pause.wait(self.rng.uniform(least, most))

    def leave_alone(self) -> None:
        """End every fault; whoever died lives again."""
        for proxy in (self.source_proxy, self.store_proxy):
            proxy.restore()
        for index, daemon in enumerate(self.daemons):
            if daemon.poll() is not None:
                self.daemons[index] = self.start()

    def close(self) -> None:
        """End daemons and proxies."""
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        for proxy in (self.source_proxy, self.store_proxy):
            proxy.close()


def _kill(soak: Soak) -> None:
    index = soak.rng.randrange(2)
    soak.daemons[index].kill()
    soak.daemons[index].wait()
    soak.wait(0, 2)
    soak.daemons[index] = soak.start()


def _freeze(soak: Soak) -> None:
    daemon = soak.rng.choice(soak.daemons)
    daemon.send_signal(signal.SIGSTOP)
    soak.wait(0.5, 12)
    daemon.send_signal(signal.SIGCONT)


def _network(
    which: str, fault: Callable[[Proxy, random.Random], None], least: float, most: float
) -> Callable[[Soak], None]:
    def strike(soak: Soak) -> None:
        proxy: Proxy = getattr(soak, f"{which}_proxy")
        fault(proxy, soak.rng)
        soak.wait(least, most)
        proxy.restore()

    return strike


def _restart(which: int) -> Callable[[Soak], None]:
    def strike(soak: Soak) -> None:
        server = soak.stage.servers[which]
        server.stop()
        soak.wait(0, 2)
        soak.stage.servers[which] = embedded.start(server.directory, port=server.port, settings=THROWAWAY)

    return strike


def _end_sessions(which: int) -> Callable[[Soak], None]:
    def strike(soak: Soak) -> None:
        with psycopg.connect(soak.stage.servers[which].url(), autocommit=True) as connection:
            connection.execute(_END_SESSIONS)

    return strike


def _pause_replay(soak: Soak) -> None:
    url = soak.stage.servers[2].url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_wal_replay_pause()")
        soak.wait(0.5, 6)
        connection.execute("select pg_wal_replay_resume()")


def _lock(soak: Soak) -> None:
    with psycopg.connect(soak.stage.store_url) as connection:
        connection.execute(
            soak.rng.choice(("lock table crm.players", "lock table crm.checkpoints", "lock table crm.leases"))
        )
        soak.wait(0.2, 3)


FAULTS: Final[dict[str, Callable[[Soak], None]]] = {
    "kill": _kill,
    "freeze": _freeze,
    "lock": _lock,
    "pause_replay": _pause_replay,
    "restart_standby": _restart(2),
    "restart_store": _restart(1),
    "end_source_sessions": _end_sessions(2),
    "end_store_sessions": _end_sessions(1),
    **{
        f"{fault}_{which}": _network(which, strike, least, most)
        for which in ("source", "store")
        for fault, strike, least, most in (
            ("cut", lambda proxy, _: proxy.cut(), 0, 0.5),
            ("cut_in_page", lambda proxy, rng: proxy.cut_after(rng.randrange(1, 200_000)), 0.5, 2),
            ("stall", lambda proxy, _: proxy.stall(), 0.5, 6),
            ("slow", lambda proxy, _: proxy.slow(20_000), 1, 4),
            ("refuse", lambda proxy, _: proxy.refuse(), 0.5, 4),
        )
    },
}


@dataclass
class Probe:
    """Deposits made one by one, each timed until it is in the store, whatever happens meanwhile."""

    stage: Stage
    stop: threading.Event = field(default_factory=threading.Event)
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Work until told to stop; runs on a thread."""
        born: dict[str, float] = {}
        with psycopg.connect(self.stage.operator.admin_url, autocommit=True) as operator:
            while not self.stop.wait(0.05):
                if not born or clock.monotonic() - max(born.values()) > _PROBES_APART:
                    row = operator.execute(DEPOSIT, (len(self.seconds) % 1000,)).fetchone()
                    assert row is not None
                    born[str(row[0])] = clock.monotonic()
                try:
                    with psycopg.connect(self.stage.store_url) as store:
                        arrived = store.execute(STORED, (list(born),)).fetchall()
                except psycopg.Error:
                    continue  # it restarts
                self.seconds += [clock.monotonic() - born.pop(key) for (key,) in arrived]


def main() -> int:
    """Soak, compare, print one JSON line; 0 when nothing is missing and nothing doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with Stage(players=5_000, bets=50_000, rate=options.rate, tell=print) as stage:
        soak, probe = Soak(stage, random.Random(options.seed)), Probe(stage)
        soak.prepare()
        thread = threading.Thread(target=probe.run)
        thread.start()
        try:
            until = clock.monotonic() + options.minutes * 60
            while clock.monotonic() < until:
                soak.strike()
                soak.wait(0.2, 5)
            soak.leave_alone()
            stage.traffic.stop()
            probe.stop.set()
            thread.join()
            found = _compare(soak)
        finally:
            probe.stop.set()
            soak.close()
        if found["missing"] or found["doubled"] or found["audit"] != 0:
            print((stage.root / "soak.log").read_text()[-20_000:])
    kills, cuts = soak.done["kill"], sum(number for name, number in soak.done.items() if name.startswith("cut"))
    lag = round(percentile(probe.seconds, 95), 2)
    print(json.dumps({**found, "kills": kills, "cuts": cuts, "faults": sum(soak.done.values()), "p95_lag": lag}))
    return 0 if found["missing"] == found["doubled"] == found["audit"] == 0 else 1


def _compare(soak: Soak) -> dict[str, Any]:
    """Wait until all is in, audit everything, and compare key by key."""
    deadline = clock.monotonic() + _PATIENCE_SECONDS
    while clock.monotonic() < deadline:
        there, here = _keys(soak.stage)
        if there == here:
            break
        clock.sleep(1.0)
    command = [sys.executable, "-m", "connector", "audit", "--config", str(soak.file), "--json"]
    audit = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    print(audit.stdout.strip() or audit.stderr.strip())
    there, here = _keys(soak.stage)
    with psycopg.connect(soak.stage.store_url) as store:
        late = store.execute("select coalesce(sum(late_rows), 0)::bigint from crm.checkpoints").fetchone()
    return {
        "rows_committed": there.total(),
        "rows_in_store": here.total(),
        "missing": (there - here).total(),
        "doubled": (here - there).total(),
        "late_rows_found": 0 if late is None else late[0],
        "audit": audit.returncode,
    }


def _keys(stage: Stage) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Return every row's identity at the operator's primary and in the store; users among them."""
    there: Counter[tuple[str, str]] = Counter()
    here: Counter[tuple[str, str]] = Counter()
    with psycopg.connect(stage.operator.admin_url) as operator, psycopg.connect(stage.store_url) as store:
        for stream, (key, cursor) in KEYS.items():
            rows = operator.execute(f"select {key} from crm_export.{stream} where {cursor} is not null")
            there.update((stream, row[0]) for row in rows)
            stored = store.execute("select key from crm.events where stream = %s", (stream,))
            here.update((stream, row[0]) for row in stored)
        users = operator.execute("select user_ext_id::text || '|' || dt_update from crm_export.user_profile")
        there.update(("user_profile", row[0]) for row in users)
        players = store.execute(
            "select external_id || '|' || timezone('UTC', source_updated_at) from crm.players where not is_stub"
        )
        here.update(("user_profile", row[0]) for row in players)
    return there, here


if __name__ == "__main__":
    sys.exit(main())
