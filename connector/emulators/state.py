"""The whole state of one workspace as plain data, with the small steps that every operation takes.

It knows neither HTTP nor threads nor the clock: instants are handed in as unix seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connector.emulators.ledger import Activity, Ledger
from connector.emulators.people import KINDS, People, Person

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.emulators.options import Faults, Json, Options


def unheard(body: Json) -> None:
    """Drop a webhook body: nobody listens."""


@dataclass(kw_only=True, slots=True)
class Segment:
    """A manual segment; members by `cio_id`, in the order they were added."""

    id: int
    name: str
    description: str
    created_at: int
    updated_at: int
    members: dict[str, None] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class Thing:
    """An object in the API's sense: something that people are related to."""

    cio_object_id: str
    object_type_id: str
    object_id: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class State:
    """Everything one workspace knows. Only `Workspace` hands it out, under its lock."""

    options: Options
    faults: Faults
    people: People
    ledger: Ledger
    #: Called with every reporting-webhook body that the workspace would send.
    notify: Callable[[Json], None] = unheard
    segments: dict[int, Segment] = field(default_factory=dict)
    next_segment: int = 1
    #: (object type, object id) -> the object.
    things: dict[tuple[str, str], Thing] = field(default_factory=dict)
    next_thing: int = 1
    #: Delivery id -> whose it is.
    deliveries: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    #: Operations that were accepted and do not show yet: (due, received, operation), oldest first.
    pending: deque[tuple[float, float, Json]] = field(default_factory=deque)

    def log(self, kind: str, *, at: float, person: Person, data: Json, name: str | None = None) -> Activity:
        """Record an activity of a person, in its own log and in the workspace's."""
        activity = self.ledger.add_activity(
            kind, at=at, cio_id=person.cio_id, identifiers=person.identifiers, name=name, data=data
        )
        person.activities.append(activity)
        return activity

    def log_unknown(self, kind: str, *, at: float, identifiers: dict[str, str], data: Json) -> None:
        """Record an activity about somebody whom the workspace does not have."""
        shown: dict[str, str | None] = {"cio_id": None, "id": None, "email": None, **identifiers}
        self.ledger.add_activity(kind, at=at, identifiers=shown, data=data)

    def new_person(self, *, at: float) -> Person:
        """Add a profile without identifiers, with a log of the configured length."""
        person = self.people.create(at=at)
        person.activities = deque(maxlen=self.options.activities_per_person)
        self.counts["people_created"] += 1
        return person

    def drop_person(self, person: Person) -> None:
        """Remove a profile from everything that refers to it."""
        for number in person.segments:
            self.segments[number].members.pop(person.cio_id, None)
        for delivery_id in person.messages:
            self.deliveries.pop(delivery_id, None)
        self.people.remove(person)


def empty(options: Options, faults: Faults) -> State:
    """Return a workspace without people and events, with the given settings."""
    ledger = Ledger(
        events=deque(maxlen=options.forget_events),
        activities=deque(maxlen=options.activities_kept),
    )
    people = People(kinds=("id",) if options.id_only else KINDS)
    return State(options=options, faults=faults, people=people, ledger=ledger)
