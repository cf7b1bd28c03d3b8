"""What makes an operation refused at the door: missing keys, identifiers, unknown actions, lengths. Pure.

It looks at one operation alone, never at the workspace's people: what depends on them fails after the 200.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from connector.emulators.ledger import is_ulid
from connector.emulators.options import Faults, Json, Options
from connector.emulators.people import text

MAX_ID_BYTES = 150
MAX_NAME_BYTES = 150
MAX_VALUE_BYTES = 1000
MAX_ATTRIBUTES = 300
MAX_EVENT_NAME_BYTES = 100
MAX_EVENT_DATA_BYTES = 100_000

_WIDEST = 4  # bytes of one character in UTF-8: shorter strings need no encoding to be measured
_STRUCTURED = ("cio_subscription_preferences",)


class Refusal(NamedTuple):
    """Why an operation was refused, in the words of the API's `errors[]`."""

    reason: str
    field: str
    message: str


def size(value: str) -> int:
    """Return the length in UTF-8 bytes, of text with lone surrogates too."""
    return len(value.encode("utf-8", "surrogatepass"))


def longer(value: str, limit: int) -> bool:
    """Say whether `value` takes more than `limit` bytes."""
    return len(value) * _WIDEST > limit and size(value) > limit


def refusal(item: Any, *, options: Options, faults: Faults) -> Refusal | None:
    """Return why `item` cannot be accepted, or None if it can."""
    if not isinstance(item, dict):
        return Refusal("invalid", "batch", "each operation must be an object")
    kind, action = item.get("type"), item.get("action")
    if kind is None:
        return Refusal("required", "type", "type is required")
    if not isinstance(kind, str) or kind not in _ACTIONS:
        return Refusal("invalid", "type", "type must be person, object or delivery")
    if action is None:
        return Refusal("required", "action", "action is required")
    check = _ACTIONS[kind].get(action) if isinstance(action, str) else None
    if check is None:
        return Refusal("invalid", "action", f"unknown action for type {kind}")
    return check(item, options) or _unwanted(item, faults)


def _unwanted(item: Json, faults: Faults) -> Refusal | None:
    if faults.refuse_names and item.get("name") in faults.refuse_names:
        return Refusal("invalid", "name", "name is refused by the emulator's settings")
    if faults.refuse_ids and (item.get("identifiers") or {}).get("id") in faults.refuse_ids:
        return Refusal("invalid", "identifiers.id", "id is refused by the emulator's settings")
    return None


def identifiers(  # noqa: PLR0911  one return per rule
    value: Any,
    *,
    field: str,
    options: Options,
    allowed: tuple[str, ...],
) -> Refusal | None:
    """Check that `value` holds exactly one identifier, of a kind allowed here, as a string of fitting length."""
    if value is None:
        return Refusal("required", field, f"{field} is required")
    if not isinstance(value, dict):
        return Refusal("invalid", field, f"{field} must be an object")
    if len(value) != 1:
        return Refusal("invalid", field, f"{field} must contain exactly one identifier")
    (kind, key), *_ = value.items()
    if kind not in allowed or (options.id_only and kind in ("email", "phone")):
        return Refusal("invalid", f"{field}.{kind}", f"Invalid identifier: {kind} is not an identifier here")
    if key is None:
        return Refusal("invalid", f"{field}.{kind}", f"Invalid identifier: {kind} cannot be null")
    if not isinstance(key, str):
        return Refusal("invalid", f"{field}.{kind}", f"{kind} attribute must be a string value")
    if not key.strip():
        return Refusal("invalid", f"{field}.{kind}", f"{kind} attribute cannot be an empty string")
    if longer(key, MAX_ID_BYTES) and kind != "email":
        return Refusal("invalid", f"{field}.{kind}", f"{kind} attribute cannot be longer than {MAX_ID_BYTES} bytes")
    return None


_PERSON = ("id", "email", "phone", "cio_id")


def _person(item: Json, options: Options) -> Refusal | None:
    return identifiers(item.get("identifiers"), field="identifiers", options=options, allowed=_PERSON)


def _identify(item: Json, options: Options) -> Refusal | None:
    return _person(item, options) or attributes(item.get("attributes")) or _relationships(item, required=False)


