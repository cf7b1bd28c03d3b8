"""How an operator writes durations, rates, hours, zones, codes and names; what is none is said in words."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from connector.errors import Misconfigured

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$")
_HOURS: Final = re.compile(r"^([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)$")


def _seconds(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.match(value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit: {value}s?")  # noqa: TRY004 - pydantic collects ValueError only
    raise ValueError("not a duration: write 100ms, 2m, 24h or 7d")


def duration(text: str) -> float:
    """Return the seconds of a duration such as 100ms, 30s, 2m or 7d, as the configuration and commands write it."""
    try:
        return float(_seconds(text))  # type: ignore[arg-type]
    except ValueError as error:
        raise Misconfigured(f"{text!r} is {error}") from None


def _decimal(value: object) -> object:
    try:
        rate = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("not a number") from None
    if not rate.is_finite() or rate <= 0:
        raise ValueError("a rate must be above zero")
    return rate


def _hours(value: object) -> object:
    if isinstance(value, str) and (match := _HOURS.match(value)):
        start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
        if start < 1440 and end <= 1440:
            return (start, end)
    raise ValueError('not a range of hours: write "02:00-05:30"')


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError("not an IANA time zone, such as Europe/Madrid") from None
    return value


Seconds = Annotated[float, BeforeValidator(_seconds)]
Rate = Annotated[Decimal, BeforeValidator(_decimal)]
#: Minutes of the source's UTC day, [start, end); start > end spans midnight.
Hours = Annotated[tuple[int, int], BeforeValidator(_hours)]
Zone = Annotated[str, AfterValidator(_zone)]
Code = Annotated[str, Field(pattern=r"^[A-Za-z0-9]{2,10}$"), AfterValidator(str.upper)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
