"""The definition of a segment: JSON in, a frozen tree out, every mistake at once with the path of its condition.

{"operator": "AND", "conditions": [
    {"type": "trait", "field": "kyc_status", "op": "=", "value": "verified"},
    {"type": "event", "event": "bet_settled", "window": {"kind": "rolling", "days": 7},
     "aggregation": "count", "op": ">=", "value": 5}]}
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

from connector.errors import Misconfigured
from connector.segments import operands
from connector.segments.fields import AGGREGATIONS, EVENT_OPERATORS, EVENTS, FIELDS, OPERATORS, Aggregation
from connector.segments.operands import Operand, Rolling

Operator = Literal["AND", "OR"]
MOST_LEVELS: Final = 10
MOST_CONDITIONS: Final = 200
_TRAIT: Final = ("type", "field", "op", "value")
_EVENT: Final = ("type", "event", "window", "aggregation", "op", "value")
_GROUP: Final = ("operator", "conditions")


@dataclass(frozen=True)
class Trait:
    """What a player is: a field, an operator, a value (none for `exists`)."""

    field: str
    op: str
    value: Operand | None


@dataclass(frozen=True)
class Event:
    """What a player did: one aggregation of one event over today and the days before it, `days` in all."""

    event: str
    days: int
    aggregation: Aggregation
    op: str
    value: Operand


@dataclass(frozen=True)
class Group:
    """Conditions of which all (AND) or any (OR) hold."""

    operator: Operator
    conditions: tuple[Group | Trait | Event, ...]


class InvalidSegment(Misconfigured):
    """A segment that can't be: `mistakes` by path, as `conditions[2].op`."""

    def __init__(self, mistakes: Mapping[str, str], *, what: str = "the definition") -> None:
        self.mistakes = dict(mistakes)
        lines = "\n".join(f"  {path}: {message}" for path, message in self.mistakes.items())
        super().__init__(f"{what} has {len(self.mistakes)} mistake(s):\n{lines}")


def parse(raw: object) -> Group:
    """Check a definition and return its tree; raises InvalidSegment with every mistake."""
    reading = _Reading({})
    tree = reading.group(raw, "", 1)
    if reading.conditions > MOST_CONDITIONS:
        reading.mistakes["conditions"] = (
            f"{reading.conditions}, and {MOST_CONDITIONS} is the most: put alternatives of one field into one `in`"
        )
    if tree is None or reading.mistakes:
        raise InvalidSegment(reading.mistakes)
    return tree


def written(node: Group | Trait | Event) -> dict[str, Any]:
    """Return a tree as the JSON that parses to it again: the same for the same tree."""
    if isinstance(node, Group):
        return {"operator": node.operator, "conditions": [written(inner) for inner in node.conditions]}
    if isinstance(node, Trait):
        said = {"type": "trait", "field": node.field, "op": node.op}
        return said if node.value is None else {**said, "value": _plain(node.value)}
    window = {"kind": "rolling", "days": node.days}
    told = {"type": "event", "event": node.event, "window": window, "aggregation": node.aggregation}
    return {**told, "op": node.op, "value": _plain(node.value)}


def size(tree: Group) -> int:
    """Return how many conditions a tree has."""
    return sum(size(node) if isinstance(node, Group) else 1 for node in tree.conditions)


def _plain(value: Operand) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Rolling):
        return {"kind": "rolling", "days": value.days}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value) if value != value.to_integral_value() else int(value)
    return value


