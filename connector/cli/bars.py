"""How far a job is, for people: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress as Bars, TextColumn

from connector import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from connector.store.backfills import Progress

#: Seconds between two lines, between two looks of a bar, and over which speed is measured.
_LINE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.5
_WINDOW_SECONDS: Final = 60.0
#: What would take longer than a year stands as good as still: nobody knows.
_LONGEST_SECONDS: Final = 365 * 86_400.0


@dataclass
class Speed:
    """What the last minute says of rows a second, and of the time that is left. Pure: instants are the caller's."""

    seen: deque[tuple[float, int, float | None]] = field(default_factory=deque)

    def note(self, now: float, rows: int, share: float | None) -> None:
        """Take how far the job is now."""
        self.seen.append((now, rows, share))
        while len(self.seen) > 2 and self.seen[1][0] <= now - _WINDOW_SECONDS:
            self.seen.popleft()

    @property
    def rows_a_second(self) -> float | None:
        """Return the rows a second; None before a second look."""
        if len(self.seen) < 2 or self.seen[-1][0] <= self.seen[0][0]:
            return None
        (began, first, _), (now, last, _) = self.seen[0], self.seen[-1]
        return (last - first) / (now - began)

    @property
    def seconds_left(self) -> float | None:
        """Return the seconds until all of the cursor is covered, at this speed; None: it can't be told."""
        if len(self.seen) < 2:
            return None
        (began, _, first), (now, _, last) = self.seen[0], self.seen[-1]
        if first is None or last is None or last <= first:
            return None
        left = (1.0 - last) * (now - began) / (last - first)
        return left if left < _LONGEST_SECONDS else None


class Shown:
    """Shows one job while it is worked on. `report` may be called on any thread; `waits` says what it waits for."""

    def __init__(self, name: str, waits: Callable[[], str | None]) -> None:
        self._name, self._waits = name, waits
        self._speed, self._lock = Speed(), threading.Lock()
        self._progress: Progress | None = None
        self._compared: int | None = None
        self._ended = threading.Event()
        terminal = sys.stderr.isatty()
        self._every = _LOOK_SECONDS if terminal else _LINE_SECONDS
        self._bars = _bars() if terminal else None
        self._task = None if self._bars is None else self._bars.add_task(name, total=1.0, said="")
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        if self._bars is not None:
            self._show()
            self._bars.stop()

    def report(self, progress: Progress) -> None:
        """Take how far the job is."""
        with self._lock:
            self._progress = progress
            self._speed.note(clock.monotonic(), progress.rows, progress.share)

    def compared(self, rows: int) -> None:
        """Take how many rows have been compared with the source: then nothing is loaded any more."""
        with self._lock:
            self._compared = rows

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._show()

    def _show(self) -> None:
        with self._lock:
            said = line(self._progress, self._speed, self._waits(), compared=self._compared)
            share = (self._progress.share if self._progress else None) or 0.0
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=share, said=said)
        elif said:
            print(f"{self._name}: {said}", file=sys.stderr, flush=True)


def line(progress: Progress | None, speed: Speed, waits: str | None, *, compared: int | None = None) -> str:
    """Return how far a job is, in one line; nothing where nothing can be said."""
    waiting = f"waits: {waits}" if waits else ""
    if compared is not None:
        return "; ".join(filter(None, (f"{compared:,} rows compared with the source", waiting)))
    if progress is None:
        return waiting
    share = "?" if progress.share is None else f"{progress.share:.0%}"
    rate, left = speed.rows_a_second, speed.seconds_left
    parts = [share, f"{progress.rows:,} rows", f"{'?' if rate is None else f'{rate:,.0f}'} rows/s"]
    parts.append(f"{'?' if left is None else duration(left)} left")
    return "; ".join(filter(None, (", ".join(parts), waiting)))


def duration(seconds: float) -> str:
    """Return a time that is left, as exactly as anybody wants to know it."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _bars() -> Bars:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
    return Bars(*columns, console=Console(stderr=True), redirect_stdout=False)
