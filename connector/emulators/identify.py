"""The identify operation: claiming profiles, colliding identifiers, stale timestamps, removals by null.

It decides whose profile an identify means and what of it may be stored; storing is `People`'s.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from connector.emulators.ledger import ulid
from connector.emulators.people import KINDS, Person, is_unsubscribed, text
from connector.emulators.stamps import unix, unix_or
from connector.emulators.validation import MAX_ATTRIBUTES

if TYPE_CHECKING:
    from connector.emulators.options import Json
    from connector.emulators.state import State

TAKEN = "The identifier is already associated with a different profile."
FIXED = "The identifier is already set and may only be changed by cio_id."
BLOCKED = "The identifier is suppressed."
FULL = "The profile has as many attributes as it may have."

PREFERENCES = "cio_subscription_preferences"
_TOPIC = f"{PREFERENCES}."

_UNSTORED = frozenset(
    {"_update", "_timestamp", "_created_in_customerio_at", "cio_id", "anonymous_id", "cio_relationships"}
)


def identify(
    state: State, kind: str, value: str, *, attributes: Json, timestamp: object, received: float
) -> Person | None:
    """Create or update the person addressed by `kind` and `value`; return it, or None if nothing was written."""
    person = state.people.find(kind, value) or _claimed(state, kind, attributes)
    if person is None:
        if attributes.get("_update") is True:
            _nobody_to_update(state, kind, value, attributes, received)
            return None
        person = ensure(state, kind, value, received=received)
        if person is None:
            return None
    stamp = unix(timestamp)
    if state.options.skip_stale_identify and stamp is not None and stamp < (person.last_edit or 0):
        state.counts["skipped_stale"] += 1
        data = {"timestamp": stamp, "last_edit": person.last_edit}
        state.log("skipped_update", at=received, person=person, data=data)
        return None
    edit = unix_or(stamp, received)
    person.last_edit = max(person.last_edit or 0, edit)
    wanted = attributes if kind == "cio_id" or kind in person.attributes else {**attributes, kind: value}
    set_attributes(state, person, wanted, received=received, addressed_by=kind)
    return person


def ensure(state: State, kind: str, value: str, *, received: float) -> Person | None:
    """Return the person under this identifier, made bare if unknown; an unknown `cio_id` drops the request."""
    person = state.people.find(kind, value)
    if person is not None:
        return person
    if kind not in state.people.kinds:
        state.counts["dropped_unknown_cio_id" if kind == "cio_id" else "ignored_unknown"] += 1
        return None
    person = state.new_person(at=received)
    state.people.store(person, kind, value, at=received)
    return person


def _claimed(state: State, kind: str, attributes: Json) -> Person | None:
    """Return the person known under another identifier of the request, if it lacks the one addressed."""
    if kind not in state.people.kinds:
        return None
    for other in state.people.kinds:
        given = attributes.get(other)
        if other == kind or given is None:
            continue
        owner = state.people.find(other, text(given))
        if owner is not None and kind not in owner.attributes:
            state.counts["profiles_claimed"] += 1
            return owner
    return None


def _nobody_to_update(state: State, kind: str, value: str, attributes: Json, received: float) -> None:
    state.counts["ignored_unknown"] += 1
    state.counts["failed_attribute_changes"] += 1
    data = {name: ("", text(entry)) for name, entry in attributes.items() if name not in _UNSTORED}
    state.log_unknown("failed_attribute_change", at=received, identifiers={kind: value}, data=data)


def set_attributes(
    state: State, person: Person, attributes: Json, *, received: float, addressed_by: str = "cio_id"
) -> None:
    """Store what may be stored; log the real changes as one activity and each refused one as its own."""
    changes: dict[str, tuple[str, str]] = {}
    stored, empty_removes = person.attributes, state.options.empty_string_removes
    for name, value in attributes.items():
        if name in _UNSTORED:
            continue
        if name.startswith(_TOPIC):
            name, value = PREFERENCES, _with_topic(person, name, value)  # noqa: PLW2901  one topic is a change of all
        wanted = value if type(value) is str else None if value is None else text(value)
        old = stored.get(name)
        if name in KINDS and name in state.people.kinds:
            wanted = wanted if wanted and wanted.strip() else None  # a blank identifier would stand for everybody
            reason = None if wanted == old else _objection(state, person, name, wanted, addressed_by)
        else:
            wanted = None if wanted == "" and empty_removes else wanted
            reason = FULL if old is None and wanted is not None and len(stored) >= MAX_ATTRIBUTES else None
        if wanted == old:
            continue
        if reason is not None:
            _refuse(state, person, name, wanted, reason=reason, at=received)
            continue
        state.people.store(person, name, wanted, at=received)
        changes[name] = (old or "", wanted or "")
    if changes:
        state.log("attribute_change", at=received, person=person, data=changes)
        _tell(state, person, changes, received)


def _objection(state: State, person: Person, kind: str, value: str | None, addressed_by: str) -> str | None:
    """Return why an identifier may not become `value` (None: be removed), or None if it may."""
    if value is None:
        return FIXED if kind == "id" else None
    if state.people.is_suppressed(kind, value):
        return BLOCKED
    owner = state.people.find(kind, value)
    if owner is not None and owner is not person:
        return TAKEN
    if kind not in person.attributes or owner is person or addressed_by == "cio_id":
        return None
    return None if kind != "id" and addressed_by == "id" and state.options.email_change_by_id else FIXED


def _refuse(state: State, person: Person, name: str, value: str | None, *, reason: str, at: float) -> None:
    state.counts["failed_attribute_changes"] += 1
    change = (person.attributes.get(name, ""), value or "")
    state.log("failed_attribute_change", at=at, person=person, name=name, data={name: change, "reason": reason})


def preferences_of(person: Person) -> Json:
    """Return the subscription preferences as an object, empty if they are unset or no object."""
    try:
        preferences = json.loads(person.attributes.get(PREFERENCES, "{}"))
    except ValueError:
        return {}
    return preferences if isinstance(preferences, dict) else {}


def _with_topic(person: Person, path: str, value: Any) -> Json:
    """Return the person's preferences with the one entry that a dot-notation key names set, or removed by null."""
    preferences = preferences_of(person)
    *outer, last = path.split(".")[1:]
    level = preferences
    for name in outer:
        if not isinstance(level.get(name), dict):
            level[name] = {}
        level = level[name]
    if value is None or value == "":
        level.pop(last, None)
    else:
        level[last] = value
    return preferences


def _tell(state: State, person: Person, changes: dict[str, tuple[str, str]], received: float) -> None:
    """Report a changed subscription as the workspace's reporting webhook does."""
    metrics: list[tuple[str, Json]] = []
    if "unsubscribed" in changes:
        was_out, now_out = (is_unsubscribed(value) for value in changes["unsubscribed"])
        if now_out != was_out:
            metrics.append(("unsubscribed" if now_out else "subscribed", {}))
    if PREFERENCES in changes:
        metrics.append((f"{PREFERENCES}_changed", {"content": changes[PREFERENCES][1]}))
    for metric, extra in metrics:
        state.counts["webhooks_raised"] += 1
        identifiers = person.identifiers
        state.notify(
            {
                "event_id": ulid(received, f"webhook {state.counts['webhooks_raised']}"),
                "object_type": "customer",
                "metric": metric,
                "timestamp": int(received),
                "data": {"customer_id": identifiers["id"], "identifiers": identifiers, **extra},
            }
        )