@dataclass
class _Reading:
    """One pass over a definition: mistakes by path, and how many conditions there were."""

    mistakes: dict[str, str]
    conditions: int = 0

    def node(self, raw: object, path: str, level: int) -> Group | Trait | Event | None:
        """Read a condition or a group."""
        if isinstance(raw, Mapping) and "type" not in raw and ("conditions" in raw or "operator" in raw):
            return self.group(raw, path, level)
        self.conditions += 1
        if not isinstance(raw, Mapping):
            self.wrong(path, "is not an object: write a condition or a group")
            return None
        match raw.get("type"):
            case "trait":
                return self.trait(raw, path)
            case "event":
                return self.event(raw, path)
            case None:
                self.wrong(f"{path}.type", "is missing: trait or event, or operator and conditions for a group")
                return None
            case other:
                self.wrong(f"{path}.type", f"{_shown(other)} is none{nearest(other, ('trait', 'event'))}")
                return None

    def group(self, raw: object, path: str, level: int) -> Group | None:
        """Read a group and all that is in it."""
        inner = f"{path}." if path else ""
        if not isinstance(raw, Mapping) or "type" in raw:
            remedy = 'write {"operator": "AND", "conditions": [...]}, even around a single condition'
            self.wrong(path or "definition", f"is not a group: {remedy}")
            return None
        if level > MOST_LEVELS:
            self.wrong(path, f"is nested deeper than {MOST_LEVELS} groups: flatten it")
            return None
        self.keys(raw, _GROUP, inner)
        operator, listed = raw.get("operator"), raw.get("conditions")
        known: Operator | None = "AND" if operator == "AND" else "OR" if operator == "OR" else None
        if known is None:
            self.wrong(f"{inner}operator", f"{_shown(operator)} is none: AND or OR")
        if not isinstance(listed, list) or not listed:
            self.wrong(f"{inner}conditions", "must be a list of at least one condition")
            return None
        nodes = [self.node(item, f"{inner}conditions[{index}]", level + 1) for index, item in enumerate(listed)]
        found = tuple(node for node in nodes if node is not None)
        return Group(known, found) if known is not None and len(found) == len(listed) else None

    def trait(self, raw: Mapping[Any, Any], path: str) -> Trait | None:
        """Read a condition on a field."""
        self.keys(raw, _TRAIT, f"{path}.")
        name = raw.get("field")
        if not isinstance(name, str) or name not in FIELDS:
            self.wrong(f"{path}.field", f"{_shown(name)} is no field{nearest(name, FIELDS)}")
            return None
        kind = FIELDS[name].kind
        op = self.op(raw, path, OPERATORS[kind], f"a {kind} field")
        if op == "exists":
            if raw.get("value") is not None:
                self.wrong(f"{path}.value", "`exists` takes no value: leave it out")
                return None
            return Trait(name, op, None)
        value = self.value(raw, path, kind, op) if op else None
        return None if op is None or value is None else Trait(name, op, value)

    def event(self, raw: Mapping[Any, Any], path: str) -> Event | None:
        """Read a condition on what was done."""
        self.keys(raw, _EVENT, f"{path}.")
        name, aggregation, before = raw.get("event"), raw.get("aggregation"), len(self.mistakes)
        if not isinstance(name, str) or name not in EVENTS:
            self.wrong(f"{path}.event", f"{_shown(name)} is no event{nearest(name, EVENTS)}")
        if aggregation not in AGGREGATIONS:
            known = nearest(aggregation, AGGREGATIONS)
            self.wrong(f"{path}.aggregation", f"{_shown(aggregation)} is none{known}")
        days = self.window(raw.get("window"), f"{path}.window")
        op = self.op(raw, path, EVENT_OPERATORS, "what was done")
        value = self.value(raw, path, "number", op) if op else None
        if len(self.mistakes) > before or days is None or op is None or value is None:
            return None
        return Event(str(name), days, aggregation, op, value)  # type: ignore[arg-type]

    def window(self, raw: object, path: str) -> int | None:
        """Read a rolling window's days."""
        try:
            return operands.rolling(raw).days
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def op(self, raw: Mapping[Any, Any], path: str, known: Collection[str], what: str) -> str | None:
        """Read an operator of those that fit."""
        op = raw.get("op")
        if isinstance(op, str) and op in known:
            return op
        self.wrong(f"{path}.op", f"{_shown(op)} does not go with {what}: {', '.join(known)}")
        return None

    def value(self, raw: Mapping[Any, Any], path: str, kind: str, op: str) -> Operand | None:
        """Read the value that an operator compares with."""
        if raw.get("value") is None:
            self.wrong(f"{path}.value", f"is missing: {operands.EXPECTED[kind]}")
            return None
        read = operands.several if op in {"in", "not_in"} else operands.single
        try:
            return read(raw["value"], kind)
        except ValueError as error:
            self.wrong(f"{path}.value", str(error))
            return None

    def keys(self, raw: Mapping[Any, Any], known: Collection[str], inner: str) -> None:
        """Note keys that mean nothing."""
        for key in raw:
            if key not in known:
                self.wrong(f"{inner}{operands.shown(key, quoted=False)}", f"is no key here{nearest(key, known)}")

    def wrong(self, path: str, message: str) -> None:
        """Note a mistake."""
        self.mistakes.setdefault(path, message)


def nearest(name: object, known: Collection[str]) -> str:
    """Return the known name that was probably meant, or all of them where they are few."""
    close = difflib.get_close_matches(str(name)[:80], list(known), n=1, cutoff=0.5)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": {', '.join(known)}"


def _shown(value: object) -> str:
    return "what is missing" if value is None else operands.shown(value)
