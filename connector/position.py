"""Positions in a view, and the arithmetic of the two marks `seen` and `sealed`. Pure.

A position is what the *source* wrote: cursor and row key as its own text at full precision. Only the source compares
such texts (bound back with the column's own type); here they are carried, never ordered. The integer `mark` beside
them (nanoseconds since 1970, or the id itself) serves sealing arithmetic and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

Kind = Literal["time", "id"]

SECOND: Final = 1_000_000_000
EARLIEST: Final = -(2**62)
LATEST: Final = 2**62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP: Final = re.compile(
    r"^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?$"
)
#: Below each bound an integer counts this many nanoseconds: seconds, milliseconds, microseconds, nanoseconds.
_EPOCH_UNITS: Final = ((10**10, SECOND), (10**13, 10**6), (10**16, 10**3), (10**20, 1))


@dataclass(frozen=True, slots=True)
class Position:
    """One row's place in a view's order (cursor, key)."""

    cursor: str
    key: tuple[str, ...]
    mark: int


@dataclass(frozen=True, slots=True)
class Window:
    """Rows strictly after `after` (None: from the beginning), with a cursor from `since` to `until`, both included."""

    after: Position | None
    until: str | None
    since: str | None = None


def mark_of(text: str, kind: Kind) -> int:
    """Return the integer of a cursor text. A time that no calendar here can hold is EARLIEST (BC) or LATEST."""
    if kind == "id":
        return int(text.partition(".")[0])
    if text.isdigit() or (text.startswith("-") and text[1:].isdigit()):
        return int(text) * epoch_unit(int(text))
    match = _TIMESTAMP.match(text)
    if match is None:
        return EARLIEST if text.endswith("BC") or text.startswith("-") else LATEST
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        instant = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return EARLIEST if year < 1970 else LATEST
    whole = (instant - _EPOCH) // timedelta(seconds=1) - _offset_seconds(match[8])
    return whole * SECOND + int((match[7] or "").ljust(9, "0"))


def epoch_unit(number: int) -> int:
    """Return how many nanoseconds one step of an epoch integer of this size counts."""
    return next((unit for bound, unit in _EPOCH_UNITS if abs(number) < bound), 1)


def cursor_text(mark: int, *, like: str) -> str:
    """Write an instant the way the source wrote `like`: as an epoch integer of the same unit, or as a UTC timestamp."""
    if like.lstrip("-").isdigit():
        return str(mark // epoch_unit(int(like)))
    instant = _EPOCH + timedelta(microseconds=mark // 1000)
    zone = "+00" if _TIMESTAMP.match(like) and _TIMESTAMP.match(like)[8] else ""  # type: ignore[index]
    return instant.strftime("%Y-%m-%d %H:%M:%S.%f") + zone


def _offset_seconds(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    hours, minutes, seconds = (
        int(part) for part in (zone[1:].replace(":", "").ljust(6, "0")[i : i + 2] for i in (0, 2, 4))
    )
    return (-1 if zone[0] == "-" else 1) * (hours * 3600 + minutes * 60 + seconds)


def tick_of(type_name: str) -> int:
    """Return the nanoseconds that one value of a time column of this SQL type covers."""
    lowered = type_name.lower()
    if lowered == "date":
        return 86_400 * SECOND
    if lowered in {"datetime", "timestamp", "smalldatetime", "datetime(0)", "timestamp(0)"} or "(0)" in lowered:
        return 60 * SECOND if lowered == "smalldatetime" else SECOND
    if match := re.search(r"\((\d)\)", lowered):
        return int(10 ** (9 - int(match[1])))
    return 1000 if lowered.startswith("timestamp") else SECOND // 1000
