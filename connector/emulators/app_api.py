"""The App API's routes: reading people, activities and segments back, and creating manual segments.

Projections are `reads`'; credentials and the rate limit are settled before a request comes here.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connector.emulators import answers, envelope, reads
from connector.emulators.people import Person, text
from connector.emulators.reads import InvalidError

if TYPE_CHECKING:
    from connector.emulators.options import Json
    from connector.emulators.state import Segment, State
    from connector.emulators.workspace import Workspace

MAX_ATTRIBUTE_IDS = 100
ACTIVITY_LIMITS = (10, 100)  # default and maximum of `limit`
LISTING_LIMITS = (50, 1000)

Handler = Callable[[Request], Awaitable[Response]]


class NotFoundError(Exception):
    """The person or segment that the path names does not exist."""


def routes(workspace: Workspace) -> list[Route]:
    """Return the App API's routes over a workspace, each under its legacy alias too."""
    handlers = _Handlers(workspace)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "customers", handlers.app_search),
        ("POST", "customers", handlers.app_filter),
        ("POST", "customers/attributes", handlers.app_attributes_of_many),
        ("GET", "customers/{identifier}/attributes", handlers.app_attributes),
        ("GET", "customers/{identifier}/activities", handlers.app_person_activities),
        ("GET", "customers/{identifier}/segments", handlers.app_person_segments),
        ("GET", "customers/{identifier}/messages", handlers.app_messages),
        ("GET", "customers/{identifier}/relationships", handlers.app_relationships),
        ("GET", "customers/{identifier}/subscription_preferences", handlers.app_preferences),
        ("GET", "activities", handlers.app_activities),
        ("GET", "segments", handlers.app_segments),
        ("POST", "segments", handlers.app_create_segment),
        ("GET", "segments/{segment_id}", handlers.app_segment),
        ("DELETE", "segments/{segment_id}", handlers.app_delete_segment),
        ("GET", "segments/{segment_id}/customer_count", handlers.app_segment_count),
        ("GET", "segments/{segment_id}/membership", handlers.app_membership),
        ("GET", "campaigns", handlers.app_campaigns),
    ]
    return [
        Route(f"{prefix}/{path}", _mistakes_answered(handler, workspace), methods=[method])
        for prefix in ("/v1", "/v1/api")
        for method, path, handler in table
    ]


def _mistakes_answered(handler: Handler, workspace: Workspace) -> Handler:
    @functools.wraps(handler)
    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except NotFoundError:
            return answers.app_error("not found", status=404, at=workspace.seconds)
        except (InvalidError, envelope.UnreadableError) as error:
            return answers.app_error(str(error), status=400, at=workspace.seconds)

    return answer


def _limit(request: Request, limits: tuple[int, int]) -> int:
    default, maximum = limits
    value = request.query_params.get("limit")
    if value is None:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise InvalidError("limit must be a positive number")
    return min(int(value), maximum)


def _start(request: Request) -> int | None:
    return reads.place(request.query_params.get("start"))


def _kind(request: Request) -> str:
    kind = request.query_params.get("id_type", "id")
    if kind not in ("id", "email", "phone", "cio_id"):
        raise InvalidError("id_type must be id, email, phone or cio_id")
    return kind


def _lookup(state: State, kind: str, value: str) -> Person | None:
    """Find by an App API query, where a `cio_id` bears its prefix."""
    if kind == "cio_id" or (kind == "id" and value.startswith("cio_")):
        return state.people.find("cio_id", value.removeprefix("cio_"))
    return state.people.find(kind, value)


def _stamp(request: Request, name: str, otherwise: float) -> float:
    value = request.query_params.get(name)
    if value is None:
        return otherwise
    if not value.isdecimal():
        raise InvalidError(f"{name} must be a unix timestamp")
    return int(value)


