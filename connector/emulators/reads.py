"""What the App API shows of a workspace: profiles, activities, segments, filters and pages. Pure projections.

It changes nothing, and knows no requests.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from connector.emulators.identify import preferences_of
from connector.emulators.people import Person, is_unsubscribed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from connector.emulators.ledger import Activity
    from connector.emulators.options import Json
    from connector.emulators.state import Segment, State

_CHANGES = ("attribute_change", "failed_attribute_change")


class InvalidError(ValueError):
    """The request cannot be read; the message says which part."""


class Page(NamedTuple):
    """One page of a listing and the token of the next, empty on the last."""

    items: list[Any]
    next: str


def token(place: int) -> str:
    """Return an opaque paging token."""
    return base64.urlsafe_b64encode(b"after:%d" % place).decode()


def place(value: str | None) -> int | None:
    """Return what a paging token stands for; None for the first page."""
    if not value:
        return None
    try:
        label, _, number = base64.urlsafe_b64decode(value.encode()).decode().partition(":")
        if label == "after":
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise InvalidError("start is not a token of an earlier answer")


def page(entries: Iterable[Any], *, limit: int, key: Callable[[Any], int]) -> Page:
    """Return the first `limit` entries; `key` is what the listing goes by and the token remembers."""
    items: list[Any] = []
    for entry in entries:
        if len(items) == limit:
            return Page(items, token(key(items[-1])))
        items.append(entry)
    return Page(items, "")


def card(person: Person) -> Json:
    """Return a person as the attributes endpoint shows it: text everywhere but in `unsubscribed` and `timestamps`."""
    preferences = preferences_of(person)
    attributes = {**person.attributes, "cio_id": person.cio_id}
    attributes["_cio_subscription_preferences_computed"] = json.dumps(preferences or {"topics": {}})
    return {
        "customer": {
            "id": person.attributes.get("id") or "",
            "identifiers": person.identifiers,
            "attributes": attributes,
            "timestamps": {**person.timestamps, "_cio_subscription_preferences_computed": 0},
            "unsubscribed": is_unsubscribed(person.attributes.get("unsubscribed")),
            "devices": list(person.devices.values()),
        }
    }


def preferences(person: Person) -> Json:
    """Return a person's topics as the subscription endpoint lists them."""
    topics = preferences_of(person).get("topics")
    listed = [
        {"id": number, "identifier": name, "name": name, "subscribed": bool(subscribed)}
        for number, (name, subscribed) in enumerate((topics if isinstance(topics, dict) else {}).items(), start=1)
    ]
    return {
        "customer": {
            "id": person.attributes.get("id") or "",
            "identifiers": person.identifiers,
            "topics": listed,
            "unsubscribed": is_unsubscribed(person.attributes.get("unsubscribed")),
        }
    }


def relationships(state: State, person: Person) -> list[Json]:
    """Return the objects a person is related to."""
    return [
        {
            "object_type_id": kind,
            "identifiers": {
                "object_type_id": kind,
                "object_id": object_id,
                "cio_object_id": state.things[kind, object_id].cio_object_id,
            },
            "relationship_attributes": attributes,
        }
        for kind, related in person.relationships.items()
        for object_id, attributes in related.items()
    ]


def activity_row(activity: Activity) -> Json:
    """Return one line of the activity log."""
    data = activity.data
    if activity.type in _CHANGES:
        data = {name: _change(value) for name, value in data.items()}
    return {
        "id": activity.id,
        "type": activity.type,
        "timestamp": activity.timestamp,
        "customer_id": activity.identifiers.get("id"),
        "customer_identifiers": activity.identifiers,
        "name": activity.name,
        "delivery_id": None,
        "delivery_type": None,
        "data": data,
    }


def _change(value: Any) -> Any:
    return value if isinstance(value, str) else {"from": value[0], "to": value[1]}


def wanted(activity: Activity, *, kind: str | None, name: str | None) -> bool:
    """Say whether an activity is of this type and name; a change goes by the attributes' names."""
    if kind is not None and activity.type != kind:
        return False
    return name is None or name == activity.name or (activity.type in _CHANGES and name in activity.data)


def segment_row(segment: Segment) -> Json:
    """Return a manual segment as the App API shows it."""
    return {
        "id": segment.id,
        "deduplicate_id": f"{segment.id}:{segment.updated_at}",
        "name": segment.name,
        "description": segment.description,
        "state": "finished",
        "progress": None,
        "type": "manual",
        "tags": None,
        "created_at": segment.created_at,
        "updated_at": segment.updated_at,
    }


def matcher(condition: Any) -> Callable[[Person], bool]:
    """Return the test that an audience filter describes. Raise `InvalidError` if it is none."""
    if not isinstance(condition, dict) or len(condition) != 1:
        raise InvalidError("filter must have exactly one of and, or, not, segment, attribute")
    ((kind, value),) = condition.items()
    if kind in ("and", "or"):
        if not isinstance(value, list) or not value:
            raise InvalidError(f"{kind} must be a list of conditions")
        tests = [matcher(entry) for entry in value]
        combine = all if kind == "and" else any
        return lambda person: combine(test(person) for test in tests)
    if kind == "not":
        test = matcher(value)
        return lambda person: not test(person)
    if kind == "segment":
        return _in_segment(value)
    if kind == "attribute":
        return _has_attribute(value)
    raise InvalidError(f"unknown condition {kind}")


def _in_segment(value: Any) -> Callable[[Person], bool]:
    number = value.get("id") if isinstance(value, dict) else None
    if not isinstance(number, int):
        raise InvalidError("segment needs a numeric id")
    return lambda person: number in person.segments


def _has_attribute(value: Any) -> Callable[[Person], bool]:
    if not isinstance(value, dict) or not isinstance(value.get("field"), str):
        raise InvalidError("attribute needs a field")
    name, operator, expected = value["field"], value.get("operator"), value.get("value")
    if operator == "exists":
        return lambda person: name in person.attributes
    if operator != "eq" or not isinstance(expected, str):
        raise InvalidError("attribute needs the operator eq with a text value, or exists")
    return lambda person: person.attributes.get(name) == expected
