"""The control endpoint under `/_control`: what a test wants to know and to set. No credentials: keep it on loopback.

It is no part of the emulated API, and no fault applies to it.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connector.emulators import answers, envelope, options, reads
from connector.emulators.deliveries import Delivery
from connector.emulators.options import Faults, Json

if TYPE_CHECKING:
    from connector.emulators.ledger import Event
    from connector.emulators.people import Person
    from connector.emulators.webhooks import Sender
    from connector.emulators.workspace import Workspace

EVENT_LIMITS = (100, 10_000)  # default and maximum of `limit`
SECRETS = ("site_id", "api_key", "app_key")

Handler = Callable[[Request], Awaitable[Response]]


class Log(Protocol):
    """The request log as this module uses it."""

    total: int

    def shown(self) -> Json:
        """Return the counters."""

    def clear(self) -> None:
        """Forget the counters."""


def routes(workspace: Workspace, *, log: Log, sender: Sender | None) -> list[Route]:
    """Return the control routes over a workspace."""
    handlers = _Handlers(workspace, log=log, sender=sender)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "counts", handlers.counts),
        ("GET", "state", handlers.state),
        ("GET", "requests", handlers.requests),
        ("GET", "events", handlers.events),
        ("GET", "person", handlers.person),
        ("GET", "suppressed", handlers.suppressed),
        ("GET", "options", handlers.get_options),
        ("PATCH", "options", handlers.patch_options),
        ("GET", "faults", handlers.get_faults),
        ("PATCH", "faults", handlers.patch_faults),
        ("DELETE", "faults", handlers.reset_faults),
        ("GET", "webhooks", handlers.get_webhooks),
        ("PATCH", "webhooks", handlers.patch_webhooks),
        ("POST", "webhooks/events", handlers.send_webhook),
        ("POST", "deliveries", handlers.deliver),
        ("POST", "settle", handlers.settle),
        ("POST", "wipe", handlers.wipe),
    ]
    return [
        Route(f"/_control/{path}", _mistakes_answered(handler), methods=[method]) for method, path, handler in table
    ]


def _mistakes_answered(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ValueError as error:
            return answers.JsonAnswer({"error": str(error)}, status_code=400)

    return answer


def _number(request: Request, name: str, otherwise: int) -> int:
    value = request.query_params.get(name)
    if value is None:
        return otherwise
    if not value.isdecimal():
        raise ValueError(f"{name} must be a number")
    return int(value)


class _Handlers:
    """One method per route."""

    def __init__(self, workspace: Workspace, *, log: Log, sender: Sender | None) -> None:
        self.workspace = workspace
        self.log = log
        self.sender = sender
        self.first_faults = asdict(workspace.faults)

    async def counts(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer({**self.workspace.counts(), "requests": self.log.total})

    async def state(self, request: Request) -> Response:
        del request
        sent = dict(self.sender.counts) | {"waiting": self.sender.waiting} if self.sender else {}
        return answers.JsonAnswer(
            {
                "counts": self.workspace.counts(),
                "requests": self.log.shown(),
                "webhooks": sent,
                "options": self._options(),
                "faults": asdict(self.workspace.faults),
            }
        )

    async def requests(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer(self.log.shown())

    async def events(self, request: Request) -> Response:
        """List accepted events after number `after`, oldest first; every other parameter is a filter."""
        default, maximum = EVENT_LIMITS
        after, limit = _number(request, "after", 0), min(_number(request, "limit", default), maximum)
        sought = {name: value for name, value in request.query_params.items() if name not in ("after", "limit")}
        unknown = sorted(set(sought) - set(_FILTERS))
        if unknown:
            raise ValueError(f"unknown filters: {', '.join(unknown)}")
        with self.workspace.reading() as state:
            found = (
                event
                for event in state.ledger.events_after(after)
                if all(_FILTERS[name](event) == value for name, value in sought.items())
            )
            page = reads.page(found, limit=limit, key=lambda event: int(event.seq))
            rows = [asdict(event) for event in page.items]
            more = bool(page.next)
        return answers.JsonAnswer({"events": rows, "next": rows[-1]["seq"] if more else None})

    async def person(self, request: Request) -> Response:
        """Show a person in full, named by one of id, email, phone, cio_id."""
        if len(request.query_params) != 1:
            raise ValueError("name the person by exactly one of id, email, phone, cio_id")
        ((kind, value),) = request.query_params.items()
        with self.workspace.reading() as state:
            person = state.people.find(kind, value)
            if person is None:
                return answers.JsonAnswer({"error": "not found"}, status_code=404)
            return answers.JsonAnswer(
                {
                    **reads.card(person),
                    "relationships": reads.relationships(state, person),
                    **_inside(person),
                }
            )

    async def suppressed(self, request: Request) -> Response:
        del request
        with self.workspace.reading() as state:
            listed = [{"kind": kind, "value": value} for kind, value in state.people.suppressed]
            return answers.JsonAnswer({"suppressed": listed})

    def _options(self) -> Json:
        shown = asdict(self.workspace.options)
        return {name: value for name, value in shown.items() if name not in SECRETS}

    async def get_options(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer(self._options())

    async def patch_options(self, request: Request) -> Response:
        self.workspace.configure(envelope.parse_object(await request.body()))
        return answers.JsonAnswer(self._options())

    async def get_faults(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer(asdict(self.workspace.faults))

    async def patch_faults(self, request: Request) -> Response:
        options.change(self.workspace.faults, envelope.parse_object(await request.body()))
        return await self.get_faults(request)

    async def reset_faults(self, request: Request) -> Response:
        """Go back to the faults of the start."""
        first = Faults(**self.first_faults)
        options.change(self.workspace.faults, asdict(first))
        return await self.get_faults(request)

    async def get_webhooks(self, request: Request) -> Response:
        del request
        if self.sender is None:
            return answers.JsonAnswer({"error": "no sender"}, status_code=404)
        shown = {name: value for name, value in asdict(self.sender.settings).items() if name != "signing_key"}
        counts = dict(self.sender.counts) | {"waiting": self.sender.waiting}
        return answers.JsonAnswer({"settings": shown, "counts": counts})

    async def patch_webhooks(self, request: Request) -> Response:
        if self.sender is not None:
            options.change(self.sender.settings, envelope.parse_object(await request.body()))
        return await self.get_webhooks(request)

    async def send_webhook(self, request: Request) -> Response:
        """Send the body as one webhook event, as it is."""
        body = envelope.parse_object(await request.body())
        if self.sender is not None:
            self.sender.enqueue(body)
        return answers.accepted()

    async def deliver(self, request: Request) -> Response:
        """Pretend that a message reached a metric: recorded with the person, reported by webhook."""
        delivery = Delivery.of(envelope.parse_object(await request.body()))
        with self.workspace.writing() as state:
            body = delivery.record(state, at=self.workspace.seconds)
        return answers.JsonAnswer(body)

    async def settle(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer({"applied": self.workspace.settle()})

    async def wipe(self, request: Request) -> Response:
        del request
        self.workspace.wipe()
        self.log.clear()
        return answers.accepted()


def _inside(person: Person) -> Json:
    """Return what no API shows of a person."""
    return {
        "last_edit": person.last_edit,
        "created_at": person.created_at,
        "event_count": person.event_count,
        "segments": sorted(person.segments),
        "messages": list(person.messages.values()),
        "activities": [reads.activity_row(entry) for entry in reversed(person.activities)],
    }


_FILTERS: dict[str, Callable[[Event], Any]] = {
    "id": lambda event: event.id,
    "name": lambda event: event.name,
    "action": lambda event: event.action,
    "customer_id": lambda event: event.customer_id,
    "cio_id": lambda event: event.cio_id,
    "anonymous_id": lambda event: event.anonymous_id,
    "can_trigger": lambda event: str(event.can_trigger).lower(),
}
