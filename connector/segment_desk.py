"""What a person asks of segments, by command or over HTTP: plain values in, plain values out, a connection a call."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg

from connector import clock
from connector.segments import definition, draft, windows
from connector.segments.compiler import PLAIN, Contacts
from connector.segments.draft import NoSegment
from connector.segments.templates import Template, templates
from connector.store import audit_log, player_days, segment_drafts, segments
from connector.store.database import classify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from connector.contacts import Keys
    from connector.store.database import Database
    from connector.store.segments import Segment


@dataclass(frozen=True)
class SegmentDesk:
    """The segments of one tenant. Every call raises NoSegment, NameTaken and InvalidSegment as they apply."""

    database: Database
    tenant: str
    #: Decimals of the base currency: what templates' thresholds are in.
    places: int = 2
    contacts: Contacts = PLAIN
    #: What contacts in an export are decrypted with.
    keys: Keys | None = None
    #: Who asks, for the audit log.
    actor: str = "http"

    def every(self) -> list[dict[str, Any]]:
        """Return every segment, by name."""
        with self._connected() as connection:
            return [_told(segment) for segment in segments.load(connection, self.tenant)]

    def show(self, segment_id: int) -> dict[str, Any]:
        """Return one segment."""
        with self._connected() as connection:
            return _told(segments.get(connection, self.tenant, segment_id))

    def number_of(self, said: str) -> int:
        """Return the number of a segment that is named, or given by its number."""
        with self._connected() as connection:
            known = segments.load(connection, self.tenant)
        found = [s.segment_id for s in known if s.name == said] or [
            s.segment_id for s in known if str(s.segment_id) == said
        ]
        if not found:
            names = definition.nearest(said, [s.name for s in known])
            raise NoSegment(f"there is no segment {said!r}{names}", hint="`connector segments list` has them all")
        return found[0]

    def create(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Make a segment of a name, a definition and what else is said."""
        wanted = draft.parse(said)
        with self._connected() as connection, self._recorded(connection, "segment.create", wanted.name) as details:
            made = _told(segment_drafts.create(connection, self.tenant, wanted, contacts=self.contacts))
            details |= {"id": made["id"], **dict(said)}
            return made

    def edit(self, segment_id: int, said: Mapping[str, Any]) -> dict[str, Any]:
        """Change what is said, and leave the rest."""
        with self._connected() as connection:
            before = segment_drafts.said_of(segments.get(connection, self.tenant, segment_id))
            wanted = draft.parse(said, before=before)
            with self._recorded(connection, "segment.edit", wanted.name) as details:
                details |= {"id": segment_id, **dict(said)}
                return _told(segment_drafts.edit(connection, self.tenant, segment_id, wanted, contacts=self.contacts))

    def delete(self, segment_id: int) -> dict[str, Any]:
        """Take a segment away; returns how many members it had."""
        with self._connected() as connection:
            name = segments.get(connection, self.tenant, segment_id).name
            members = segment_drafts.delete(connection, self.tenant, segment_id)
            told = {"id": segment_id, "members": members}
            audit_log.append(connection, self.tenant, "segment.delete", name, told, actor=self.actor)
            return {"members": members}

    def refresh(self, segment_id: int) -> dict[str, Any]:
        """Bring members to what the definition says now; returns how many came and went."""
        with self._connected() as connection:
            while player_days.advance(connection, self.tenant, clock.now()):
                pass  # a daemon does so all the time; without one, nobody has counted the days yet
            done = segments.refresh(
                connection, self.tenant, segment_id, self._today(connection), contacts=self.contacts
            )
        return {"members": done.members, "entered": len(done.entered), "left": len(done.left), "first": done.first}

    def preview(self, said: object) -> dict[str, Any]:
        """Return how many players a definition would find, and ten of them."""
        tree = definition.parse(said)
        with self._connected() as connection:
            today = self._today(connection)
            return asdict(segment_drafts.preview(connection, self.tenant, tree, today, contacts=self.contacts))

    def players(self, segment_id: int, after: int, limit: int) -> list[dict[str, Any]]:
        """Return a page of members."""
        with self._connected() as connection:
            segments.get(connection, self.tenant, segment_id)
            return segment_drafts.members(connection, self.tenant, segment_id, after=after, limit=limit)

    def export(self, segment_id: int, *, personal: bool) -> Iterator[dict[str, Any]]:
        """Yield every member's brand and id, with contacts if asked for."""
        with self._connected() as connection:
            name = segments.get(connection, self.tenant, segment_id).name
            told = {"id": segment_id, "personal": personal}
            audit_log.append(connection, self.tenant, "segment.export", name, told, actor=self.actor)
            yield from segment_drafts.export(connection, self.tenant, segment_id, personal=personal, keys=self.keys)

    def templates(self) -> dict[str, Template]:
        """Return what to begin with."""
        return templates(self.places)

    def _recorded(
        self, connection: psycopg.Connection[Any], action: str, name: str
    ) -> AbstractContextManager[dict[str, Any]]:
        return audit_log.recorded(connection, self.tenant, action, name, actor=self.actor)

    def _today(self, connection: psycopg.Connection[Any]) -> date:
        return windows.today(segments.zone_of(connection, self.tenant), clock.now())

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            with self.database.connect() as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise classify(error) from error


def _told(segment: Segment) -> dict[str, Any]:
    said = {name: value for name, value in asdict(segment).items() if name not in {"segment_id", "tenant"}}
    return {"id": segment.segment_id, **said}
