"""The bodies of the emulated APIs' answers. One look each for Track v1, Track v2 and App; it decides no status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from connector.emulators.ledger import ulid
from connector.emulators.validation import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping


class JsonAnswer(Response):
    """JSON followed by a newline, as the live service writes it."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Write ASCII: attributes may hold lone surrogates, which UTF-8 cannot carry."""
        return json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"


def accepted() -> Response:
    """Answer that everything was taken."""
    return JsonAnswer({})


def listed(refused: list[tuple[int | None, Refusal]], *, status: int) -> Response:
    """Answer v2 with `errors[]`; an entry without a place concerns the whole request."""
    errors = [({} if place is None else {"batch_index": place}) | why._asdict() for place, why in refused]
    return JsonAnswer({"errors": errors}, status_code=status)


def whole(reason: str, field: str, message: str, *, status: int = 400) -> Response:
    """Answer v2 that the whole request is refused."""
    return listed([(None, Refusal(reason, field, message))], status=status)


def v1_errors(*messages: str, status: int = 400) -> Response:
    """Answer v1 that the request is refused."""
    return JsonAnswer({"meta": {"errors": list(messages)}}, status_code=status)


def meta_error(message: str, *, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """Answer Track with the one-line error of wrong credentials and the like."""
    return JsonAnswer({"meta": {"error": message}}, status_code=status, headers=headers)


def app_error(
    detail: str, *, status: int, at: float = 0.0, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer the App API's error list; `status` is a string in its body."""
    shown = f"{detail} (reference {ulid(at, detail)})" if at else detail
    error = {"detail": shown, "status": str(status)} | ({"code": code} if code else {})
    return JsonAnswer({"errors": [error]}, status_code=status, headers=headers)
