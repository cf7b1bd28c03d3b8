"""Loops that outlive their failures, stop when asked, and tell systemd the truth."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings, strategies as st
from structlog.testing import capture_logs

from connector import clock
from connector.errors import Halted, LeaseLost, Misconfigured, Throttled, Transient, Unhealthy
from connector.metrics import Metrics
from connector.service import (
    STOP_SECONDS,
    WATCHDOG_SECONDS,
    Pace,
    Runner,
    Service,
    backoff,
    notify_systemd,
    supervise,
    watchdog_interval,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXAMPLES: Final = settings(max_examples=80, deadline=None)
PACE: Final = Pace(busy=0.125, idle=3.0)


@dataclass(frozen=True)
class Worked:
    """What a pass of a test's loop did."""

    busy: bool = False
    standby: bool = False
    news: bool = False


@dataclass
class Loop:
    """A loop that plays a list of outcomes, then idles."""

    outcomes: Sequence[Worked | BaseException] = ()
    name: str = "deposits"
    passes: int = 0
    closed: int = 0
    passed: threading.Event = field(default_factory=threading.Event)

    def run_once(self) -> Worked:
        self.passes += 1
        outcome = self.outcomes[self.passes - 1] if self.passes <= len(self.outcomes) else Worked()
        self.passed.set()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def close(self) -> None:
        self.closed += 1


class Stop(threading.Event):
    """An event that notes every wait and is set after so many of them: no test sleeps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.waits = after, []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) >= self.after:
            self.set()
        return self.is_set()


def run(*outcomes: Worked | BaseException) -> tuple[Loop, Runner, list[float]]:
    loop, stop = Loop(outcomes), Stop(after=len(outcomes))
    runner = Runner(loop, PACE, Metrics())
    runner.run(stop)
    return loop, runner, stop.waits


def test_a_loop_waits_by_what_it_did() -> None:
    """Little with more to do, longer with nothing to do or as a standby; closed once at the end."""
    loop, runner, waits = run(Worked(busy=True), Worked(), Worked(standby=True))
    assert waits == [PACE.busy, PACE.idle, PACE.idle]
    assert (loop.passes, loop.closed, runner.failures) == (3, 1, 0)


@pytest.mark.parametrize(
    "error",
    [Transient("cut"), LeaseLost("taken"), Misconfigured("view"), ValueError("a bug"), KeyError("x"), MemoryError()],
)
def test_a_failing_loop_keeps_going(error: Exception) -> None:
    """Any exception is counted and retried, and one good pass forgets them."""
    loop, runner, waits = run(error, error, error, Worked())
    assert loop.passes == 4
    assert runner.failures == 0
    assert waits[3] == PACE.idle
    assert runner.metrics.registry.get_sample_value("connector_loop_failures_total", {"loop": "deposits"}) == 3
    assert runner.metrics.registry.get_sample_value("connector_loop_last_success", {"loop": "deposits"}) > 0


def test_failures_in_a_row_wait_longer_and_longer() -> None:
    """Doubling with jitter up to half a minute."""
    _, runner, waits = run(*[Transient("cut")] * 12)
    assert runner.failures == 12
    for failures, wait in enumerate(waits, start=1):
        full = min(30.0, 0.25 * 2**failures)
        assert full / 2 <= wait <= full


def test_a_failure_that_comes_and_goes_is_told_once() -> None:
    """A loop that fails every second pass does not flood the log; another failure is told at once."""
    flapping: list[Worked | BaseException] = [Transient("cut"), Worked()] * 100
    with capture_logs() as logs:
        run(*flapping, Transient("full"), Worked(), ValueError("secret"))
    assert [line["error"].partition(" at ")[0] for line in logs] == ["cut", "full", "ValueError"]


def test_a_failure_that_lasts_is_told_ever_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if an age passes between two tries, a row of a thousand failures is ten lines."""
    monkeypatch.setattr("connector.service.QUIET_SECONDS", 0.0)
    with capture_logs() as logs:
        run(*[Transient("cut")] * 1000)
    assert [line["failures"] for line in logs] == [2**power for power in range(10)]


@EXAMPLES
@given(st.integers(1, 10_000))
def test_backoff_is_bounded(failures: int) -> None:
    """However long it has failed, a loop is tried again within half a minute."""
    assert 0.25 <= backoff(failures) <= 30


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (Throttled("429", after=17.0), 17, 17),
        (Throttled("503", after=0.0), 0.25, 0.5),
        (Halted("who is this server?"), 60, 60),
    ],
)
def test_a_wait_that_was_asked_for_is_kept(error: Exception, least: float, most: float) -> None:
    """Retry-After is honoured; a question to a person is asked again every minute."""
    _, _, (wait,) = run(error)
    assert least <= wait <= most


def test_a_loop_is_closed_even_when_the_process_is_going_down() -> None:
    """SystemExit passes through, and the loop gives back what it holds."""
    loop = Loop([SystemExit(1)])
    with pytest.raises(SystemExit):
        Runner(loop, PACE, Metrics()).run(Stop(after=1))
    assert loop.closed == 1


