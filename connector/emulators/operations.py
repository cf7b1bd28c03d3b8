"""What an accepted operation does to the workspace, some time after its 200. One function per action.

Nothing here refuses with an error: what cannot be applied is dropped and shows in counters and activities only,
as on the live service. Operations have the v2 shape; the v1 routes translate into it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connector.emulators.identify import ensure, identify, set_attributes
from connector.emulators.ledger import CAMPAIGN_WINDOW, Event
from connector.emulators.people import Person, text
from connector.emulators.stamps import unix_or
from connector.emulators.state import State, Thing

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.emulators.options import Json

ANONYMOUS_WINDOW = 30 * 86400  # seconds within which an anonymous event still finds its person


def apply(state: State, item: Json, *, received: float) -> None:
    """Apply one valid operation as of the instant it was received."""
    kind, action = item["type"], item["action"]
    state.actions[f"{kind}.{action}"] += 1
    _APPLY[kind, action](state, item, received)


def _addressed(state: State, identifiers: Json) -> tuple[str, str]:
    (kind, value), *_ = identifiers.items()
    if state.people.is_suppressed(kind, value):
        state.counts["ignored_suppressed"] += 1
        return "suppressed", value
    return kind, value


def _find(state: State, identifiers: Json) -> Person | None:
    kind, value = _addressed(state, identifiers)
    person = state.people.find(kind, value)
    if person is None and kind != "suppressed":
        state.counts["ignored_unknown"] += 1
    return person


def _identify(state: State, item: Json, received: float) -> None:
    kind, value = _addressed(state, item["identifiers"])
    if kind == "suppressed":
        return
    attributes = item.get("attributes") or {}
    person = identify(state, kind, value, attributes=attributes, timestamp=item.get("timestamp"), received=received)
    if person is None:
        return
    if item.get("cio_relationships"):
        _relate(state, person, item["cio_relationships"])
    anonymous_id = attributes.get("anonymous_id") or item.get("anonymous_id")
    if isinstance(anonymous_id, str):
        _adopt(state, person, anonymous_id, received)


def _adopt(state: State, person: Person, anonymous_id: str, received: float) -> None:
    events = state.ledger.anonymous.pop(anonymous_id, [])
    fresh = [event for event in events if received - event.timestamp <= ANONYMOUS_WINDOW]
    for event in fresh:
        event.cio_id, event.customer_id = person.cio_id, person.attributes.get("id")
        person.event_count += 1
    if fresh:
        state.log("anon_merge", at=received, person=person, data={"anonymous_id": anonymous_id, "events": len(fresh)})


def _event(state: State, item: Json, received: float) -> None:
    identifiers = item.get("identifiers") or {}
    named = identifiers.get("anonymous_id") or item.get("anonymous_id")
    anonymous_id = named if isinstance(named, str) else None
    known = {kind: value for kind, value in identifiers.items() if kind != "anonymous_id"}
    if known and _addressed(state, known)[0] == "suppressed":
        return
    if "cio_id" in known and ensure(state, "cio_id", known["cio_id"], received=received) is None:
        return
    if state.ledger.is_duplicate(item.get("id"), at=received, window=state.options.dedup_window):
        state.counts["events_duplicate"] += 1
        return
    person = None
    for kind, value in known.items():
        person = ensure(state, kind, value, received=received)
    _record(state, item, person=person, anonymous_id=anonymous_id, received=received)


def _record(state: State, item: Json, *, person: Person | None, anonymous_id: Any, received: float) -> None:
    timestamp = unix_or(item.get("timestamp"), received)
    event = Event(
        seq=state.ledger.next_event,
        id=item.get("id"),
        action=item["action"],
        name=item["name"].strip(),
        cio_id=person.cio_id if person else None,
        customer_id=person.attributes.get("id") if person else None,
        identifiers=item.get("identifiers") or {},
        anonymous_id=anonymous_id,
        timestamp=timestamp,
        received_at=received,
        can_trigger=received - timestamp <= CAMPAIGN_WINDOW,
        attributes=item.get("attributes") or {},
    )
    state.ledger.add_event(event)
    state.counts["events_accepted"] += 1
    if person is not None:
        person.event_count += 1
        state.log(event.action, at=timestamp, person=person, name=event.name, data=event.attributes)


def _delete(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    person = _find(state, item["identifiers"])
    if person is not None:
        state.drop_person(person)
        state.counts["people_deleted"] += 1


def _suppress(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    ((kind, value),) = item["identifiers"].items()
    person = state.people.find(kind, value)
    state.people.block(kind, value, person=person)
    if person is not None:
        state.drop_person(person)
        state.counts["people_deleted"] += 1


def _unsuppress(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    ((kind, value),) = item["identifiers"].items()
    state.people.unsuppress(kind, value)


def _merge(state: State, item: Json, received: float) -> None:
    primary, secondary = _find(state, item["primary"]), _find(state, item["secondary"])
    if primary is None or secondary is None or primary is secondary:
        return
    state.drop_person(secondary)
    inherited = {name: value for name, value in secondary.attributes.items() if not primary.attributes.get(name)}
    set_attributes(state, primary, inherited, received=received)
    for number in secondary.segments:
        _join(state, primary, number)
    for kind, related in secondary.relationships.items():
        primary.relationships[kind] = {**related, **primary.relationships.get(kind, {})}
    primary.devices = {**secondary.devices, **primary.devices}
    for delivery_id, message in secondary.messages.items():
        primary.messages[delivery_id] = message
        state.deliveries[delivery_id] = primary.cio_id
    primary.event_count += secondary.event_count
    state.counts["people_merged"] += 1


def _join(state: State, person: Person, number: int) -> None:
    if number in state.segments:
        person.segments.add(number)
        state.segments[number].members[person.cio_id] = None


def _relate(state: State, person: Person, relationships: list[Json]) -> None:
    for entry in relationships:
        thing = _thing(state, entry.get("identifiers") or {}, create=True)
        if thing is not None:
            related = person.relationships.setdefault(thing.object_type_id, {})
            _merge_texts(related.setdefault(thing.object_id, {}), entry.get("relationship_attributes") or {})


def _unrelate(state: State, person: Person, relationships: list[Json]) -> None:
    for entry in relationships:
        thing = _thing(state, entry.get("identifiers") or {}, create=False)
        if thing is not None:
            person.relationships.get(thing.object_type_id, {}).pop(thing.object_id, None)


def _merge_texts(stored: dict[str, str], changes: Json) -> None:
    """Objects and relationships drop an attribute on null and on an empty string."""
    for name, value in changes.items():
        if value is None or value == "":
            stored.pop(name, None)
        else:
            stored[name] = text(value)


def _thing(state: State, identifiers: Json, *, create: bool) -> Thing | None:
    if "cio_object_id" in identifiers:
        wanted = identifiers["cio_object_id"]
        return next((thing for thing in state.things.values() if thing.cio_object_id == wanted), None)
    key = (text(identifiers.get("object_type_id", "1")), text(identifiers.get("object_id", "")))
    thing = state.things.get(key)
    if thing is None and create and key[1]:
        thing = Thing(cio_object_id=f"ob{state.next_thing:x}", object_type_id=key[0], object_id=key[1])
        state.next_thing += 1
        state.things[key] = thing
    return thing


def _add_relationships(state: State, item: Json, received: float) -> None:
    kind, value = _addressed(state, item["identifiers"])
    person = None if kind == "suppressed" else ensure(state, kind, value, received=received)
    if person is not None:
        _relate(state, person, item["cio_relationships"])


def _delete_relationships(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    person = _find(state, item["identifiers"])
    if person is not None:
        _unrelate(state, person, item["cio_relationships"])


def _add_device(state: State, item: Json, received: float) -> None:
    kind, value = _addressed(state, item["identifiers"])
    person = None if kind == "suppressed" else ensure(state, kind, value, received=received)
    if person is not None:
        device = dict(item["device"])
        token = device.pop("token")
        device["last_used"] = unix_or(device.get("last_used"), received)
        person.devices[token] = {"id": token, **device}


def _delete_device(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    person = _find(state, item["identifiers"])
    if person is not None:
        person.devices.pop(item["device"]["token"], None)


def _object_identify(state: State, item: Json, received: float) -> None:
    thing = _thing(state, item["identifiers"], create=True)
    if thing is None:
        state.counts["ignored_unknown"] += 1
        return
    _merge_texts(thing.attributes, item.get("attributes") or {})
    _object_relate(state, item, received)


def _object_relate(state: State, item: Json, received: float) -> None:
    """The same relationship, named from the object's side: the entries identify people."""
    thing = _thing(state, item["identifiers"], create=True)
    for entry in item.get("cio_relationships") or []:
        if thing is None or not _names_person(entry["identifiers"]):
            continue
        kind, value = _addressed(state, entry["identifiers"])
        person = None if kind == "suppressed" else ensure(state, kind, value, received=received)
        if person is not None:
            related = person.relationships.setdefault(thing.object_type_id, {})
            _merge_texts(related.setdefault(thing.object_id, {}), entry.get("relationship_attributes") or {})


