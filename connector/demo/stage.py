"""The demo's stage: an operator's server, a store's server, the emulator and the daemon, each a process of its own.

Owns starting, stopping and comparing them. Everything lives in one temporary directory and goes with it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import psycopg
import yaml

from connector import app, clock
from connector.demo import casino
from connector.demo.traffic import Traffic
from connector.errors import Transient, Unhealthy
from connector.store import embedded, reports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
#: A demo may forget everything in a power cut.
THROWAWAY: Final = {"fsync": "off", "full_page_writes": "off"}
#: Canonical event -> the stream it comes from; all of these are sent.
EVENTS: Final = {
    "signup": "user_profile",
    "self_exclusion_set": "user_profile",
    "self_exclusion_lifted": "user_profile",
    "kyc_submitted": "user_profile",
    "kyc_approved": "user_profile",
    "deposit_confirmed": "deposits",
    "withdrawal_requested": "withdrawals",
    "custom_withdrawal_approved": "withdrawals",
    "withdrawal_confirmed": "withdrawals",
    "withdrawal_failed": "withdrawals",
    "bet_placed": "casino_bets",
    "bet_settled": "casino_bets",
    "custom_bet_rolled_back": "casino_bets",
    "sport_bet_placed": "sport_bet_open",
    "custom_sport_bet_selection_open": "sport_bet_selection_open",
    "sport_bet_settled": "sport_bet_settled",
    "sport_bet_voided": "sport_bet_settled",
    "sport_cashout": "sport_bet_settled",
    "custom_sport_bet_rolled_back": "sport_bet_settled",
    "custom_sport_bet_selection_settled": "sport_bet_selection_settled",
    "deposit_failed": "failed_deposits",
    "bonus_claimed": "bonuses",
    "custom_bonus_activated": "bonuses",
    "bonus_completed": "bonuses",
    "custom_bonus_cancelled": "bonuses",
    "bonus_expired": "bonuses",
}


@dataclass(frozen=True)
class Sight:
    """Rows per stream at one moment: on the replica, in the store, and items delivered."""

    replica: Mapping[str, int]
    store: Mapping[str, int]
    delivered: Mapping[str, int]

    @property
    def agrees(self) -> bool:
        """Whether the store holds exactly what the replica shows."""
        return all(self.store.get(stream) == rows for stream, rows in self.replica.items())


@dataclass
class Stage:
    """A running demo. As a context manager it builds everything and takes it down.

    `servers` are stopped with it, last first: the operator's, the store's, and what a user of the stage adds.
    """

    players: int
    bets: int
    rate: float
    tell: Callable[[str], None]
    root: Path = field(init=False)
    operator: casino.Casino = field(init=False)
    traffic: Traffic = field(init=False)
    servers: list[embedded.Server] = field(default_factory=list, init=False)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, init=False)
    api: httpx.Client = field(init=False)

    def __enter__(self) -> Self:
        """Build the casino, start the servers, the emulator and the daemon, and let the players in."""
        self.root = Path(tempfile.mkdtemp(prefix="connector-demo-"))
        self.root.chmod(0o755)
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down."""
        self.close()

    def see(self) -> Sight:
        """Count everything now: the replica's counts are of one snapshot, the store's are taken after them."""
        replica = self.operator.counts()
        with psycopg.connect(self.store_url) as connection:
            store = {stream: reports.stored(connection, "kaasino", stream) for stream in replica}
        counts = self.api.get("/_control/counts").json()
        delivered = dict.fromkeys(replica, 0) | {"user_profile": int(counts["actions"].get("person.identify", 0))}
        for name, number in counts["events_by_name"].items():
            delivered[EVENTS[name]] += int(number)
        return Sight(replica, store, delivered)

    def status(self) -> dict[str, Any]:
        """Return what `connector status --json` says."""
        return app.status(app.load_config(self.root / "config.yaml"))

    def drain(self, seconds: float) -> None:
        """Wait until what the replica shows now, and everything before it, is in the store and delivered."""
        goal = self.operator.counts()
        deadline = clock.monotonic() + seconds
        while clock.monotonic() < deadline:
            sight, status = self.see(), self.status()
            pending = sum(row["pending"] for row in status["destinations"].values())
            if all(sight.store[stream] >= rows for stream, rows in goal.items()) and pending < self.rate:
                return
            clock.sleep(0.2)
        raise Unhealthy("the demo did not catch up in time")

    def settle(self, seconds: float) -> tuple[Sight, dict[str, Any]]:
        """Stop the traffic and wait until store and destination have everything, or the time is up."""
        self.traffic.stop()
        deadline = clock.monotonic() + seconds
        while True:
            sight, status = self.see(), self.status()
            pending = sum(row["pending"] for row in status["destinations"].values())
            if (sight.agrees and pending == 0) or clock.monotonic() > deadline:
                return sight, status
            self.alive()
            clock.sleep(0.2)

    def alive(self) -> None:
        """Raise when a process of the demo has ended, with the last words of its log."""
        if self.traffic.failed is not None:
            raise Unhealthy(f"the casino's traffic failed: {self.traffic.failed}")
        for process, name in zip(self._processes, ("emulator", "daemon"), strict=False):
            if process.poll() is not None:
                words = (self.root / f"{name}.log").read_text(errors="replace").strip().splitlines()
                raise Unhealthy(f"the demo's {name} ended: {words[-1] if words else 'without a word'}")

    @property
    def daemon_pid(self) -> int:
        """Return the daemon's process id."""
        return self._processes[-1].pid

    def kill_daemon(self) -> None:
        """End the daemon with SIGKILL, wherever it stands."""
        daemon = self._processes.pop()
        daemon.kill()
        daemon.wait()

    def start_daemon(self) -> None:
        """Start a daemon on the demo's configuration."""
        self._run("daemon", "run", "--config", str(self.root / "config.yaml"))

    def close(self) -> None:
        """Stop what was started, last first; idempotent."""
        if hasattr(self, "traffic"):
            self.traffic.stop()
        if hasattr(self, "api"):
            self.api.close()
        while self._processes:
            process = self._processes.pop()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        while self.servers:
            self.servers.pop().stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def _build(self) -> None:
        self.tell(f"building a casino: {self.players:,} players, {self.bets:,} bets")
        operator = embedded.start(self.root / "operator", settings=THROWAWAY)
        self.servers.append(operator)
        self.operator = casino.build(operator, players=self.players, bets=self.bets)
        self.tell("starting the CRM store, the API and the daemon")
        store = embedded.start(self.root / "store", settings=THROWAWAY)
        self.servers.append(store)
        self.store_url = store.create_database("crm")
        port = embedded.free_port()
        self._run("emulator", "emulate", "customerio", "--listen", f"127.0.0.1:{port}", "--forget-events", "10000")
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("demo", "demo"))
        self._await(lambda: self.api.get("/_control/counts").is_success)
        (self.root / "config.yaml").write_text(yaml.safe_dump(self._configuration(port), sort_keys=False))
        self.start_daemon()
        self._await(lambda: bool(self.status()["streams"]))
        self.traffic = Traffic(self.operator.admin_url, rate=self.rate)
        self.traffic.start()

    def _configuration(self, port: int) -> dict[str, Any]:
        views = self.operator.views
        return {
            "tenant": "kaasino",
            "base_currency": "EUR",
            "fx": {"fixed": {"GBP": "1.17", "TRX": "0.25", "BTC": "60000"}},
            "store": {"url": self.store_url},
            "sources": [
                {
                    "name": "kaasino",
                    "url": self.operator.url,
                    "lateness": "5s",
                    "wait": {"busy": "0ms", "idle": "200ms"},
                    "brands": {
                        "kaasino": {"customer_id": "kaasino:{user_ext_id}", "site_domain": "kaasino.example.com"}
                    },
                    "streams": {name: {"view": view, "start": "beginning"} for name, view in views.items()},
                }
            ],
            "destinations": [
                {
                    "name": "customerio",
                    "kind": "customerio_track",
                    "url": f"http://127.0.0.1:{port}",
                    "site_id": "demo",
                    "api_key": "demo",
                    "events": list(EVENTS),
                }
            ],
            "web": None,
        }

    def _run(self, name: str, *arguments: str) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and package
                [sys.executable, "-m", "connector", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the demo, which stops them in order
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._processes.append(process)

    def _await(self, ready: Callable[[], bool]) -> None:
        deadline = clock.monotonic() + _READY_SECONDS
        while clock.monotonic() < deadline:
            for process in self._processes:
                if process.poll() is not None:
                    name = "daemon" if len(self._processes) > 1 else "emulator"
                    raise Unhealthy(
                        f"the demo's {name} ended: {(self.root / f'{name}.log').read_text(errors='replace')[-500:]}"
                    )
            try:
                if ready():
                    return
            except (httpx.TransportError, Unhealthy, Transient, psycopg.Error, json.JSONDecodeError):
                pass
            clock.sleep(0.05)
        raise Unhealthy("the demo did not start in time")
