"""Trees into SQL: predicates over `crm.players p` and, for what players did, one relation `e` of aggregates.

Field names and aggregations come from fixed tables, values are bound: nothing of a definition's text is in the SQL.
An absent value equals nothing: null leaves a condition unmet, and only `!=` and `not_in` hold for it. There is no
negation above the conditions, so a null that rises through AND and OR means "not met", and `is true` decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from connector.event import NAMES
from connector.segments.definition import Event, Group, InvalidSegment, Trait
from connector.segments.fields import FIELDS
from connector.segments.operands import Operand, Rolling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from connector.segments.windows import Calendar

#: Of a player's days in a window; `last`: days follow each other as their latest events do.
_AGGREGATES: Final = {
    "count": "sum(d.events) filter (where {window})",
    "sum": "sum(d.total) filter (where {window})",
    "min": "min(d.least) filter (where {window})",
    "max": "max(d.greatest) filter (where {window})",
    "last": "(array_agg(d.last_amount order by d.day desc) filter (where d.last_at is not null and {window}))[1]",
}
_COMPARED: Final = {"=": "=", "!=": "<>", ">": ">", ">=": ">=", "<": "<", "<=": "<="}


@dataclass(frozen=True)
class Contacts:
    """How contacts are found: `match` gives what `email_match` or `phone_match` holds for a text.

    `plain`: the texts themselves are readable too. Encrypted, parts of them can't be asked for.
    """

    match: Callable[[str, str], str]
    plain: bool = True


PLAIN: Final = Contacts(lambda kind, text: text.lower() if kind == "email" else text)


@dataclass
class Compiled:
    """Predicates of segments, by their number, with the values and aggregates that they share."""

    calendar: Calendar
    contacts: Contacts
    predicates: dict[int, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    #: Whether a condition names an e-mail address or a phone number.
    personal: bool = False
    _bound: dict[tuple[type, object], str] = field(default_factory=dict)
    _columns: dict[str, str] = field(default_factory=dict)
    _names: set[int] = field(default_factory=set)
    _since: date | None = None

    def bind(self, value: object) -> str:
        """Return the placeholder of a value."""
        key = (type(value), tuple(value) if isinstance(value, list) else value)
        if key not in self._bound:
            name = self._bound[key] = f"v{len(self._bound)}"
            self.values[name] = value
        return f"%({self._bound[key]})s"

    def aggregate(self, event: Event) -> str:
        """Return the column of `e` that holds an aggregate."""
        first, name_id = self.calendar.first(event.days), NAMES.index(event.event) + 1
        self._names.add(name_id)
        self._since = min(first, self._since or first)
        window = f"d.name_id = {self.bind(name_id)} and d.day >= {self.bind(first)}"
        said = _AGGREGATES[event.aggregation].format(window=window)
        return f"e.{self._columns.setdefault(said, f'a{len(self._columns)}')}"

    def events(self, players: str = "true") -> str:
        """Return the relation `e`, a row a player with events in any window; empty where no condition needs it.

        `players`: a condition on `d.player_id`, so that a few players are looked up by the table's key.
        """
        if not self._columns:
            return ""
        columns = ", ".join(f"{said} as {name}" for said, name in self._columns.items())
        names = f"d.name_id = any({self.bind(sorted(self._names))}::smallint[])"
        days = f"d.day >= {self.bind(self._since)} and d.day <= {self.bind(self.calendar.today)}"
        return (
            f"select d.player_id, {columns} from crm.player_days d where {players} and d.tenant = %(tenant)s"
            f" and {names} and {days} group by d.player_id"
        )


def compile_all(trees: Mapping[int, Group], calendar: Calendar, contacts: Contacts = PLAIN) -> Compiled:
    """Compile segments, as of a day; `%(tenant)s` is left to the caller. Raises InvalidSegment."""
    compiled = Compiled(calendar, contacts)
    mistakes: dict[str, str] = {}
    for number, tree in trees.items():
        compiled.predicates[number] = _node(tree, compiled, "", mistakes)
    if mistakes:
        raise InvalidSegment(mistakes)
    return compiled


def _node(node: Group | Trait | Event, compiled: Compiled, path: str, mistakes: dict[str, str]) -> str:
    if isinstance(node, Group):
        inner = f"{path}." if path else ""
        parts = [
            _node(part, compiled, f"{inner}conditions[{index}]", mistakes) for index, part in enumerate(node.conditions)
        ]
        return f"({f' {node.operator.lower()} '.join(parts)})"
    if isinstance(node, Event):
        return _event(node, compiled)
    kind = FIELDS[node.field].kind
    if kind == "contact":
        return _contact(node, compiled, path, mistakes)
    return _labels(node, compiled) if kind == "labels" else _trait(node, compiled)


def _event(node: Event, compiled: Compiled) -> str:
    column = compiled.aggregate(node)
    if node.aggregation in {"count", "sum"}:
        column = f"coalesce({column}, 0)"
    if isinstance(node.value, tuple):
        found = f"{column} {'=' if node.op == 'in' else '<>'} "
        return found + f"{'any' if node.op == 'in' else 'all'}({_listed(node.value, 'number', compiled)})"
    return f"{column} {_COMPARED[node.op]} {_single(node.value, compiled)}"


def _trait(node: Trait, compiled: Compiled) -> str:
    known = FIELDS[node.field]
    said = f"({known.sql})"
    if node.value is None:
        return f"({known.present or f'{said} is not null'})"
    if isinstance(node.value, tuple):
        found = f"{said} = any({_listed(node.value, known.kind, compiled)})"
        return found if node.op == "in" else f"({found}) is not true"
    value = _single(node.value, compiled)
    if node.op == "contains":
        return f"strpos({said}, {value}) > 0"
    if node.op == "starts_with":
        return f"starts_with({said}, {value})"
    return f"{said} is distinct from {value}" if node.op == "!=" else f"{said} {node.op} {value}"


def _labels(node: Trait, compiled: Compiled) -> str:
    known = FIELDS[node.field]
    if node.value is None:
        return f"({known.present})"
    if isinstance(node.value, tuple):
        found = f"{known.sql} ?| {_listed(node.value, 'text', compiled)}"
        return f"({found}) is not true" if node.op == "not_in" else f"({found})"
    return f"{known.sql} ? {_single(node.value, compiled)}"


def _contact(node: Trait, compiled: Compiled, path: str, mistakes: dict[str, str]) -> str:
    """E-mail and phone stand apart, so that only who may read them asks; an absent one equals nothing."""
    compiled.personal = True
    kind = FIELDS[node.field].sql
    mine = "crm.player_contacts c where c.player_id = p.player_id and"
    if node.op == "exists":
        return f"exists (select from {mine} c.{kind} is not null)"
    if node.op in {"contains", "starts_with"}:
        if not compiled.contacts.plain:
            mistakes[f"{path}.op"] = f"contacts are encrypted: of {kind} only =, !=, in, not_in and exists can be asked"
        found = f"lower(c.{kind})", f"lower({_single(node.value, compiled)})"
        part = f"strpos({found[0]}, {found[1]}) > 0" if node.op == "contains" else f"starts_with({', '.join(found)})"
        return f"exists (select from {mine} {part})"
    wanted = node.value if isinstance(node.value, tuple) else (node.value,)
    matches = compiled.bind([compiled.contacts.match(kind, str(text)) for text in wanted])
    found_ids = (
        "select c.player_id from crm.player_contacts c"
        f" where c.tenant = %(tenant)s and c.{kind}_match = any({matches}::text[])"
    )
    found_in = f"p.player_id = any(array({found_ids}))"
    return found_in if node.op in {"=", "in"} else f"({found_in}) is not true"


def _single(value: Operand | None, compiled: Compiled) -> str:
    if isinstance(value, Rolling):
        value = compiled.calendar.begins(value.days)
    return compiled.bind(value) + ("::text" if isinstance(value, str) else "")


def _listed(values: tuple[Any, ...], kind: str, compiled: Compiled) -> str:
    plain: list[Any] = [compiled.calendar.begins(item.days) if isinstance(item, Rolling) else item for item in values]
    if kind == "number":
        return f"{compiled.bind([Decimal(item) for item in plain])}::numeric[]"
    return f"{compiled.bind(plain)}::{'timestamptz' if isinstance(plain[0], datetime) else 'text'}[]"
