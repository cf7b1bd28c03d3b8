"""Request bodies: bytes to JSON with each batch item's size as it was sent. It does not judge the items."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.emulators.options import Json


class UnreadableError(ValueError):
    """The body is no JSON of the expected kind; the message says what is wrong with it."""


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise UnreadableError("number out of range")
    return number


def _constant(literal: str) -> float:
    raise UnreadableError(f"{literal} is not valid JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_constant)
_BLANK = re.compile(r"[ \t\n\r]*")


def parse(body: bytes) -> Any:
    """Return the JSON value of a body; NaN, Infinity and numbers beyond a float are refused as the API refuses them."""
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnreadableError:
        raise
    except (ValueError, RecursionError) as error:
        raise UnreadableError("malformed JSON") from error


def parse_object(body: bytes) -> Json:
    """Return the JSON object of a body; an empty body is an empty object."""
    value = parse(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise UnreadableError("the body must be a JSON object")
    return value


def oversized(body: bytes, items: list[Any], *, limit: int) -> list[int]:
    """Return the places of the items that take more than `limit` bytes.

    Items are measured as they were sent where the body is a plain `{"batch":[...]}`, else as compact JSON.
    """
    if len(body) <= limit:
        return []
    try:
        sizes = _sent_sizes(body.decode("utf-8"), len(items))
    except ValueError:  # the key stands there twice, and the first list is the shorter
        sizes = None
    if sizes is None:
        texts = (json.dumps(item, ensure_ascii=False, separators=(",", ":")) for item in items)
        sizes = [len(compact.encode("utf-8", "surrogatepass")) for compact in texts]
    return [place for place, size in enumerate(sizes) if size > limit]


def _sent_sizes(source: str, expected: int) -> list[int] | None:
    place = 0
    for token in ("{", '"batch"', ":", "["):
        place = _past_blanks(source, place)
        if not source.startswith(token, place):
            return None
        place += len(token)
    plain, sizes = source.isascii(), []
    for _ in range(expected):
        place = _past_blanks(source, place)
        _, end = _DECODER.raw_decode(source, place)
        sizes.append(end - place if plain else len(source[place:end].encode("utf-8")))
        place = _past_blanks(source, end) + 1
    return sizes


def _past_blanks(source: str, place: int) -> int:
    found = _BLANK.match(source, place)
    return found.end() if found else place
