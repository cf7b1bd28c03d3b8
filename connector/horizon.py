"""What can no longer appear late: how far a stream may be sealed, by the replica's own progress. Pure.

A row becomes visible when its transaction commits, which is later than its stamp, or than the drawing of its id. Two
things must have passed before a mark is final: `lateness` of progress, and (on PostgreSQL) every transaction that was
running then. Neither alone is enough: an id may be drawn before its transaction has a number, and a transaction may run
for longer than any lateness.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from connector.position import SECOND

if TYPE_CHECKING:
    from connector.position import Kind

#: Transactions as PostgreSQL numbers them: all below the first have ended, all from the second on had not begun.
Snapshot = tuple[int, int]

_APART: Final = SECOND


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the source: its progress (nanoseconds), the greatest visible id, the first transaction not begun."""

    progress: int
    head: int | None
    begun: int | None


@dataclass
class Horizon:
    """One stream's observations. `tick` is what one cursor value covers, in nanoseconds; 0 for ids."""

    kind: Kind
    tick: int = 0
    observations: deque[Observation] = field(default_factory=deque)
    #: All transactions below this number have ended; None where the server numbers none for us.
    ended: int | None = None
    #: Whether an open transaction holds the horizon back, or has held it until it timed out.
    held: bool = False

    @property
    def head(self) -> int | None:
        """Return the greatest id that was noted."""
        return self.observations[-1].head if self.observations else None

    def observe(self, *, progress: int, head: int | None = None, snapshot: Snapshot | None = None) -> None:
        """Note a look at the source. `progress` and `snapshot` were sampled after `head` was read; all only grow."""
        self.ended = snapshot[0] if snapshot else None
        last = self.observations[-1] if self.observations else None
        grown = self.kind == "time" or (head is not None and (last is None or last.head is None or head > last.head))
        if grown and (last is None or progress - last.progress >= _APART):
            self.observations.append(Observation(progress, head, snapshot[1] if snapshot else None))

    def settled(self, *, progress: int, age: int) -> int | None:
        """Return the mark below which rows are older than `age`: worth another look, but not final."""
        if self.kind == "time":
            return progress - age
        return next((o.head for o in reversed(self.observations) if o.progress + age <= progress), None)

    def final(self, *, progress: int, lateness: int, longest: int) -> int | None:
        """Return the mark at or below which no row can appear any more, None while that is not known.

        An open transaction holds it back, but by `longest` at most: `held` says so. A cursor value counts as the end of
        its tick (a second for DATETIME(0), a day for DATE).
        """
        self._forget(progress - longest)
        due = bound = progress - lateness
        if self.ended is not None:
            clear = next((o.progress for o in reversed(self.observations) if self._ended(o)), progress - longest)
            bound = max(min(due, clear), progress - longest)
        ripe = next((o for o in reversed(self.observations) if o.progress <= due), None)
        self.held = ripe is not None and not self._ended(ripe)
        if self.kind == "time":
            return bound - self.tick
        return next((o.head for o in reversed(self.observations) if o.progress <= bound), None)

    def _ended(self, observation: Observation) -> bool:
        """Whether every transaction that had a number at an observation has ended."""
        return observation.begun is None or (self.ended is not None and self.ended >= observation.begun)

    def _forget(self, before: int) -> None:
        """Drop observations that a later one answers for: of those at or before the bound only the last says more."""
        while len(self.observations) > 1 and self.observations[1].progress <= before:
            self.observations.popleft()
