"""Values of conditions: read from JSON by the kind of what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

MOST_DAYS: Final = 365
_MOST_VALUES: Final = 1000
_MOST_CHARACTERS: Final = 500
_BOUND: Final = Decimal(10) ** 24
#: What to write, by kind.
EXPECTED: Final = {
    "text": 'a text, as "gold"',
    "contact": 'a text, as "ana@example.com"',
    "labels": 'one label, as "vip"',
    "number": "a number, as 100000 (money: in the smallest unit of the base currency)",
    "flag": "true or false",
    "time": 'a time, as "2026-01-31T12:00:00Z", or {"kind": "rolling", "days": 30}',
}


@dataclass(frozen=True)
class Rolling:
    """The moment at which a window of so many days begins: midnight in the reporting time zone."""

    days: int


Operand = str | int | Decimal | bool | datetime | Rolling | tuple["str | int | Decimal | datetime | Rolling", ...]


def single(raw: object, kind: str) -> str | int | Decimal | bool | datetime | Rolling:
    """Return one value of a kind; raises ValueError."""
    if kind == "number":
        return _number(raw)
    if kind == "time":
        return _time(raw)
    if kind == "flag":
        if isinstance(raw, bool):
            return raw
        raise ValueError(f"{shown(raw)} is not {EXPECTED[kind]}")
    return _text(raw, kind)


def several(raw: object, kind: str) -> tuple[str | int | Decimal | datetime | Rolling, ...]:
    """Return the values of a list, each once and in the order of the list; raises ValueError."""
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"must be a list of at least one value: {EXPECTED[kind]}")
    if len(raw) > _MOST_VALUES:
        raise ValueError(f"has {len(raw)} values, and {_MOST_VALUES} is the most")
    return tuple(dict.fromkeys(single(item, kind) for item in raw))


def rolling(raw: object) -> Rolling:
    """Return a rolling window; raises ValueError."""
    if not isinstance(raw, Mapping) or raw.get("kind") != "rolling" or set(raw) != {"kind", "days"}:
        raise ValueError('must be {"kind": "rolling", "days": N}')
    days = raw["days"]
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= MOST_DAYS:
        raise ValueError(f"days must be a whole number from 1 (today) to {MOST_DAYS}")
    return Rolling(days)


def shown(value: object, *, quoted: bool = True) -> str:
    """Return a value as a message may quote it: short, and without characters that no terminal shows."""
    text = ascii(value) if quoted or not isinstance(value, str) else ascii(value)[1:-1]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(raw: object) -> int | Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | float | Decimal):
        raise ValueError(f"{shown(raw)} is not {EXPECTED['number']}")  # noqa: TRY004 - one kind of mistake
    number = Decimal(raw) if isinstance(raw, int) else Decimal(str(raw))
    if not number.is_finite() or abs(number) >= _BOUND:
        raise ValueError("is beyond every number that a player has")
    return int(number) if number == number.to_integral_value() else number


def _time(raw: object) -> datetime | Rolling:
    if isinstance(raw, Mapping):
        return rolling(raw)
    try:
        found = datetime.fromisoformat(raw) if isinstance(raw, str) else None
        if found is not None:
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{shown(raw)} is not {EXPECTED['time']}")


def _text(raw: object, kind: str) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"{shown(raw)} is not {EXPECTED[kind]}")  # noqa: TRY004 - one kind of mistake
    if not raw or len(raw) > _MOST_CHARACTERS:
        raise ValueError(f"must have 1 to {_MOST_CHARACTERS} characters: `exists` asks whether there is a value")
    if "\0" in raw or any("\ud800" <= character <= "\udfff" for character in raw):
        raise ValueError("holds a character that no player's text can hold")
    return raw
