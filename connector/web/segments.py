"""Segments over HTTP: JSON in and out, mistakes with their paths; what changes anything needs the bearer token.

No web page of somebody else can do it: a page can neither send the token nor, without being asked first, JSON.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, Misconfigured
from connector.segments.definition import InvalidSegment
from connector.segments.draft import NameTaken, NoSegment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

_MOST_BYTES: Final = 256 * 1024
_MOST_PLAYERS: Final = 1000
_STATUS: Final[dict[type[ConnectorError], int]] = {NoSegment: 404, NameTaken: 409, Misconfigured: 422}
#: Numbers of segments are the store's integers, those of players its bigints.
_MOST_ID: Final = 2**31 - 1
_MOST_PLAYER: Final = 2**63 - 1


class Desk(Protocol):
    """What the page asks; see segment_desk.SegmentDesk."""

    def every(self) -> list[dict[str, Any]]:
        """Return every segment."""

    def show(self, segment_id: int, /) -> dict[str, Any]:
        """Return one."""

    def create(self, said: Mapping[str, Any], /) -> dict[str, Any]:
        """Make one."""

    def edit(self, segment_id: int, said: Mapping[str, Any], /) -> dict[str, Any]:
        """Change one."""

    def delete(self, segment_id: int, /) -> dict[str, Any]:
        """Take one away."""

    def refresh(self, segment_id: int, /) -> dict[str, Any]:
        """Bring its members up to date."""

    def preview(self, said: object, /) -> dict[str, Any]:
        """Tell what a definition finds."""

    def players(self, segment_id: int, after: int, limit: int, /) -> Any:
        """Return a page of members."""


class _RefusedError(Exception):
    """An answer other than what was asked for."""

    def __init__(self, status: int, error: str, **headers: str) -> None:
        super().__init__(error)
        self.status, self.error = status, error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def routes(desk: Desk, token: str | None) -> list[Route]:
    """Return the routes of segments; without a token nothing can be changed."""

    def route(path: str, **answers: Callable[[Request], Awaitable[Response]]) -> Route:
        async def answer(request: Request) -> Response:
            return await _answered(request, answers[request.method.lower().replace("head", "get")], token)

        return Route(f"/v1/segments{path}", answer, methods=[method.upper() for method in answers])

    async def listed(_: Request) -> Response:
        return _json({"segments": await run_in_threadpool(desk.every)})

    async def created(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.create, await _body(request)), 201)

    async def previewed(request: Request) -> Response:
        body = await _body(request)
        return _json(await run_in_threadpool(desk.preview, body.get("definition")))

    async def shown(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.show, _number(request)))

    async def edited(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.edit, _number(request), await _body(request)))

    async def deleted(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.delete, _number(request)))

    async def refreshed(request: Request) -> Response:
        return _json(await run_in_threadpool(desk.refresh, _number(request)))

    async def players(request: Request) -> Response:
        after, limit = _asked(request, "after", 0, _MOST_PLAYER), _asked(request, "limit", 100, _MOST_PLAYERS)
        page = await run_in_threadpool(desk.players, _number(request), after, limit)
        return _json({"players": page, "after": page[-1]["player_id"] if len(page) == limit else None})

    return [
        route("", get=listed, post=created),
        route("/preview", post=previewed),
        route("/{segment_id:int}", get=shown, patch=edited, delete=deleted),
        route("/{segment_id:int}/refresh", post=refreshed),
        route("/{segment_id:int}/players", get=players),
    ]


async def _answered(request: Request, answer: Callable[[Request], Awaitable[Response]], token: str | None) -> Response:
    try:
        if request.method not in {"GET", "HEAD"}:
            _permitted(request, token)
        return await answer(request)
    except _RefusedError as error:
        return JSONResponse({"error": error.error}, status_code=error.status, headers=error.headers)
    except InvalidSegment as error:
        told = [{"path": path, "message": message} for path, message in error.mistakes.items()]
        return JSONResponse({"error": error.message.splitlines()[0], "mistakes": told}, status_code=422)
    except ConnectorError as error:
        status = _STATUS.get(type(error), 503)
        return JSONResponse({"error": str(error)}, status_code=status)


def _permitted(request: Request, token: str | None) -> None:
    """Demand the token, and JSON where something is sent."""
    if token is None:
        raise _RefusedError(
            403, "only GET is served: set web.token in the configuration, and send it as a bearer token"
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not same:
        hint = "send the configuration's web.token as `Authorization: Bearer TOKEN`"
        raise _RefusedError(401, f"this needs the token: {hint}", WWW_Authenticate="Bearer")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.method != "DELETE" and kind != "application/json":
        raise _RefusedError(415, "send it as `Content-Type: application/json`")


async def _body(request: Request) -> Mapping[str, Any]:
    """Return the object that was sent, bounded in size."""
    sent = b""
    async for chunk in request.stream():
        sent += chunk
        if len(sent) > _MOST_BYTES:
            raise _RefusedError(413, f"the definition is larger than {_MOST_BYTES // 1024} KB: that is no segment")
    try:
        found = json.loads(sent)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(400, f"this is not JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise _RefusedError(400, "send a JSON object")
    return found


def _number(request: Request) -> int:
    number: int = request.path_params["segment_id"]
    if number > _MOST_ID:
        raise NoSegment(f"there is no segment {number}")
    return number


def _asked(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise _RefusedError(422, f"{name} must be a whole number up to {most}")
    return max(int(text), 1) if name == "limit" else int(text)


def _json(answer: object, status: int = 200) -> Response:
    content = json.dumps(answer, default=lambda value: getattr(value, "isoformat", value.__str__)())
    return Response(content, status_code=status, media_type="application/json")
