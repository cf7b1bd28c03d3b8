"""One emulated workspace: accepts operations, shows them after the visibility delay, counts everything. Pure.

It owns the lock and the queue of what is accepted but not yet visible; it speaks no HTTP and writes no file.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from connector import clock
from connector.emulators import operations, validation
from connector.emulators.options import Faults, Json, Options, change
from connector.emulators.people import KINDS, Person, text
from connector.emulators.state import Segment, State, empty, unheard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from connector.emulators.validation import Refusal


class Workspace:
    """A workspace that any thread may use. `now` is the clock that every time-dependent rule goes by."""

    def __init__(
        self,
        options: Options | None = None,
        *,
        faults: Faults | None = None,
        now: Callable[[], datetime] = clock.now,
        seed: int | None = None,
    ) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._random = random.Random(seed)  # noqa: S311  chance, no secrets
        self._notify: Callable[[Json], None] = unheard
        #: Grows with every change, so that a saver knows whether there is anything to save.
        self.version = 0
        self._state = empty(options or Options(), faults or Faults())
        self._state.notify = self._raise_webhook

    @property
    def options(self) -> Options:
        """The settings in force."""
        return self._state.options

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._state.faults

    @property
    def seconds(self) -> float:
        """The workspace's time in unix seconds."""
        return self._now().timestamp()

    def listen(self, notify: Callable[[Json], None]) -> None:
        """Hand every reporting-webhook body to `notify` from now on; it must return at once."""
        self._notify = notify

    def _raise_webhook(self, body: Json) -> None:
        self._notify(body)

    def accept(self, items: Sequence[object]) -> list[tuple[int, Refusal]]:
        """Take operations of the v2 shape; return those refused with their place. The others were all accepted."""
        with self._lock:
            received = self.seconds
            self._apply_due(received)
            state = self._state
            refused: list[tuple[int, Refusal]] = []
            good: list[Any] = []
            for index, item in enumerate(items):
                refusal = validation.refusal(item, options=state.options, faults=state.faults)
                if refusal is None:
                    good.append(item)
                else:
                    refused.append((index, refusal))
            state.counts["items_accepted"] += len(good)
            state.counts["items_refused"] += len(refused)
            self.version += 1
            self._take(good, received)
            return refused

    def _take(self, items: list[Json], received: float) -> None:
        delay = self.options.visibility_delay
        if self.options.shuffle_batches:
            self._random.shuffle(items)
        if delay or self._state.pending:
            self._state.pending.extend((received + delay, received, item) for item in items)
            self._apply_due(received)
            return
        for item in items:
            operations.apply(self._state, item, received=received)

    def _apply_due(self, instant: float) -> None:
        pending = self._state.pending
        while pending and pending[0][0] <= instant:
            _, received, item = pending.popleft()
            operations.apply(self._state, item, received=received)
            self.version += 1

    @contextmanager
    def reading(self) -> Iterator[State]:
        """Hold the workspace still and hand out its state with everything applied that is due. Do not keep it."""
        with self._lock:
            self._apply_due(self.seconds)
            yield self._state

    @contextmanager
    def writing(self) -> Iterator[State]:
        """Like `reading`, for what changes the state in other ways than by operations."""
        with self.reading() as state:
            self.version += 1
            yield state

    def settle(self) -> int:
        """Make everything visible now, whatever the delay; return how many operations waited."""
        with self._lock:
            waiting = len(self._state.pending)
            self._apply_due(float("inf"))
            return waiting

    def wipe(self) -> None:
        """Forget everything but the settings."""
        with self._lock:
            self.replace(empty(self.options, self.faults))

    def replace(self, state: State) -> None:
        """Go on from another state, which keeps this workspace's webhook listener."""
        with self._lock:
            state.notify = self._raise_webhook
            self._state = state
            self.version += 1

    def configure(self, changes: Json) -> None:
        """Change options while running, all or none; raise `ValueError` naming what does not fit."""
        with self._lock:
            change(self.options, changes)
            state = self._state
            state.people.kinds = ("id",) if self.options.id_only else KINDS
            state.people.index()
            state.ledger.events = deque(state.ledger.events, maxlen=self.options.forget_events)
            state.ledger.activities = deque(state.ledger.activities, maxlen=self.options.activities_kept)

    def create_segment(self, name: str, *, description: str = "") -> Segment:
        """Add a manual segment."""
        with self.writing() as state:
            at = int(self.seconds)
            segment = Segment(id=state.next_segment, name=name, description=description, created_at=at, updated_at=at)
            state.segments[segment.id] = segment
            state.next_segment += 1
            return segment

    def change_membership(self, number: int, ids: Sequence[object], *, kind: str, join: bool) -> bool:
        """Add people to a manual segment or take them out; pass over unknown people. An unknown segment is False."""
        with self.writing() as state:
            segment = state.segments.get(number)
            if segment is None:
                return False
            found = (state.people.find(kind, text(value)) for value in ids)
            for person in (person for person in found if person is not None):
                if join:
                    person.segments.add(number)
                    segment.members[person.cio_id] = None
                else:
                    person.segments.discard(number)
                    segment.members.pop(person.cio_id, None)
            segment.updated_at = int(self.seconds)
            return True

    def find(self, kind: str, value: str) -> Person | None:
        """Return the person with this identifier, as visible now."""
        with self.reading() as state:
            return state.people.find(kind, value)

    def counts(self) -> Json:
        """Return the cheap counters, each of them kept, none computed by looking at people or events."""
        with self.reading() as state:
            return {
                "people": len(state.people),
                "events": state.counts["events_accepted"],
                "duplicates": state.counts["events_duplicate"],
                "accepted": state.counts["items_accepted"],
                "refused": state.counts["items_refused"],
                "pending": len(state.pending),
                "suppressed": len(state.people.suppressed),
                "segments": len(state.segments),
                "objects": len(state.things),
                "outcomes": dict(state.counts),
                "actions": dict(state.actions),
                "events_by_name": dict(state.ledger.names),
            }