def _object_unrelate(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    thing = _thing(state, item["identifiers"], create=False)
    for entry in item["cio_relationships"]:
        person = _find(state, entry["identifiers"]) if _names_person(entry["identifiers"]) else None
        if thing is not None and person is not None:
            person.relationships.get(thing.object_type_id, {}).pop(thing.object_id, None)


def _names_person(identifiers: Json) -> bool:
    """Say whether a relationship's end names one known kind of person; entries that do not are passed over."""
    texts = [value for value in identifiers.values() if isinstance(value, str) and value.strip()]
    return len(identifiers) == len(texts) == 1 and "anonymous_id" not in identifiers


def _object_delete(state: State, item: Json, received: float) -> None:  # noqa: ARG001  one signature for all
    thing = _thing(state, item["identifiers"], create=False)
    if thing is None:
        state.counts["ignored_unknown"] += 1
        return
    del state.things[thing.object_type_id, thing.object_id]
    for person in state.people.by_cio_id.values():
        person.relationships.get(thing.object_type_id, {}).pop(thing.object_id, None)


def _delivery(state: State, item: Json, received: float) -> None:
    owner = state.people.by_cio_id.get(state.deliveries.get(item["identifiers"]["id"], ""))
    if owner is None:
        state.counts["ignored_unknown"] += 1
        return
    metrics = owner.messages[item["identifiers"]["id"]]["metrics"]
    metrics[item["name"]] = unix_or(item.get("timestamp"), received)


_APPLY: dict[tuple[str, str], Callable[[State, Json, float], None]] = {
    ("person", "identify"): _identify,
    ("person", "event"): _event,
    ("person", "page"): _event,
    ("person", "screen"): _event,
    ("person", "delete"): _delete,
    ("person", "suppress"): _suppress,
    ("person", "unsuppress"): _unsuppress,
    ("person", "merge"): _merge,
    ("person", "add_relationships"): _add_relationships,
    ("person", "delete_relationships"): _delete_relationships,
    ("person", "add_device"): _add_device,
    ("person", "delete_device"): _delete_device,
    ("object", "identify"): _object_identify,
    ("object", "identify_anonymous"): _object_identify,
    ("object", "delete"): _object_delete,
    ("object", "add_relationships"): _object_relate,
    ("object", "delete_relationships"): _object_unrelate,
    ("delivery", "event"): _delivery,
}
