"""The Track API's routes, v1 and v2: requests become operations of the v2 shape, refusals become the API's errors.

Semantics are the workspace's; credentials and faults are settled before a request comes here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import Route

from connector.emulators import answers, envelope
from connector.emulators.validation import MAX_EVENT_DATA_BYTES, Refusal, longer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from connector.emulators.options import Json
    from connector.emulators.workspace import Workspace

MAX_SEGMENT_IDS = 1000

#: What a v1 path takes for an email address.
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def guess(identifier: str, *, id_only: bool = False) -> Json:
    """Return the identifier that a v1 path means, guessed from its shape as the API does."""
    if identifier.startswith("cio_"):
        return {"cio_id": identifier[len("cio_") :]}
    if not id_only and _EMAIL.fullmatch(identifier):
        return {"email": identifier}
    return {"id": identifier}


def routes(workspace: Workspace) -> list[Route]:
    """Return the Track API's routes over a workspace."""
    handlers = _Handlers(workspace)
    customer = "/api/v1/customers/{identifier}"
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("POST", "/api/v2/batch", handlers.v2_batch),
        ("POST", "/api/v2/entity", handlers.v2_entity),
        ("GET", "/api/v1/accounts/region", handlers.v1_region),
        ("PUT", customer, handlers.v1_identify),
        ("DELETE", customer, handlers.v1_delete),
        ("POST", f"{customer}/events", handlers.v1_event),
        ("POST", "/api/v1/events", handlers.v1_anonymous_event),
        ("POST", f"{customer}/suppress", handlers.v1_suppress),
        ("POST", f"{customer}/unsuppress", handlers.v1_unsuppress),
        ("PUT", f"{customer}/devices", handlers.v1_add_device),
        ("DELETE", f"{customer}/devices/{{device_id}}", handlers.v1_delete_device),
        ("POST", "/api/v1/merge_customers", handlers.v1_merge),
        ("POST", "/api/v1/segments/{segment_id}/add_customers", handlers.v1_segment_add),
        ("POST", "/api/v1/segments/{segment_id}/remove_customers", handlers.v1_segment_remove),
        ("POST", "/unsubscribe/{delivery_id}", handlers.v1_unsubscribe),
        ("POST", "/api/v1/metrics", handlers.taken),
        ("POST", "/api/v1/push/events", handlers.taken),
        ("POST", "/api/v1/forms/{form_id}/submit", handlers.form),
        ("GET", "/auth", handlers.taken),
    ]
    return [Route(path, handler, methods=[method]) for method, path, handler in table]


