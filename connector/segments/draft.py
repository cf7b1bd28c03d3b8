"""What a person says of a segment: its name, purpose, definition and when it is refreshed; checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from connector.errors import Misconfigured
from connector.segments import definition, windows
from connector.segments.definition import Group, InvalidSegment, nearest
from connector.segments.operands import shown

if TYPE_CHECKING:
    from collections.abc import Callable

Strategy = Literal["realtime", "scheduled", "on_demand"]
DEFAULT_SCHEDULE: Final = "0 4 * * *"
_KEYS: Final = ("name", "description", "definition", "refresh_strategy", "schedule")
_MOST_NAME: Final = 100
_MOST_DESCRIPTION: Final = 1000
#: Any moment will do: what matters is that a schedule has a next one.
_SOME_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Draft:
    """A segment as it is to be."""

    name: str
    definition: Group
    description: str = ""
    refresh_strategy: Strategy = "realtime"
    schedule: str = DEFAULT_SCHEDULE


class NoSegment(Misconfigured):
    """There is no such segment."""


class NameTaken(Misconfigured):
    """Another segment has the name."""


def parse(raw: object, *, before: Mapping[str, Any] | None = None) -> Draft:
    """Return a new segment, or what a change makes of `before`; raises InvalidSegment with every mistake."""
    if not isinstance(raw, Mapping):
        raise InvalidSegment({"segment": f"is not an object with {', '.join(_KEYS)}"}, what="the segment")
    mistakes = {shown(key, quoted=False): f"is no key here{nearest(key, _KEYS)}" for key in raw if key not in _KEYS}
    said: dict[str, Any] = {}
    whole = {**(before or {}), **raw}
    for key, check in _CHECKS.items():
        if key in whole:
            try:
                said[key] = check(whole[key])
            except InvalidSegment as error:
                mistakes |= error.mistakes
            except ValueError as error:
                mistakes[key] = str(error)
        elif key in {"name", "definition"}:
            mistakes[key] = "is missing"
    if mistakes:
        raise InvalidSegment(mistakes, what="the segment")
    return Draft(**said)


def _name(raw: object) -> str:
    text = _text(raw, _MOST_NAME).strip()
    if not text or not text.isprintable():
        raise ValueError(f"must be 1 to {_MOST_NAME} printable characters")
    return text


def _description(raw: object) -> str:
    return _text(raw, _MOST_DESCRIPTION)


def _text(raw: object, most: int) -> str:
    if not isinstance(raw, str) or len(raw) > most or "\0" in raw or any("\ud800" <= part <= "\udfff" for part in raw):
        raise ValueError(f"{shown(raw)} is not a text of at most {most} characters")
    return raw


def _strategy(raw: object) -> str:
    if raw not in get_args(Strategy):
        raise ValueError(f"{shown(raw)} is none{nearest(raw, get_args(Strategy))}")
    return str(raw)


def _schedule(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{shown(raw)} is not a schedule of cron, as {DEFAULT_SCHEDULE!r}")  # noqa: TRY004
    windows.following(raw, _SOME_TIME, "UTC")
    return raw


_CHECKS: Final[dict[str, Callable[[object], object]]] = {
    "name": _name,
    "description": _description,
    "definition": definition.parse,
    "refresh_strategy": _strategy,
    "schedule": _schedule,
}
