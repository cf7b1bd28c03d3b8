"""Start, stop and watch loops. Every loop has one shape: `run_once` does the work and says whether there is more.

Owns threads, waiting, back-off and the watchdog; knows nothing of what a loop does. Stopping is in two phases: the
loops are asked and finish the page in hand; one that does not within the grace loses its process.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from connector import clock
from connector.errors import ConnectorError, Halted, Throttled, Unhealthy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connector.metrics import Metrics

#: A loop that has reported neither success nor failure for this long is stuck.
WATCHDOG_SECONDS: Final = 60.0
STOP_SECONDS: Final = 6.0
_BACKOFF: Final = (0.25, 30.0)
_HALTED_SECONDS: Final = 60.0
#: The same failure is told once in this time, however often it comes and goes.
QUIET_SECONDS: Final = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Worked:
    """What a pass did. `busy`: there is more to do at once; `standby`: another process holds the lease of this work.

    `news`: it wrote what loops that listen may have waited for.
    """

    busy: bool = False
    standby: bool = False
    news: bool = False


class Loop(Protocol):
    """One loop. `run_once` and `close` are called on its own thread; an exception is a recorded failure, not an end."""

    @property
    def name(self) -> str:
        """What the loop is called in logs, metrics and leases."""

    def run_once(self) -> Worked:
        """Do one pass, short against the watchdog's patience; called again after the loop's pace or a back-off."""

    def close(self) -> None:
        """Release what the passes opened; called once, after the last."""


@dataclass(frozen=True)
class Pace:
    """Seconds to wait after a pass: one that did something, and one that found nothing to do.

    A loop that `listens` does not wait when another one of its process has news; what other processes write it finds
    after `idle`.
    """

    busy: float = 0.0
    idle: float = 1.0
    listens: bool = False


class Bell:
    """Stands in for the event that stops a loop which listens: its wait ends with that, or when there is news."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._rung = threading.Event()

    def is_set(self) -> bool:
        """Return whether the loop is to stop."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> None:
        """Wait until it rings, at most so long; it may have rung since the last wait."""
        self._rung.wait(seconds)
        self._rung.clear()

    def ring(self) -> None:
        """End the wait, or the next one. Called by any thread."""
        self._rung.set()


@dataclass
class Runner:
    """A loop on its thread."""

    loop: Loop
    pace: Pace
    metrics: Metrics
    reported_at: float = field(default_factory=clock.monotonic)
    waiting: bool = False
    failures: int = 0
    told: str = ""
    told_at: float = float("-inf")
    thread: threading.Thread | None = None
    tell_news: Callable[[], None] = lambda: None

    def run(self, stop: threading.Event | Bell) -> None:
        """Run passes until told to stop. Runs on the thread; ends by closing the loop there."""
        try:
            while not stop.is_set():
                seconds = self._pass()
                self.waiting = True  # a wait that was decided on is no silence
                stop.wait(seconds)
                self.reported_at, self.waiting = clock.monotonic(), False
        finally:
            self.loop.close()

    def _pass(self) -> float:
        """Do one pass and return how long to wait before the next."""
        try:
            worked = self.loop.run_once()
        except Exception as error:  # noqa: BLE001 - a loop outlives every failure; it is counted, logged and retried
            return self._failed(error)
        finally:
            self.reported_at = clock.monotonic()
        self.failures = 0
        self.metrics.last_success.labels(self.loop.name).set(clock.now().timestamp())
        if worked.news:
            self.tell_news()
        return self.pace.busy if worked.busy else self.pace.idle

    def _failed(self, error: Exception) -> float:
        self.failures += 1
        self.metrics.failures.labels(self.loop.name).inc()
        wait = backoff(self.failures)
        if isinstance(error, Throttled):
            wait = max(error.after, wait)
        elif isinstance(error, Halted):
            wait = _HALTED_SECONDS
        self._tell(str(error) if isinstance(error, ConnectorError) else named(error))  # another's text may hold values
        return wait

    def _tell(self, said: str) -> None:
        """Log the 1st, 2nd, 4th, 8th ... of a row of failures, and no failure again at once: no flood."""
        now = clock.monotonic()
        if self.failures & (self.failures - 1) == 0 and (said != self.told or now - self.told_at >= QUIET_SECONDS):
            self.told, self.told_at = said, now
            log.warning("loop.failed", loop=self.loop.name, failures=self.failures, error=said)


def named(error: Exception) -> str:
    """Return where an unforeseen error comes from, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))


def backoff(failures: int) -> float:
    """Return seconds to wait after the n-th failure in a row: doubling, capped, with jitter against herds."""
    least, most = _BACKOFF
    return min(most, least * 2.0 ** min(failures, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Service:
    """All loops of a process. `start` once, `stop` any number of times."""

    def __init__(self, loops: Sequence[tuple[Loop, Pace]], metrics: Metrics) -> None:
        self.runners = [Runner(loop, pace, metrics, tell_news=self._ring) for loop, pace in loops]
        self._stop = threading.Event()
        self._bells = {runner.loop.name: Bell(self._stop) for runner in self.runners if runner.pace.listens}

    def start(self) -> None:
        """Start every loop on a thread of its own."""
        for runner in self.runners:
            runner.reported_at = clock.monotonic()
            stop = self._bells.get(runner.loop.name, self._stop)
            runner.thread = threading.Thread(target=runner.run, args=(stop,), name=runner.loop.name, daemon=True)
            runner.thread.start()

    def stop(self) -> bool:
        """Ask every loop to finish, and wait; False when one did not in STOP_SECONDS (its transaction rolls back)."""
        self._stop.set()
        self._ring()
        deadline = clock.monotonic() + STOP_SECONDS
        for runner in self.runners:
            if runner.thread is not None:
                runner.thread.join(max(0.0, deadline - clock.monotonic()))
        late = [runner.loop.name for runner in self.runners if runner.thread is not None and runner.thread.is_alive()]
        if late:
            log.warning("stop.abandoned", loops=late)
        return not late

    def _ring(self) -> None:
        for bell in self._bells.values():
            bell.ring()

    def stuck(self) -> list[str]:
        """Return the loops that have reported nothing for WATCHDOG_SECONDS."""
        oldest = clock.monotonic() - WATCHDOG_SECONDS
        return [runner.loop.name for runner in self.runners if not runner.waiting and runner.reported_at < oldest]


def supervise(
    service: Service, stopping: threading.Event, *, notify: Callable[[str], None], alive: Callable[[], bool]
) -> bool:
    """Run a started service until `stopping`, feeding systemd's watchdog while every loop reports. Returns `stop()`.

    Raises Unhealthy when what the process stands on (`alive`) has gone: whoever supervises it starts it anew.
    """
    notify("READY=1\nSTATUS=running")
    while not stopping.wait(watchdog_interval()):
        if not alive():
            service.stop()
            raise Unhealthy(
                "the embedded PostgreSQL has ended", hint="read server.log beside its data, and start again"
            )
        if stuck := service.stuck():
            log.error("watchdog.stuck", loops=stuck)
            notify(f"STATUS=stuck: {', '.join(stuck)}")
        else:
            notify("WATCHDOG=1\nSTATUS=running")
    notify("STOPPING=1")
    return service.stop()


def watchdog_interval() -> float:
    """Return seconds between watchdog messages: half of what systemd asks for."""
    return min(10.0, int(os.environ.get("WATCHDOG_USEC", "20000000")) / 2_000_000)


def notify_systemd(message: str) -> None:
    """Send a message to systemd's notification socket; does nothing when there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:  # a message that does not arrive must not end the daemon
        log.warning("systemd.not_notified", error=str(error))