class _Handlers:
    """One method per route; their names are the keys of the request log."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    async def v2_batch(self, request: Request) -> Response:
        body = await request.body()
        options = self.workspace.options
        if len(body) > options.max_batch_bytes:
            message = f"the request must not be larger than {options.max_batch_bytes} bytes"
            return answers.whole("invalid", "batch", message, status=options.oversize_status)
        try:
            items = envelope.parse_object(body).get("batch")
            if not isinstance(items, list):
                return answers.whole("required", "batch", "batch is required and must be an array")
            large = envelope.oversized(body, items, limit=options.max_item_bytes)
        except envelope.UnreadableError as error:
            return answers.whole("invalid", "body", str(error))
        if large:
            why = Refusal("invalid", "batch", f"an item must not be larger than {options.max_item_bytes} bytes")
            return answers.listed([(place, why) for place in large], status=options.oversize_status)
        refused = self.workspace.accept(items)
        if not refused:
            return answers.accepted()
        shown = [(place if options.batch_index else None, why) for place, why in refused]
        return answers.listed(shown, status=options.partial_status)

    async def v2_entity(self, request: Request) -> Response:
        body = await request.body()
        limit = self.workspace.options.max_item_bytes
        if len(body) > limit:
            message = f"the request must not be larger than {limit} bytes"
            return answers.whole("invalid", "body", message, status=self.workspace.options.oversize_status)
        try:
            item = envelope.parse_object(body)
        except envelope.UnreadableError as error:
            return answers.whole("invalid", "body", str(error))
        refused = self.workspace.accept([item])
        return answers.listed([(None, why) for _, why in refused], status=400) if refused else answers.accepted()

    async def v1_region(self, request: Request) -> Response:
        options = self.workspace.options
        answer = {"url": f"{request.url.scheme}://{request.url.netloc}", "region": options.region}
        return answers.JsonAnswer({**answer, "environment_id": options.workspace_id})

    def _one(self, item: Json) -> Response:
        refused = self.workspace.accept([item])
        return answers.v1_errors(*(why.message for _, why in refused)) if refused else answers.accepted()

    def _person(self, request: Request, action: str, **rest: Any) -> Response:
        identifier = unquote(request.path_params["identifier"])
        addressed = guess(identifier, id_only=self.workspace.options.id_only)
        return self._one({"type": "person", "action": action, "identifiers": addressed, **rest})

    async def v1_identify(self, request: Request) -> Response:
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        relations = body.pop("cio_relationships", None)
        extra: Json = {"timestamp": body.pop("_timestamp", None), "attributes": body}
        if isinstance(relations, dict) and relations.get("action") == "add_relationships":
            extra["cio_relationships"] = relations.get("relationships")
        return self._person(request, "identify", **extra)

    async def v1_delete(self, request: Request) -> Response:
        return self._person(request, "delete")

    async def v1_event(self, request: Request) -> Response:
        event = await self._event(request)
        return event if isinstance(event, Response) else self._person(request, event.pop("action"), **event)

    async def v1_anonymous_event(self, request: Request) -> Response:
        event = await self._event(request)
        return event if isinstance(event, Response) else self._one({"type": "person", "identifiers": {}, **event})

    async def _event(self, request: Request) -> Json | Response:
        """Return a v1 event in the v2 shape, without the person."""
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        data = body.get("data")
        if isinstance(data, dict) and longer(json.dumps(data, ensure_ascii=False), MAX_EVENT_DATA_BYTES):
            return answers.v1_errors(f"event data cannot be longer than {MAX_EVENT_DATA_BYTES} bytes")
        action = body.get("type") or "event"
        if action not in ("event", "page", "screen"):
            return answers.v1_errors("event type must be event, page or screen")
        kept: Json = {name: body[name] for name in ("name", "id", "timestamp") if name in body}
        return {"action": action, "attributes": data, "anonymous_id": body.get("anonymous_id"), **kept}

    async def _object(self, request: Request) -> Json | Response:
        try:
            return envelope.parse_object(await request.body())
        except envelope.UnreadableError as error:
            return answers.v1_errors(str(error))

    async def v1_suppress(self, request: Request) -> Response:
        return self._person(request, "suppress")

    async def v1_unsuppress(self, request: Request) -> Response:
        return self._person(request, "unsuppress")

    async def v1_add_device(self, request: Request) -> Response:
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        device = body.get("device")
        if isinstance(device, dict):
            device = {**device, "token": device.get("id")}
        return self._person(request, "add_device", device=device)

    async def v1_delete_device(self, request: Request) -> Response:
        token = unquote(request.path_params["device_id"])
        return self._person(request, "delete_device", device={"token": token})

    async def v1_merge(self, request: Request) -> Response:
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        pair = {name: body.get(name) for name in ("primary", "secondary")}
        return self._one({"type": "person", "action": "merge", **pair})

    async def v1_segment_add(self, request: Request) -> Response:
        return await self._membership(request, join=True)

    async def v1_segment_remove(self, request: Request) -> Response:
        return await self._membership(request, join=False)

    async def _membership(self, request: Request, *, join: bool) -> Response:
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        ids, kind = body.get("ids"), request.query_params.get("id_type", "id")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_SEGMENT_IDS:
            return answers.v1_errors(f"ids must be an array of 1 to {MAX_SEGMENT_IDS} values")
        if kind not in ("id", "email", "cio_id"):
            return answers.v1_errors("id_type must be id, email or cio_id")
        number = request.path_params["segment_id"]
        known = number.isdecimal() and self.workspace.change_membership(int(number), ids, kind=kind, join=join)
        return answers.accepted() if known else answers.v1_errors("segment not found", status=404)

    async def v1_unsubscribe(self, request: Request) -> Response:
        body = await self._object(request)
        if isinstance(body, Response):
            return body
        with self.workspace.reading() as state:
            cio_id = state.deliveries.get(unquote(request.path_params["delivery_id"]))
        if cio_id is None or body.get("unsubscribe") is not True:
            return answers.accepted()
        changes = {"unsubscribed": True}
        return self._one(
            {"type": "person", "action": "identify", "identifiers": {"cio_id": cio_id}, "attributes": changes}
        )

    async def taken(self, request: Request) -> Response:
        await request.body()
        return answers.accepted()

    async def form(self, request: Request) -> Response:
        await request.body()
        return Response(status_code=204)
