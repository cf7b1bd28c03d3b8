"""What a stream promises about its view: columns, key, cursor; and how an actual view is bound to that promise.

Owns names and resolution (renames, aliases, case). It neither reads a database nor turns values into events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

from connector.buckets import AmountColumn
from connector.errors import Misconfigured
from connector.player import MarketingRules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from connector.config import Stream
    from connector.normalised import Normalised
    from connector.position import Kind

ValueKind = Literal["text", "id", "time", "amount", "number", "count", "currency", "flag", "enum", "list", "phone"]


@dataclass(frozen=True)
class Column:
    """One column of a contract. `aliases` are other names it has in the field; `values` its enum, upper case.

    A required column must be in the view. Where its value is missing or unreadable the row is refused, unless the
    column is `lenient`: then only the value is lost, and reported.
    """

    name: str
    kind: ValueKind = "text"
    required: bool = False
    lenient: bool = False
    aliases: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Amount:
    """A column that events take their amounts from: of every row, or of those of which `told_by` is one of `types`.

    Where it is null, or is not in the view, the amount stands in `otherwise`.
    """

    column: str
    types: tuple[str, ...] = ()
    told_by: str = "type"
    otherwise: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the contract's names of the columns, the one that goes first, first."""
        return (self.column,) if self.otherwise is None else (self.column, self.otherwise)


@dataclass(frozen=True)
class Context:
    """What a normaliser knows beside the rows. `history_until` None: all rows are live; `all_history` for backfill."""

    history_until: int | None = None
    all_history: bool = False
    rules: MarketingRules = field(default_factory=MarketingRules)


class Normalise(Protocol):
    """Turns one page of source texts into canonical frames.

    Called on the source's thread for every page, live, swept or historical. Pure: the same page gives the same frames.
    """

    def __call__(self, page: pl.DataFrame, binding: Binding, context: Context) -> Normalised:
        """Never raises for a row: a bad row is a rejection, a bad optional field is a null and a kept rejection."""


@dataclass(frozen=True)
class Contract:
    """One stream's promise. `keys` are tried in order: the first whose columns all exist is the row key."""

    stream: str
    columns: tuple[Column, ...]
    cursor: tuple[str, Kind]
    keys: tuple[tuple[str, ...], ...]
    normalise: Normalise
    #: The column of business time: it finds "lateness ago" for id cursors.
    business_time: str
    start: Literal["beginning", "now"] = "beginning"
    modes: tuple[str, ...] = ()
    #: Columns a mode does without, and those only it requires.
    mode_columns: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    #: Mode ("" where there are none) -> where its events' amounts stand, so that their sums can be compared.
    amounts: Mapping[str, tuple[Amount, ...]] = field(default_factory=dict)
    #: What its rows are: final events, players, or facts about either (labels, rates, totals) that may be written anew.
    brings: Literal["events", "profiles", "facts"] = "events"

    @property
    def reads_profiles(self) -> bool:
        """Return whether its rows are players: their status must never wait, and cost no row."""
        return self.brings == "profiles"

    @property
    def rewritten(self) -> bool:
        """Return whether a row may change under its key, and moves along the cursor then."""
        return self.brings != "events"

    def columns_for(self, mode: str | None) -> tuple[Column, ...]:
        """Return the columns of a mode: its own definitions replace the general ones of the same name."""
        own = {column.name: column for column in self.mode_columns.get(mode or "", ())}
        general = tuple(own.pop(column.name, column) for column in self.columns)
        return general + tuple(own.values())


@dataclass(frozen=True)
class Binding:
    """A contract bound to a view that exists: every name here is the view's own."""

    contract: Contract
    view: str
    mode: str | None
    cursor: str
    kind: Kind
    key: tuple[str, ...]
    columns: Mapping[str, str]
    extra: tuple[str, ...]
    values: Mapping[str, Mapping[str, str]]
    types: Mapping[str, str]
    #: Currency -> amounts of its rows are whole numbers of 10^-places of it.
    scales: Mapping[str, int] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        """Return the stream's name, as configuration, store and logs have it."""
        return self.contract.stream

    @property
    def selected(self) -> tuple[str, ...]:
        """Return the view columns that a page reads, cursor and key first, none twice."""
        return tuple(dict.fromkeys((self.cursor, *self.key, *self.columns.values(), *self.extra)))

    @property
    def amounts(self) -> tuple[AmountColumn, ...]:
        """Return the amount columns that the view can add up: none where rows are of different scales."""
        return () if self.scales else self.amount_columns

    @property
    def amount_columns(self) -> tuple[AmountColumn, ...]:
        """Return the view's amount columns, with the texts of its own that mean their types, in upper case."""
        return tuple(
            AmountColumn(
                names[0],
                self.columns[amount.told_by] if amount.types else None,
                self._texts(amount.told_by, amount.types) if amount.types else (),
                names[1] if len(names) > 1 else None,
            )
            for amount in self.contract.amounts.get(self.mode or "", ())
            if (names := [self.columns[name] for name in amount.columns if name in self.columns])
        )

    def _texts(self, name: str, meanings: Sequence[str]) -> tuple[str, ...]:
        column = next(column for column in self.contract.columns_for(self.mode) if column.name == name)
        own = {text.upper(): value.upper() for text, value in self.values.get(name, {}).items()}
        known = dict.fromkeys((*column.values, *own))
        return tuple(text for text in known if column.values.get(own.get(text, text)) in meanings)


