"""The emulator as one ASGI application: the gate (credentials, faults, request log) in front of the routes.

What an operation means is the workspace's business; how the application is run is `serve`'s.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import Response

from connector import clock
from connector.emulators import answers, app_api, control, track_api
from connector.emulators.faults import Judge, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from connector.emulators.options import Json, Options
    from connector.emulators.webhooks import Sender
    from connector.emulators.workspace import Workspace

#: Track paths that the live service answers without credentials.
_OPEN = ("/unsubscribe/", "/api/v1/metrics", "/api/v1/push/events", "/api/v1/forms/", "/auth")


@dataclass(slots=True)
class RequestLog:
    """How many requests came, by route and by outcome: a status, or `reset` for a cut connection."""

    total: int = 0
    by_route: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, route: str, outcome: str) -> None:
        """Count one request."""
        self.total += 1
        self.by_route.setdefault(route, Counter())[outcome] += 1

    def clear(self) -> None:
        """Forget all of them."""
        self.total = 0
        self.by_route.clear()

    def shown(self) -> Json:
        """Return the counters as JSON."""
        return {"total": self.total, "by_route": {route: dict(counts) for route, counts in self.by_route.items()}}


def build(
    workspace: Workspace, *, cut: Callable[[Scope], None], sender: Sender | None = None, seed: int | None = None
) -> ASGIApp:
    """Return the application over a workspace. `cut` closes the connection of a request without an answer."""
    judge = Judge(faults=workspace.faults, monotonic=clock.monotonic, chance=random.Random(seed))  # noqa: S311  chance, no secrets
    log = RequestLog()
    routes = [
        *track_api.routes(workspace),
        *app_api.routes(workspace),
        *control.routes(workspace, log=log, sender=sender),
    ]
    handlers: Mapping[Any, Any] = {404: _not_found, 405: _not_found}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Gate(app, workspace=workspace, judge=judge, log=log, cut=cut)


def _not_found(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    detail = "not found" if status == 404 else "method not allowed"
    if _api(request.scope["path"]) == "track":
        return answers.meta_error(detail, status=status)
    return answers.app_error(detail, status=status)


def _api(path: str) -> str:
    if path.startswith("/_control"):
        return "control"
    return "app" if path.startswith("/v1/") else "track"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Settles each request before the routes see it, and carries out what the judge decides."""

    app: ASGIApp = field(kw_only=False)
    workspace: Workspace
    judge: Judge
    log: RequestLog
    cut: Callable[[Scope], None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        # Routed by the path as sent, so that an identifier may hold an encoded slash; the handlers decode.
        scope["path"] = scope["raw_path"].decode("latin-1")
        api = _api(scope["path"])
        if api == "control":
            await self.app(scope, receive, send)
            return
        outcome = await self._handle(api, scope, receive, send)
        endpoint = scope.get("endpoint")
        self.log.add(getattr(endpoint, "__name__", f"{api}: not routed"), outcome)

    async def _handle(self, api: str, scope: Scope, receive: Receive, send: Send) -> str:
        verdict = self.judge.redirect(api)
        if verdict is None and not self._authorised(api, scope):
            await _drain(receive)
            return await self._answer(_unauthorised(api), scope, receive, send)
        verdict = verdict or self.judge.judge(api)
        messages = await self._applied(scope, receive) if verdict.applies else await _drain(receive)
        if verdict.delay:
            await asyncio.sleep(verdict.delay)
        if verdict.reset:
            self.cut(scope)
            while (await receive())["type"] != "http.disconnect":
                pass
            return "reset"
        if verdict.status is not None:
            return await self._answer(_fault(api, verdict, scope["path"]), scope, receive, send)
        for message in messages:
            await send(message)
        return str(messages[0]["status"])

    async def _applied(self, scope: Scope, receive: Receive) -> list[Message]:
        """Let the routes answer, and keep the answer back."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, keep)
        return messages

    async def _answer(self, response: Response, scope: Scope, receive: Receive, send: Send) -> str:
        await response(scope, receive, send)
        return str(response.status_code)

    def _authorised(self, api: str, scope: Scope) -> bool:
        header = Headers(scope=scope).get("authorization", "")
        if api == "app":
            return bearer_fits(header, self.workspace.options)
        return scope["path"].startswith(_OPEN) or basic_fits(header, self.workspace.options)


async def _drain(receive: Receive) -> list[Message]:
    """Read a body that nobody wants, or the client gets a broken pipe in place of its answer."""
    while (await receive()).get("more_body"):
        pass
    return []


def basic_fits(header: str, options: Options) -> bool:
    """Say whether a Basic header carries the workspace's site id and key (any non-empty pair if none are set)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        site_id, _, api_key = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    if options.site_id is None and options.api_key is None:
        return bool(site_id and api_key)
    return _same(site_id, options.site_id) and _same(api_key, options.api_key)


def bearer_fits(header: str, options: Options) -> bool:
    """Say whether a Bearer header carries the App key (any non-empty one if none is set)."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return False
    return options.app_key is None or _same(token.strip(), options.app_key)


def _same(given: str, expected: str | None) -> bool:
    return expected is not None and hmac.compare_digest(given.encode(), expected.encode())


def _unauthorised(api: str) -> Response:
    if api == "app":
        return answers.app_error("unauthorized", status=401, code="invalid_credentials")
    return answers.meta_error("Unauthorized request", status=401)


def _fault(api: str, verdict: Verdict, path: str) -> Response:
    status, headers = verdict.status or 500, {}
    if verdict.location is not None:
        headers["location"] = verdict.location.rstrip("/") + path
    if verdict.retry_after is not None:
        headers["retry-after"] = f"{verdict.retry_after:g}"
    if 300 <= status < 400:
        return Response(status_code=status, headers=headers)
    words = {429: "rate limited to 10 requests per 1s" if api == "app" else "too many requests"}
    detail = words.get(status, "the service is unavailable")
    if api == "app":
        return answers.app_error(detail, status=status, at=clock.now().timestamp(), headers=headers)
    return answers.meta_error(detail, status=status, headers=headers)
