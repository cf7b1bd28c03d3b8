"""The state file: a workspace as one JSON document, written atomically, read back at start.

It saves what the workspace knows, not its settings: those come from the command line or the control endpoint.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import threading
from collections import deque
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from connector import clock
from connector.emulators.ledger import Activity, Event
from connector.emulators.people import Person
from connector.emulators.state import Segment, State, Thing, empty
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from connector.emulators.options import Json
    from connector.emulators.workspace import Workspace

VERSION = 1
PIECE = 1000  # rows encoded at one go

_logger = logging.getLogger(__name__)


def rows(items: Iterable[Any], kind: Any) -> list[tuple[Any, ...]]:
    """Return records as rows of their fields' values: names would take most of the file."""
    values = attrgetter(*(entry.name for entry in fields(kind)))
    return [values(item) for item in items]


def records(stored: list[list[Any]], kind: Any) -> list[Any]:
    """Return the records of such rows."""
    names = [entry.name for entry in fields(kind)]
    return [kind(**dict(zip(names, row, strict=True))) for row in stored]


def dump(state: State) -> Json:
    """Return a state as JSON values. Call it under the workspace's lock; what it returns shares nothing mutable."""
    people, ledger = state.people, state.ledger
    return {
        "version": VERSION,
        "people": [_person_row(person) for person in people.by_cio_id.values()],
        "next_serial": people.next_serial,
        "suppressed": [[list(pair), [list(each) for each in group]] for pair, group in people.suppressed.items()],
        "events": rows(ledger.events, Event),
        "activities": rows(ledger.activities, Activity),
        "next_event": ledger.next_event,
        "next_activity": ledger.next_activity,
        "seen_ids": dict(ledger.seen_ids),
        "names": dict(ledger.names),
        "anonymous": {key: [event.seq for event in events] for key, events in ledger.anonymous.items()},
        "segments": [[*row[:-1], list(row[-1])] for row in rows(state.segments.values(), Segment)],
        "next_segment": state.next_segment,
        "things": rows(state.things.values(), Thing),
        "next_thing": state.next_thing,
        "deliveries": dict(state.deliveries),
        "counts": dict(state.counts),
        "actions": dict(state.actions),
        "pending": list(state.pending),
    }


def _person_row(person: Person) -> Json:
    row = {entry.name: getattr(person, entry.name) for entry in fields(Person)}
    for name in ("attributes", "timestamps"):
        row[name] = dict(row[name])
    for name in ("devices", "relationships", "messages"):
        row[name] = copy.deepcopy(row[name])
    return row | {"segments": sorted(person.segments), "activities": rows(person.activities, Activity)}


def restore(stored: Json, state: State) -> None:
    """Fill an empty state from what `dump` returned; raise `KeyError`, `TypeError`, `ValueError` on anything else."""
    if stored["version"] != VERSION:
        raise ValueError(f"version {stored['version']!r}, expected {VERSION}")
    _restore_ledger(stored, state)
    _restore_people(stored, state)
    for row in stored["segments"]:
        (segment,) = records([[*row[:-1], dict.fromkeys(row[-1])]], Segment)
        state.segments[segment.id] = segment
    for thing in records(stored["things"], Thing):
        state.things[thing.object_type_id, thing.object_id] = thing
    state.next_segment, state.next_thing = _number(stored, "next_segment"), _number(stored, "next_thing")
    state.deliveries.update(stored["deliveries"])
    state.counts.update(stored["counts"])
    state.actions.update(stored["actions"])
    state.pending.extend((due, received, item) for due, received, item in stored["pending"])


def _restore_ledger(stored: Json, state: State) -> None:
    ledger = state.ledger
    ledger.events.extend(records(stored["events"], Event))
    ledger.activities.extend(records(stored["activities"], Activity))
    ledger.next_event, ledger.next_activity = _number(stored, "next_event"), _number(stored, "next_activity")
    ledger.seen_ids.update(stored["seen_ids"])
    ledger.names.update(stored["names"])
    by_seq = {event.seq: event for event in ledger.events}
    for key, numbers in stored["anonymous"].items():
        ledger.anonymous[key] = [by_seq[number] for number in numbers if number in by_seq]


def _restore_people(stored: Json, state: State) -> None:
    people = state.people
    shared = {activity.seq: activity for activity in state.ledger.activities}
    for row in stored["people"]:
        own = [shared.get(activity.seq, activity) for activity in records(row["activities"], Activity)]
        kept = deque(own, maxlen=state.options.activities_per_person)
        person = Person(**{**row, "segments": set(row["segments"]), "activities": kept})
        people.by_cio_id[person.cio_id] = person
    people.next_serial = _number(stored, "next_serial")
    people.index()
    for pair, group in stored["suppressed"]:
        people.suppressed[_pair(pair)] = [_pair(each) for each in group]


def _number(stored: Json, name: str) -> int:
    if not isinstance(stored[name], int):
        raise TypeError(f"{name} is no number")
    return int(stored[name])


def _pair(stored: list[str]) -> tuple[str, str]:
    kind, key = stored
    return kind, key


def load(workspace: Workspace, path: Path) -> None:
    """Put a workspace into the state of a file; no file, no change. Raise `Misconfigured` on a broken one."""
    hint = "move the file away to start empty, or give another one"
    try:
        source = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read the state file {path}: {error}", hint=hint) from error
    state = empty(workspace.options, workspace.faults)
    try:
        restore(json.loads(source), state)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Misconfigured(f"the state file {path} is broken: {error}", hint=hint) from error
    workspace.replace(state)


def save(workspace: Workspace, path: Path) -> None:
    """Write the workspace to a file, all or nothing: whoever reads it sees the old state or the new one."""
    with workspace.reading() as state:
        content = dump(state)
    temporary = path.with_name(f".{path.name}.saving")
    with temporary.open("w", encoding="ascii") as target:
        target.writelines(pieces(content))
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def pieces(content: Json) -> Iterator[str]:
    """Return a JSON object in pieces that take a few milliseconds each, so that other threads go on between them."""
    for number, (name, value) in enumerate(content.items()):
        yield f"{',' if number else '{'}\n{json.dumps(name)}:"
        if not isinstance(value, list):
            yield json.dumps(value, separators=(",", ":"))
            continue
        for start in range(0, max(len(value), 1), PIECE):
            inner = json.dumps(value[start : start + PIECE], separators=(",", ":"))[1:-1]
            yield ("[" if start == 0 else ",") + inner
        yield "]"
    yield "\n}\n"


class Keeper:
    """Loads a state file at once, and from `start` to `stop` saves it in a thread of its own.

    It saves only after a change, and never spends more than a tenth of the time on it.
    """

    def __init__(self, workspace: Workspace, path: Path, *, every: float) -> None:
        self._workspace = workspace
        self._path = path
        self._every = every
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state-keeper", daemon=True)
        load(workspace, path)
        self._saved = -1
        self.save()

    def start(self) -> None:
        """Begin to save."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and save what is not saved yet."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.save()

    def save(self) -> None:
        """Save if anything changed since. Raise `Misconfigured` if the file cannot be written."""
        version = self._workspace.version
        if version == self._saved:
            return
        try:
            save(self._workspace, self._path)
        except OSError as error:
            raise Misconfigured(
                f"cannot write the state file {self._path}: {error}", hint="name a file in a writable directory"
            ) from error
        self._saved = version

    def _run(self) -> None:
        pause = self._every
        while not self._stopping.wait(pause):
            began = clock.monotonic()
            try:
                self.save()
            except Misconfigured as error:
                _logger.warning("state not saved: %s", error)
            pause = max(self._every, 10 * (clock.monotonic() - began))