#: Columns that every transactional view carries.
IDENTITY: Final = (
    Column("ext_brand_id", "id", required=True, aliases=("brand_id",)),
    Column("user_ext_id", "id", required=True, aliases=("external_user_id",)),
)


#: SQL types, whoever writes them, that order no ids or have no whole numbers; a domain's own name matches nothing.
_TEXTS: Final = re.compile(r"char|text|string|clob|uuid|uniqueidentifier|enum\W|^set\W|json|xml|binary|blob|bytea")
_TIMES: Final = re.compile(r"date|time")
_FLOATS: Final = re.compile(r"float|double|real")
_FRACTIONS: Final = re.compile(r"(?:numeric|decimal|number)\(\d+, ?[1-9]")


def bind(
    contract: Contract,
    config: Stream,
    types: Mapping[str, str],
    *,
    view: str,
    scales: Mapping[str, int] | None = None,
) -> Binding:
    """Bind a contract to the view whose columns and SQL types are `types`; `scales` are its source's.

    Raises Misconfigured with every missing column, an unusable key or cursor, each with what the view does have.
    """
    mode = config.mode or (contract.modes[0] if contract.modes else None)
    if config.mode and config.mode not in contract.modes:
        raise Misconfigured(
            f"stream {contract.stream} has no mode {config.mode!r}", hint=f"one of {', '.join(contract.modes)}"
        )
    actual = {name.lower(): name for name in types}
    columns, problems = _resolve(contract.columns_for(mode), config, actual)
    problems += [f"extra column {name!r} is not there" for name in config.extra if name.lower() not in actual]
    extra = tuple(dict.fromkeys(actual[name.lower()] for name in config.extra if name.lower() in actual))
    cursor_name, kind = (config.cursor.column, config.cursor.kind) if config.cursor else contract.cursor
    cursor = columns.get(cursor_name) or actual.get(cursor_name.lower())
    if cursor is None:
        problems.append(f"cursor column {cursor_name!r} is not there; set cursor: {{column: ..., kind: time|id}}")
    elif why := _unordered(kind, types[cursor]):
        problems.append(f"cursor column {cursor!r} can't be read by: {why}")
    if scales and "currency" not in columns and any(column.kind == "amount" for column in contract.columns):
        problems.append("column 'currency' is missing: the source has scales, which are by each row's own currency")
    key = _key(contract, config, columns, actual)
    if key is None:
        wanted = config.key or " or ".join("(" + ", ".join(names) + ")" for names in contract.keys)
        problems.append(f"no usable row key: the view has none of {wanted}; expose a unique id and set key: [id]")
    if problems:
        raise Misconfigured(
            f"view {view} of stream {contract.stream}: " + "; ".join(problems),
            hint=f"the view has {', '.join(types) or 'no columns'}; "
            "map names with columns: {contract_name: view_name}",
        )
    assert cursor is not None
    assert key is not None
    return Binding(contract, view, mode, cursor, kind, key, columns, extra, config.values, types, scales or {})


def _resolve(columns: Sequence[Column], config: Stream, actual: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    known = {column.name for column in columns}
    problems = [f"columns.{name}: the contract has no such column" for name in config.columns if name not in known]
    for column in columns:
        names = [config.columns[column.name]] if column.name in config.columns else [column.name, *column.aliases]
        match = next((actual[name.lower()] for name in names if name.lower() in actual), None)
        if match is not None:
            found[column.name] = match
        elif column.required or column.name in config.columns:
            problems.append(
                f"column {names[0]!r} is missing" + ("" if len(names) == 1 else f" (or {', '.join(names[1:])})")
            )
    return found, problems


def _unordered(kind: Kind, type_name: str) -> str | None:
    """Return why a column of this SQL type is no cursor of this kind, and the remedy; None where it may be one."""
    lowered = type_name.lower()
    if kind == "id" and _TEXTS.search(lowered):
        return f"it is {type_name}, and texts come as '10', '9', in no order of time; expose a number as id, or a time"
    if kind == "id" and _TIMES.search(lowered):
        return f"it is {type_name}, a time; set cursor: {{column: ..., kind: time}}"
    if _FLOATS.search(lowered) or (kind == "time" and _FRACTIONS.search(lowered)):
        return f"it is {type_name}; cast it to a whole number in the view"
    return None


def _key(
    contract: Contract, config: Stream, columns: Mapping[str, str], actual: Mapping[str, str]
) -> tuple[str, ...] | None:
    for names in [tuple(config.key)] if config.key else contract.keys:
        resolved = [columns.get(name) or actual.get(name.lower()) for name in names]
        if all(resolved):
            return tuple(name for name in resolved if name)
    return None