class _Handlers:
    """One method per route; their names are the keys of the request log."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def _person(self, state: State, request: Request) -> Person:
        person = _lookup(state, _kind(request), unquote(request.path_params["identifier"]))
        if person is None:
            raise NotFoundError
        return person

    def _segment(self, state: State, request: Request) -> Segment:
        number = request.path_params["segment_id"]
        segment = state.segments.get(int(number)) if number.isdecimal() else None
        if segment is None:
            raise NotFoundError
        return segment

    async def app_search(self, request: Request) -> Response:
        email = request.query_params.get("email")
        if not email:
            raise InvalidError("email is required")
        with self.workspace.reading() as state:
            if "email" in state.people.kinds:
                found = [person for person in [state.people.find("email", email)] if person is not None]
            else:
                everybody = state.people.by_cio_id.values()
                found = [person for person in everybody if person.attributes.get("email", "").lower() == email.lower()]
            return answers.JsonAnswer({"results": [person.identifiers for person in found]})

    async def app_filter(self, request: Request) -> Response:
        body = envelope.parse_object(await request.body())
        matches, limit, start = reads.matcher(body.get("filter")), _limit(request, LISTING_LIMITS), _start(request)
        with self.workspace.reading() as state:
            found = (
                person for person in state.people.by_cio_id.values() if person.serial > (start or 0) and matches(person)
            )
            return _people_page(found, limit=limit)

    async def app_attributes_of_many(self, request: Request) -> Response:
        ids = envelope.parse_object(await request.body()).get("ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_ATTRIBUTE_IDS:
            raise InvalidError(f"ids must be an array of 1 to {MAX_ATTRIBUTE_IDS} values")
        kind = _kind(request)
        with self.workspace.reading() as state:
            found = (_lookup(state, kind, text(value)) for value in ids)
            return answers.JsonAnswer({"customers": [reads.card(person) for person in found if person is not None]})

    async def app_attributes(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            return answers.JsonAnswer(reads.card(self._person(state, request)))

    async def app_person_activities(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            return self._activities(request, self._person(state, request).activities)

    async def app_activities(self, request: Request) -> Response:
        customer_id, deleted = request.query_params.get("customer_id"), request.query_params.get("deleted") == "true"
        with self.workspace.reading() as state:
            kept = [entry for entry in state.ledger.activities if deleted or not entry.deleted]
            if customer_id is not None:
                kind = _kind(request)
                sought = customer_id.removeprefix("cio_") if kind == "cio_id" else customer_id
                kept = [entry for entry in kept if entry.identifiers.get(kind) == sought]
            return self._activities(request, kept)

    def _activities(self, request: Request, entries: Iterable[Any]) -> Response:
        kind, name, start = request.query_params.get("type"), request.query_params.get("name"), _start(request)
        newest_first = (
            entry
            for entry in reversed(list(entries))
            if (start is None or entry.seq < start) and reads.wanted(entry, kind=kind, name=name)
        )
        page = reads.page(newest_first, limit=_limit(request, ACTIVITY_LIMITS), key=lambda entry: int(entry.seq))
        rows = [reads.activity_row(entry) for entry in page.items]
        return answers.JsonAnswer({"activities": rows, "next": page.next})

    async def app_person_segments(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            mine = [state.segments[number] for number in sorted(self._person(state, request).segments)]
            rows = [{"id": entry.id, "name": entry.name, "description": entry.description} for entry in mine]
            return answers.JsonAnswer({"segments": rows})

    async def app_messages(self, request: Request) -> Response:
        limit, start = _limit(request, LISTING_LIMITS), _start(request)
        first, last = _stamp(request, "start_ts", 0), _stamp(request, "end_ts", float("inf"))
        with self.workspace.reading() as state:
            numbered = enumerate(self._person(state, request).messages.values(), start=1)
            found = (entry for entry in numbered if entry[0] > (start or 0) and first <= entry[1]["created"] <= last)
            page = reads.page(found, limit=limit, key=lambda entry: int(entry[0]))
            return answers.JsonAnswer({"messages": [message for _, message in page.items], "next": page.next})

    async def app_relationships(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            rows = reads.relationships(state, self._person(state, request))
            return answers.JsonAnswer({"cio_relationships": rows, "next": ""})

    async def app_preferences(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            return answers.JsonAnswer(reads.preferences(self._person(state, request)))

    async def app_segments(self, request: Request) -> Response:
        del request
        with self.workspace.reading() as state:
            return answers.JsonAnswer({"segments": [reads.segment_row(entry) for entry in state.segments.values()]})

    async def app_create_segment(self, request: Request) -> Response:
        wish: Json | None = envelope.parse_object(await request.body()).get("segment")
        if not isinstance(wish, dict) or not isinstance(wish.get("name"), str) or not wish["name"].strip():
            raise InvalidError("segment needs a name")
        segment = self.workspace.create_segment(wish["name"], description=text(wish.get("description") or ""))
        return answers.JsonAnswer({"segment": reads.segment_row(segment)})

    async def app_segment(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            return answers.JsonAnswer({"segment": reads.segment_row(self._segment(state, request))})

    async def app_delete_segment(self, request: Request) -> Response:
        with self.workspace.writing() as state:
            segment = self._segment(state, request)
            for cio_id in segment.members:
                state.people.by_cio_id[cio_id].segments.discard(segment.id)
            del state.segments[segment.id]
            return Response(status_code=204)

    async def app_segment_count(self, request: Request) -> Response:
        with self.workspace.reading() as state:
            return answers.JsonAnswer({"count": len(self._segment(state, request).members)})

    async def app_membership(self, request: Request) -> Response:
        limit, start = _limit(request, LISTING_LIMITS), _start(request)
        with self.workspace.reading() as state:
            members = (state.people.by_cio_id[cio_id] for cio_id in self._segment(state, request).members)
            ordered = sorted(members, key=lambda person: person.serial)
            return _people_page((person for person in ordered if person.serial > (start or 0)), limit=limit)

    async def app_campaigns(self, request: Request) -> Response:
        del request
        return answers.JsonAnswer({"campaigns": []})


def _people_page(found: Iterable[Person], *, limit: int) -> Response:
    page = reads.page(found, limit=limit, key=lambda person: int(person.serial))
    ids = [person.attributes["id"] for person in page.items if "id" in person.attributes]
    identifiers = [person.identifiers for person in page.items]
    return answers.JsonAnswer({"identifiers": identifiers, "ids": ids, "next": page.next})