def test_stop_wakes_sleepers_and_may_be_called_again() -> None:
    """Loops that would sleep for an hour end at once, each closed on its thread."""
    loops = [Loop(name=f"loop-{index}") for index in range(3)]
    service = Service([(loop, Pace(idle=3600.0)) for loop in loops], Metrics())
    service.start()
    assert all(loop.passed.wait(10) for loop in loops)
    started = clock.monotonic()
    assert service.stop()
    assert clock.monotonic() - started < STOP_SECONDS
    assert service.stop()
    assert [(loop.passes, loop.closed) for loop in loops] == [(1, 1)] * 3


def test_news_wakes_those_who_listen_and_nobody_else(wait: Any) -> None:
    """A loop that would sleep for an hour passes again, one that does not listen sleeps on; all end at once."""
    told = threading.Event()

    class Teller(Loop):
        def run_once(self) -> Worked:
            super().run_once()
            return Worked(news=told.is_set())

    hour = Pace(idle=3600.0)
    listener, deaf, teller = Loop(name="listener"), Loop(name="deaf"), Teller(name="teller")
    loops = [(listener, Pace(idle=3600.0, listens=True)), (deaf, hour), (teller, Pace(idle=0.01))]
    service = Service(loops, Metrics())
    service.start()
    wait(lambda: teller.passes > 3, what="passes without news")
    assert (listener.passes, deaf.passes) == (1, 1)
    told.set()
    wait(lambda: listener.passes > 3, what="the listener is woken")
    assert deaf.passes == 1
    assert service.stop()
    assert listener.closed == 1


def test_stop_before_start_is_harmless() -> None:
    """A service that never ran has nothing to wait for."""
    assert Service([(Loop(), PACE)], Metrics()).stop()


def test_a_loop_that_reports_nothing_is_stuck() -> None:
    """Stuck is a minute without success or failure, by name."""
    service = Service([(Loop(name="users"), PACE), (Loop(name="bets"), PACE)], Metrics())
    assert service.stuck() == []
    service.runners[1].reported_at = clock.monotonic() - WATCHDOG_SECONDS - 1
    assert service.stuck() == ["bets"]
    service.runners[1].run(Stop(after=1))
    assert service.stuck() == []


def test_a_failure_is_a_report_too() -> None:
    """A loop whose source is down is not stuck: restarting would not help."""
    service = Service([(Loop([Transient("down")]), PACE)], Metrics())
    service.runners[0].reported_at = clock.monotonic() - WATCHDOG_SECONDS - 1
    service.runners[0].run(Stop(after=1))
    assert service.stuck() == []


def test_the_watchdog_is_fed_only_while_every_loop_reports() -> None:
    """READY first, WATCHDOG while all is well, the stuck loop's name otherwise, STOPPING at the end."""
    service = Service([(Loop(name="bets"), PACE)], Metrics())
    said: list[str] = []

    class Stopping(Stop):
        def wait(self, timeout: float | None = None) -> bool:
            stopped = super().wait(timeout)
            if len(self.waits) == 2:
                service.runners[0].reported_at -= WATCHDOG_SECONDS + 1
            return stopped

    assert supervise(service, Stopping(after=3), notify=said.append, alive=lambda: True)
    assert [message.partition("\n")[0] for message in said] == [
        "READY=1",
        "WATCHDOG=1",
        "STATUS=stuck: bets",
        "STOPPING=1",
    ]


@pytest.mark.parametrize(("microseconds", "seconds"), [(None, 10.0), ("4000000", 2.0), ("60000000", 10.0)])
def test_the_watchdog_interval_is_half_of_what_systemd_asks(
    microseconds: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of WATCHDOG_USEC, at most ten seconds."""
    if microseconds is None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert watchdog_interval() == seconds


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Yield a directory whose path fits a socket address."""
    path = Path(tempfile.mkdtemp(prefix="n"))
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_over_its_socket(
    abstract: bool, short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One datagram a message, to a path or to an abstract address."""
    path = str(short_directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + path if abstract else path)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        notify_systemd("READY=1\nSTATUS=running")
        assert receiver.recv(1024) == b"READY=1\nSTATUS=running"


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a developer's machine there is no socket, and that is fine."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_systemd("READY=1")


def test_a_notification_socket_that_is_gone_does_not_stop_the_connector(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Systemd may restart and take its socket away for a moment."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(short_directory / "gone"))
    notify_systemd("WATCHDOG=1")


def test_a_planned_wait_is_not_silence() -> None:
    """A loop that waits longer than the watchdog's time, because an API asked for it, is not stuck."""
    service = Service([(Loop(name="api"), PACE)], Metrics())
    service.runners[0].reported_at = clock.monotonic() - WATCHDOG_SECONDS - 1
    service.runners[0].waiting = True
    assert service.stuck() == []


def test_a_process_whose_embedded_store_has_ended_ends_too() -> None:
    """Whoever supervises the process starts it again, and the store with it."""
    service = Service([(Loop(name="bets"), PACE)], Metrics())
    with pytest.raises(Unhealthy, match="has ended"):
        supervise(service, Stop(after=3), notify=lambda _: None, alive=lambda: False)
