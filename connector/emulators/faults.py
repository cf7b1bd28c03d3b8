"""What happens to the next request: rate limits, errors, resets, delays, redirects, or nothing. Pure.

It only decides; the gate in `customerio` carries it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from connector.emulators.options import Faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one request is to be answered."""

    #: Answer with this status and the API's own error body; None: the application's answer stands.
    status: int | None = None
    #: The application handles the request, whatever is answered.
    applies: bool = True
    #: Seconds to wait before answering.
    delay: float = 0.0
    #: Cut the connection instead of answering.
    reset: bool = False
    #: Seconds for the `Retry-After` header.
    retry_after: float | None = None
    #: Target of a redirect.
    location: str | None = None


PASS = Verdict()


@dataclass(slots=True)
class Window:
    """Counts requests in windows of a second (longer for rates below one)."""

    started: float = -math.inf
    used: int = 0
    rate: float = 0.0

    def wait(self, rate: float, *, at: float) -> float:
        """Use up one request; return 0, or the seconds until the next window if this one is full."""
        length = max(1.0, 1.0 / rate)
        if rate != self.rate or not 0 <= at - self.started < length:
            self.started, self.used, self.rate = at, 0, rate
        if self.used >= max(1, int(rate * length)):
            return self.started + length - at
        self.used += 1
        return 0.0


@dataclass(slots=True)
class Judge:
    """Decides by the faults in force; `monotonic` drives the rate windows, `chance` draws in [0, 1)."""

    faults: Faults
    monotonic: Callable[[], float]
    chance: random.Random
    windows: dict[str, Window] = field(default_factory=lambda: {"track": Window(), "app": Window()})

    def redirect(self, api: str) -> Verdict | None:
        """Return the redirect of a host in the wrong region, which comes before any look at credentials."""
        if self.faults.redirect_status is None or api not in self.faults.targets:
            return None
        return Verdict(status=self.faults.redirect_status, applies=False, location=self.faults.redirect_to)

    def judge(self, api: str) -> Verdict:
        """Decide about one authorised request; a scripted outcome goes before chance, a rate limit before both."""
        limited = self._limited(api)
        if limited is not None:
            return limited
        if api not in self.faults.targets:
            return PASS
        if self.faults.script:
            return self._scripted(self.faults.script.pop(0))
        return self._chanced()

    def _limited(self, api: str) -> Verdict | None:
        rate = self.faults.rate if api == "track" else self.faults.app_rate
        wait = self.windows[api].wait(rate, at=self.monotonic()) if rate else 0.0
        if not wait:
            return None
        after = self.faults.retry_after if api == "track" else max(1.0, math.ceil(wait))
        return Verdict(status=429, applies=False, retry_after=after)

    def _scripted(self, step: str) -> Verdict:
        if step == "slow":
            return Verdict(delay=self.faults.slow)
        if step in ("reset", "reset_before"):
            return Verdict(reset=True, applies=step == "reset")
        if step.isdecimal() and int(step) >= 300:
            return self._failing(int(step))
        return PASS

    def _failing(self, status: int) -> Verdict:
        return Verdict(
            status=status,
            applies=self.faults.error_applies and status >= 500,
            retry_after=self.faults.retry_after if status == 429 else None,
            location=self.faults.redirect_to if status < 400 else None,
        )

    def _chanced(self) -> Verdict:
        delay = self.faults.slow if self.faults.slow and self._happens(self.faults.slow_rate) else 0.0
        if self.faults.error_statuses and self._happens(self.faults.error_rate):
            return self._failing(self.chance.choice(self.faults.error_statuses))
        if self._happens(self.faults.reset_rate):
            return Verdict(reset=True, delay=delay)
        return Verdict(delay=delay) if delay else PASS

    def _happens(self, share: float) -> bool:
        return share > 0 and self.chance.random() < share
