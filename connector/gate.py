"""Where the sessions of a backfill wait for their turn at the source: its budget, its hours, its replica's lag."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from connector import clock
from connector.budget import Brake, Flow, Terms, Turn, fitting, minutes_until
from connector.errors import ConnectorError
from connector.position import SECOND
from connector.sources import lag
from connector.sources.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from connector.position import Window
    from connector.sources.dialect import Settings
    from connector.sources.reader import Page, View

T = TypeVar("T")
#: How often the replica's lag and the clock are looked at, and how soon a waiting session notices that it is to stop.
LOOK_SECONDS: Final = 1.0
_NOTICE_SECONDS: Final = 0.2
#: Before its hours a source is asked no more often than this.
_REST_SECONDS: Final = 60.0


class StoppedError(ConnectorError):
    """The command was asked to stop while it waited for its turn; nothing was asked of the source."""


class Gate:
    """Shared by all sessions of a command. `stopped` is asked often while they wait; `waits` says for what."""

    def __init__(self, terms: Terms, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self.terms, self.stopped = terms, stopped
        self.waits: str | None = None
        self.flow, self.brake = Flow(terms.rate), Brake(terms.max_lag)
        self._turns: queue.SimpleQueue[Turn] = queue.SimpleQueue()
        for _ in range(terms.sessions):
            self._turns.put(Turn(terms.share))
        self._looking, self._look_at, self._opens_in = threading.Lock(), float("-inf"), 0

    @contextlib.contextmanager
    def turn(self, look: Callable[[], tuple[int, float | None]]) -> Iterator[None]:
        """Wait until the source may be asked something, and hold one of its turns meanwhile. Raises StoppedError.

        `look` asks the source for its clock (nanoseconds) and its replica's lag.
        """
        self._notice()
        turn = self._take()
        try:
            self._until(lambda: turn.free_at)
            while not self._open(turn, look):
                self._wait(min(_REST_SECONDS, 60.0 * self._opens_in) or LOOK_SECONDS)
            self._until(lambda: max(turn.free_at, self.flow.free_at))
            began = clock.monotonic()
            try:
                yield
            finally:
                turn.took(began, clock.monotonic())
        finally:
            self._turns.put(turn)

    def read(self, rows: int) -> None:
        """Count rows that have been read against the rate."""
        with self._looking:
            self.flow.read(clock.monotonic(), rows)

    def _take(self) -> Turn:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._turns.get(timeout=_NOTICE_SECONDS)
            self._notice()

    def _open(self, turn: Turn, look: Callable[[], tuple[int, float | None]]) -> bool:
        """Return whether the source may be read now, looking at it if that was a while ago."""
        with self._looking:
            if (began := clock.monotonic()) >= self._look_at:
                now, behind = look()
                turn.took(began, clock.monotonic())
                self._look_at = clock.monotonic() + LOOK_SECONDS
                self._opens_in = minutes_until(self.terms.hours, now // (60 * SECOND) % 1440)
                held = self.brake.look(behind)
                told = f"the replica lags by {behind:.0f} s" if held and behind is not None else None
                self.waits = f"its hours begin in {self._opens_in} min" if self._opens_in else told
            return self._opens_in == 0 and not self.brake.held

    def _until(self, instant: Callable[[], float]) -> None:
        while (seconds := instant() - clock.monotonic()) > 0:
            self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        while (left := deadline - clock.monotonic()) > 0:
            self._notice()
            clock.sleep(min(left, _NOTICE_SECONDS))

    def _notice(self) -> None:
        if self.stopped():
            raise StoppedError("stopped", hint="the same command goes on where it was")


class GatedReader(Reader):
    """A reader that asks nothing of its source before it is its turn."""

    def __init__(self, url: str, *, source: str, settings: Settings, gate: Gate) -> None:
        super().__init__(url, source=source, settings=settings)
        self.gate, self._took = gate, 0.0

    def ask(self, work: Callable[[sa.Connection], T]) -> T:
        """See Session; raises StoppedError too."""
        with self.gate.turn(self._look):
            began = clock.monotonic()
            try:
                return super().ask(work)
            finally:
                self._took = clock.monotonic() - began

    def read(self, view: View, window: Window, *, limit: int) -> Page:
        """See Reader; its rows count against the rate."""
        page = super().read(view, window, limit=limit)
        self.gate.read(page.frame.height)
        return page

    def fitting(self, limit: int, *, most: int) -> int:
        """Return how many rows the next page should have at most, as the last query went."""
        return fitting(limit, self._took, self.gate.terms, most=most)

    def _look(self) -> tuple[int, float | None]:
        asked = super().ask
        return asked(self.dialect.sample).clock, asked(lambda connection: lag.told(connection, self.dialect.name))
