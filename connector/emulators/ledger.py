"""What the workspace remembers of events and activities: the accepted events, the ids for dedup, the activity log.

It decides what is a duplicate; it does not know people's attributes or identifiers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.emulators.options import Json

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CAMPAIGN_WINDOW = 72 * 3600  # seconds within which a back-dated event may still trigger campaigns

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)


def is_ulid(value: object) -> bool:
    """Say whether `value` has the shape of a ULID, in either case."""
    return isinstance(value, str) and _ULID.fullmatch(value) is not None


def ulid(seconds: float, key: str) -> str:
    """Return the ULID of an instant and a key; the same input gives the same id."""
    tail = int.from_bytes(hashlib.sha256(key.encode()).digest()[:10], "big")
    number = (int(seconds * 1000) & ((1 << 48) - 1)) << 80 | tail
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in range(25, -1, -1))


@dataclass(kw_only=True, slots=True)
class Event:
    """An event that was accepted: `timestamp` and `received_at` in unix seconds."""

    seq: int
    id: str | None
    action: str
    name: str
    #: Whose event it is; None as long as it is anonymous.
    cio_id: str | None
    customer_id: str | None
    identifiers: dict[str, str]
    anonymous_id: str | None
    timestamp: int
    received_at: float
    #: Not older than 72 hours at receipt.
    can_trigger: bool
    attributes: Json


@dataclass(kw_only=True, slots=True)
class Activity:
    """One line of the activity log, about one person or about nobody known."""

    seq: int
    type: str
    timestamp: int
    cio_id: str | None
    identifiers: dict[str, str | None]
    name: str | None
    #: For changed attributes a pair (from, to) each.
    data: Json
    #: The person has been deleted since.
    deleted: bool = False

    @property
    def id(self) -> str:
        """The activity's ULID."""
        return ulid(self.timestamp, f"activity {self.seq}")


@dataclass(kw_only=True, slots=True)
class Ledger:
    """Events in the order of acceptance, the ids that were seen, and the newest activities."""

    #: Both keep the newest entries only, where a maximum is set.
    events: deque[Event]
    activities: deque[Activity]
    next_event: int = 1
    next_activity: int = 1
    #: Event id (upper case) -> when it was first accepted.
    seen_ids: dict[str, float] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    anonymous: dict[str, list[Event]] = field(default_factory=dict)

    def is_duplicate(self, event_id: object, *, at: float, window: float | None) -> bool:
        """Say whether this id was accepted before (within `window` seconds), and remember it if not.

        Something that is no ULID is never a duplicate.
        """
        if not is_ulid(event_id):
            return False
        key = str(event_id).upper()
        first = self.seen_ids.get(key)
        if first is not None and (window is None or at - first <= window):
            return True
        self.seen_ids[key] = at
        return False

    def add_event(self, event: Event) -> None:
        """Append an accepted event."""
        self.events.append(event)
        self.next_event = event.seq + 1
        self.names[event.name] += 1
        if event.cio_id is None and event.anonymous_id is not None:
            self.anonymous.setdefault(event.anonymous_id, []).append(event)

    def add_activity(
        self,
        kind: str,
        *,
        at: float,
        cio_id: str | None = None,
        identifiers: dict[str, str | None],
        name: str | None = None,
        data: Json,
    ) -> Activity:
        """Append a line to the workspace's activity log and return it."""
        activity = Activity(
            seq=self.next_activity,
            type=kind,
            timestamp=int(at),
            cio_id=cio_id,
            identifiers=identifiers,
            name=name,
            data=data,
        )
        self.next_activity += 1
        self.activities.append(activity)
        return activity

    def events_after(self, seq: int) -> Iterator[Event]:
        """Yield the events kept whose number is greater than `seq`, oldest first."""
        first = self.events[0].seq if self.events else self.next_event
        return islice(self.events, max(0, seq + 1 - first), None)
