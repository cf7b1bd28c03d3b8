"""What a backfill may cost its source: query time in each second, rows a second, hours, and the replica's lag. Pure.

Every instant is the caller's; nothing here reads a clock or waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

_DAY_MINUTES: Final = 1440
#: A replica that lags less is taken for up to date: its own heartbeat moves it by as much.
NOISE_SECONDS: Final = 1.0
#: Pages don't shrink below this part: a query that is slow whatever it returns would only be asked more often.
_LEAST_PART: Final = 8


@dataclass(frozen=True)
class Terms:
    """What is allowed. `busy`: seconds of query time in each second, over all sessions; `rate`: rows a second.

    `hours`: minutes of the source's UTC day, [start, end); start > end spans midnight.
    """

    busy: float = 1.0
    rate: float | None = None
    hours: tuple[int, int] | None = None
    max_lag: float = math.inf

    @property
    def sessions(self) -> int:
        """Return how many queries may run at once."""
        return max(1, math.ceil(self.busy))

    @property
    def share(self) -> float:
        """Return the share of the time that one session may be at work."""
        return self.busy / self.sessions

    def page_rows(self, rows: int) -> int:
        """Return the rows of a page: no more than may be read in a second."""
        return rows if self.rate is None else max(1, min(rows, int(self.rate)))


@dataclass
class Turn:
    """One session's share of the query time: after a query it rests until its share of the time has passed.

    From the start of any query to the start of any later one, the queries in between took at most `share` of the time.
    """

    share: float
    free_at: float = -math.inf

    def took(self, began: float, ended: float) -> None:
        """Note a query."""
        self.free_at = max(self.free_at, began + (ended - began) / self.share)


@dataclass
class Flow:
    """Rows of all workers: read at once, then waited for, so that on average they are no more than `rate` a second."""

    rate: float | None
    free_at: float = -math.inf

    def read(self, now: float, rows: int) -> None:
        """Note rows that have been read."""
        if self.rate is not None:
            self.free_at = max(self.free_at, now) + rows / self.rate


@dataclass
class Brake:
    """Holds while a replica lags by more than `most` seconds, or by more than when it was looked at before."""

    most: float
    held: bool = False
    _last: float = field(default=0.0)

    def look(self, lag: float | None) -> bool:
        """Take the lag of now, None where the server can't tell; returns whether to wait."""
        lag = 0.0 if lag is None else lag
        grows = lag > max(self._last, NOISE_SECONDS)
        self._last, self.held = lag, lag > self.most or grows
        return self.held


def fitting(limit: int, took: float, terms: Terms, *, most: int) -> int:
    """Return how many rows to ask for after a page of `limit` took so long: what one second's share has room for."""
    if took > terms.share:
        return max(min(limit, -(-most // _LEAST_PART)), int(limit * terms.share / took))
    return min(most, limit * 2) if took < terms.share / 2 else limit


def minutes_until(hours: tuple[int, int] | None, minute: int) -> int:
    """Return how many minutes it is from a minute of the day until the hours begin; 0: they have begun."""
    if hours is None:
        return 0
    start, end = hours
    within = start <= minute < end if start <= end else minute >= start or minute < end
    return 0 if within else (start - minute) % _DAY_MINUTES
