"""Unix timestamps as the API reads them; it does not read a clock."""

from __future__ import annotations


def unix(value: object) -> int | None:
    """Return whole unix seconds, or None for anything that is not a positive number (text, ISO dates, booleans).

    Milliseconds are numbers too: they are kept, and lie far in the future.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return int(value)
    return None


def unix_or(value: object, fallback: float) -> int:
    """Return `value` if it is a unix timestamp, else the fallback in whole seconds."""
    stamp = unix(value)
    return int(fallback) if stamp is None else stamp
