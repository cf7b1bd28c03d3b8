"""How fast a credential may be used: a token bucket whose rate grows slowly and falls at once when the API objects."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

#: After an objection the rate is halved; every accepted request gives back this share of the configured rate.
_RECOVERY: Final = 0.02
_FLOOR: Final = 0.01


class Throttle:
    """A bucket shared by all lanes of a destination; urgent requests (exclusions) never wait behind others.

    `clock` and `sleep` are handed in. Thread-safe.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float], sleep: Callable[[float], object]) -> None:
        self.rate = rate
        self._configured = rate
        self._tokens = 1.0
        self._clock = clock
        self._sleep = sleep
        self._at = clock()
        self._lock = threading.Lock()

    def take(self, *, urgent: bool = False) -> None:
        """Wait for a token; an urgent request takes one on credit, which later ones pay back."""
        while (wait := self._try(urgent=urgent)) > 0:
            self._sleep(wait)

    def accepted(self) -> None:
        """Additive increase, up to the configured rate."""
        with self._lock:
            self.rate = min(self._configured, self.rate + self._configured * _RECOVERY)

    def objected(self) -> None:
        """Multiplicative decrease: 429, overload."""
        with self._lock:
            self.rate = max(self._configured * _FLOOR, self.rate / 2)

    def _try(self, *, urgent: bool) -> float:
        with self._lock:
            now = self._clock()
            self._tokens = min(max(1.0, self.rate / 10), self._tokens + (now - self._at) * self.rate)
            self._at = now
            if urgent or self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) / self.rate
