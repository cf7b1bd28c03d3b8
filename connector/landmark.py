"""Some rows that were final, as they were: they tell whether a source still holds the data that was read. Pure.

An id alone proves nothing, since ids restart. So a landmark keeps whose row it was and when it happened, which nobody
corrects afterwards; amounts and states may change at the source without making it another one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: `behind`: the same data, but less of it than was read. `other`: not the data that was read.
Verdict = Literal["same", "behind", "other"]
State = Literal["same", "other", "gone"]

#: So many are kept: the newest ones all, older ones at distances that grow eightfold.
MOST: Final = 32
NEWEST: Final = 8
_STEP_BITS: Final = 3
#: So many of the newest rows that are still there decide: ids that restarted replace the newest ones first.
_DECIDING: Final = 3


@dataclass(frozen=True, slots=True)
class Landmark:
    """One row: its place, a short hash of its user, the second it happened, and the source's progress at that time."""

    cursor: str
    key: tuple[str, ...]
    mark: int
    user: str
    second: int | None
    progress: int | None = None

    def state(self, found: Landmark | None, *, moves: bool) -> State:
        """Compare with what stands under the same key now. A row that `moves` (a user) is itself by its key alone."""
        if found is None:
            return "gone"
        return "same" if moves or (found.user, found.second) == (self.user, self.second) else "other"


def user_hash(user: str | None) -> str:
    """Return what a landmark keeps of a user's id: enough to tell two apart, no name of anybody."""
    return hashlib.sha256((user or "").encode()).hexdigest()[:12]


def thinned(landmarks: Iterable[Landmark]) -> list[Landmark]:
    """Return at most MOST of them, newest first: all of the NEWEST, of older ones the oldest in each distance."""
    latest = {(mark.cursor, mark.key): mark for mark in landmarks}
    ordered = sorted(latest.values(), key=lambda mark: mark.mark, reverse=True)
    oldest: dict[int, Landmark] = {}
    for mark in ordered[NEWEST:]:
        oldest[min(MOST - NEWEST - 1, (ordered[0].mark - mark.mark).bit_length() // _STEP_BITS)] = mark
    return [*ordered[:NEWEST], *sorted(oldest.values(), key=lambda mark: mark.mark, reverse=True)]


def judge(
    states: Sequence[State], *, short: bool, lagging: bool = False, doubtful: bool = False, moves: bool = False
) -> Verdict:
    """Say what the landmarks, newest first, tell of a source; those above its end left out.

    `short`: the source ends before what was sealed. `lagging`: it says itself that it stands before that. `doubtful`:
    rows come with keys that are known with other content. Rows that are gone prove nothing while the source goes on
    beyond them: operators purge.
    """
    there = [state for state in states if state != "gone"][:_DECIDING]
    if there and "same" not in there:
        return "other"
    if not short:
        return "other" if doubtful and states and not there and not moves else "same"
    return "behind" if there or lagging else "other"