def attributes(value: Any) -> Refusal | None:
    """Check names and values of attributes against the published limits."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return Refusal("invalid", "attributes", "attributes must be a hash")
    if len(value) > MAX_ATTRIBUTES:
        message = f"cannot identify more than {MAX_ATTRIBUTES} attributes in one request"
        return Refusal("invalid", "attributes", message)
    for name, entry in value.items():
        if longer(name, MAX_NAME_BYTES):
            message = f"attribute name cannot be longer than {MAX_NAME_BYTES} bytes"
            return Refusal("invalid", "attributes", message)
        if isinstance(entry, str | dict | list) and name not in _STRUCTURED and longer(text(entry), MAX_VALUE_BYTES):
            message = f"value for attribute '{name}' cannot be longer than {MAX_VALUE_BYTES} bytes"
            return Refusal("invalid", f"attributes.{name}", message)
    return None


def _event(item: Json, options: Options) -> Refusal | None:
    given = item.get("identifiers")
    if not (isinstance(given, dict) and not given and "anonymous_id" in item):
        allowed = (*_PERSON, "anonymous_id")
        fault = identifiers(given, field="identifiers", options=options, allowed=allowed)
        if fault is not None:
            return fault
    return _event_name(item) or _event_data(item) or _event_id(item, options)


def _event_name(item: Json) -> Refusal | None:
    name = item.get("name")
    if name is None:
        return Refusal("required", "name", "event name must not be blank")
    if not isinstance(name, str) or not name.strip():
        return Refusal("invalid", "name", "event name must not be blank")
    if longer(name, MAX_EVENT_NAME_BYTES):
        return Refusal("invalid", "name", f"event name cannot be longer than {MAX_EVENT_NAME_BYTES} bytes")
    return None


def _event_data(item: Json) -> Refusal | None:
    data = item.get("attributes")
    if data is not None and not isinstance(data, dict):
        return Refusal("invalid", "attributes", "event data must be a hash")
    return None


def _event_id(item: Json, options: Options) -> Refusal | None:
    if options.malformed_event_id == "reject" and item.get("id") is not None and not is_ulid(item["id"]):
        return Refusal("invalid", "id", "id must be a ULID")
    return None


def _merge(item: Json, options: Options) -> Refusal | None:
    if "identifiers" in item:
        return Refusal("invalid", "identifiers", "merge takes primary and secondary, not identifiers")
    allowed = ("id", "email", "cio_id")
    return identifiers(item.get("primary"), field="primary", options=options, allowed=allowed) or identifiers(
        item.get("secondary"), field="secondary", options=options, allowed=allowed
    )


def _related(item: Json, options: Options) -> Refusal | None:
    return _person(item, options) or _relationships(item, required=True)


def _relationships(item: Json, *, required: bool) -> Refusal | None:
    given = item.get("cio_relationships")
    if given is None:
        return Refusal("required", "cio_relationships", "cio_relationships is required") if required else None
    whole = isinstance(given, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("identifiers"), dict)
        and isinstance(entry.get("relationship_attributes") or {}, dict)
        for entry in given
    )
    return None if whole else Refusal("invalid", "cio_relationships", "cio_relationships must be a list of objects")


def _device(item: Json, options: Options) -> Refusal | None:
    fault = _person(item, options)
    if fault is not None:
        return fault
    device = item.get("device")
    if not isinstance(device, dict):
        return Refusal("required", "device", "device is required")
    if not isinstance(device.get("token"), str) or not device["token"]:
        return Refusal("required", "device.token", "device token is required")
    if item["action"] == "add_device" and device.get("platform") not in ("ios", "android"):
        return Refusal("invalid", "device.platform", "platform must be ios or android")
    return None


def _object(item: Json, options: Options) -> Refusal | None:  # noqa: ARG001  one signature for all
    given = item.get("identifiers")
    if not isinstance(given, dict):
        return Refusal("required", "identifiers", "identifiers is required")
    wanted = ("cio_object_id",) if "cio_object_id" in given else ("object_type_id", "object_id")
    for name in wanted:
        if not isinstance(given.get(name), str) or not given[name]:
            return Refusal("required", f"identifiers.{name}", f"{name} is required and must be a string")
        if longer(given[name], MAX_ID_BYTES):
            return Refusal("invalid", f"identifiers.{name}", f"{name} cannot be longer than {MAX_ID_BYTES} bytes")
    required = str(item["action"]).endswith("_relationships")
    return attributes(item.get("attributes")) or _relationships(item, required=required)


def _delivery(item: Json, options: Options) -> Refusal | None:
    return identifiers(item.get("identifiers"), field="identifiers", options=options, allowed=("id",)) or _event_name(
        item
    )


_Check = Callable[[Json, Options], Refusal | None]

_ACTIONS: dict[str, dict[str, _Check]] = {
    "person": {
        "identify": _identify,
        "event": _event,
        "page": _event,
        "screen": _event,
        "delete": _person,
        "suppress": _person,
        "unsuppress": _person,
        "merge": _merge,
        "add_relationships": _related,
        "delete_relationships": _related,
        "add_device": _device,
        "delete_device": _device,
    },
    "object": {
        "identify": _object,
        "identify_anonymous": _object,
        "delete": _object,
        "add_relationships": _object,
        "delete_relationships": _object,
    },
    "delivery": {"event": _delivery},
}
