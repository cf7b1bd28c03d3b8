"""People and their identifiers: who is found under which one, what an attribute is once stored, who is suppressed.

Pure state; the rules of single operations (claims, collisions, stale writes) live in `operations`.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.emulators.ledger import Activity
    from connector.emulators.options import Json

#: The identifiers a person may be addressed by, besides the `cio_id` that every person has.
KINDS = ("id", "email", "phone")


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def text(value: Any) -> str:
    """Return a JSON value as the App API reads it back: always a string."""
    if isinstance(value, str):
        return value
    if type(value) is int:
        return str(value)
    return _ENCODE(value)


def key_of(kind: str, value: str) -> str:
    """Return the form under which an identifier is compared: emails regardless of case."""
    return value.lower() if kind == "email" else value


def is_unsubscribed(value: str | None) -> bool:
    """Say whether a stored `unsubscribed` value means unsubscribed; anything but true and 1 does not."""
    return value is not None and value.lower() in ("true", "1")


@dataclass(kw_only=True, slots=True)
class Person:
    """One profile. Attributes include `id`, `email`, `phone`; timestamps are unix seconds of the last real change."""

    serial: int
    cio_id: str
    created_at: int
    #: The date of the last identify that was applied; None before the first.
    last_edit: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    timestamps: dict[str, int] = field(default_factory=dict)
    devices: dict[str, Json] = field(default_factory=dict)
    #: Object type -> object id -> the relationship's attributes.
    relationships: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    segments: set[int] = field(default_factory=set)
    #: Deliveries to this person, by delivery id.
    messages: dict[str, Json] = field(default_factory=dict)
    event_count: int = 0
    activities: deque[Activity] = field(default_factory=deque)

    @property
    def identifiers(self) -> dict[str, str | None]:
        """The identifiers as the App API lists them."""
        return {"cio_id": self.cio_id, "id": self.attributes.get("id"), "email": self.attributes.get("email")}


@dataclass(slots=True)
class People:
    """All profiles, each found under every identifier it bears, and the suppression list."""

    #: The kinds of identifier that this workspace has.
    kinds: tuple[str, ...] = KINDS
    by_cio_id: dict[str, Person] = field(default_factory=dict)
    by_kind: dict[str, dict[str, Person]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    #: (kind, key) -> all identifiers that were suppressed together with it.
    suppressed: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)
    next_serial: int = 1

    def __len__(self) -> int:
        return len(self.by_cio_id)

    def find(self, kind: str, value: str) -> Person | None:
        """Return the person with this identifier; a kind that the workspace does not use finds nobody."""
        if kind == "cio_id":
            return self.by_cio_id.get(value)
        if kind not in self.kinds:
            return None
        return self.by_kind[kind].get(key_of(kind, value))

    def index(self) -> None:
        """Build the index of identifiers anew from the profiles; of two with the same one the older is found."""
        self.by_kind = {kind: {} for kind in KINDS}
        for person in self.by_cio_id.values():
            for kind in self.kinds:
                if kind in person.attributes:
                    self.by_kind[kind].setdefault(key_of(kind, person.attributes[kind]), person)

    def create(self, *, at: float) -> Person:
        """Add a person that has no identifier but its `cio_id`."""
        serial = self.next_serial
        self.next_serial += 1
        person = Person(serial=serial, cio_id=f"a3{serial:06x}", created_at=int(at))
        person.timestamps["cio_id"] = int(at)
        self.by_cio_id[person.cio_id] = person
        return person

    def store(self, person: Person, name: str, value: str | None, *, at: float) -> None:
        """Set an attribute to something new, or remove it with None.

        For an identifier the caller has made sure that nobody else bears it.
        """
        if name in self.kinds:
            self._relink(person, name, person.attributes.get(name), value)
        if value is None:
            del person.attributes[name]
            del person.timestamps[name]
        else:
            person.attributes[name] = value
            person.timestamps[name] = int(at)

    def _relink(self, person: Person, kind: str, old: str | None, new: str | None) -> None:
        if old is not None:
            self.by_kind[kind].pop(key_of(kind, old), None)
        if new is not None:
            self.by_kind[kind][key_of(kind, new)] = person

    def remove(self, person: Person) -> None:
        """Forget a person; its activities stay in the workspace's log, marked."""
        for kind in self.kinds:
            if kind in person.attributes:
                self.by_kind[kind].pop(key_of(kind, person.attributes[kind]), None)
        for activity in person.activities:
            activity.deleted = True
        del self.by_cio_id[person.cio_id]

    def is_suppressed(self, kind: str, value: str) -> bool:
        """Say whether writes to this identifier are to be ignored."""
        return bool(self.suppressed) and (kind, key_of(kind, value)) in self.suppressed

    def block(self, kind: str, value: str, *, person: Person | None) -> None:
        """Suppress the id and email of a person together; somebody unknown is blocked by what was given."""
        if self.is_suppressed(kind, value):
            return
        borne = person.attributes if person is not None else {}
        blockable = (each for each in ("id", "email") if each in self.kinds and each in borne)
        pairs: list[tuple[str, str]] = [(each, key_of(each, borne[each])) for each in blockable]
        if not pairs and kind in self.kinds:
            pairs = [(kind, key_of(kind, value))]
        for pair in pairs:
            self.suppressed[pair] = pairs

    def unsuppress(self, kind: str, value: str) -> bool:
        """Free an identifier and those suppressed with it; say whether it was blocked."""
        pairs = self.suppressed.get((kind, key_of(kind, value)), [])
        for pair in list(pairs):
            self.suppressed.pop(pair, None)
        return bool(pairs)
