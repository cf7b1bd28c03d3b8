"""One lane of one destination: feed -> encode -> deliver -> settle. Changed players first, then their events.

Owns order and what an outcome means. A lane has one batch in flight, so a player's items arrive in order; lane -1
carries exclusions past everything that waits, and the player's own lane sends them again behind its batch in flight.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal

import psycopg
import structlog

from connector import clock, contacts
from connector.destinations.contract import Destination, Item, Previous, Profile, Refusal, StoredEvent
from connector.errors import ConnectorError, Halted, LeaseLost, Transient
from connector.event import named
from connector.seat import Seat
from connector.service import Worked
from connector.store import delivered, due, feeds, segment_feed, windows
from connector.store.database import classify
from connector.store.delivered import Sent
from connector.store.feeds import EXCLUSIONS, Lane, Place, Settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from connector.config import Destination as Settings
    from connector.contacts import Keys
    from connector.metrics import Metrics
    from connector.payments import Payments
    from connector.store.database import Database

#: Players or events looked at in one step: about one batch.
STEP: Final = 1000
#: Of history a lane takes less at a time: what has just happened waits for the step in hand.
HISTORY_STEP: Final = 250
#: A step that takes longer ends after the batch in hand: every loop reports often enough for the watchdog.
STEP_SECONDS: Final = 15.0
_TIDY_SECONDS: Final = 30.0
_NOTHING: Final = Settled()

log = structlog.get_logger()


@dataclass(frozen=True)
class Result(Worked):
    """What a pass sent."""

    items: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why an event of the feed is not sent now."""

    seq: int
    player_id: int
    what: Literal["parked", "dropped", "expired"]


@dataclass
class Relay:
    """One lane. `run_once` is called by one thread only; the destination is shared with the other lanes."""

    lane: Lane
    settings: Settings
    destination: Destination
    database: Database
    metrics: Metrics
    #: Decimal places of the base currency.
    places: int = 2
    #: What contacts in the store are encrypted with.
    keys: Keys | None = None
    error: ConnectorError | None = field(default=None, init=False)
    seat: Seat = field(init=False)
    _place: Place = field(default_factory=lambda: Place(0, 0), init=False)
    _distrusted: int = field(default=0, init=False)
    _tidy_at: float = field(default=0.0, init=False)
    #: The store's newest numbers when nothing was left to send.
    _quiet: Place | None = field(default=None, init=False)
    _history: bool = field(default=False, init=False)
    _missing: list[str] = field(default_factory=list, init=False)
    _names: due.Names = field(init=False)

    def __post_init__(self) -> None:
        self.seat = Seat(self.lane.lease_name, self.database)

    @property
    def name(self) -> str:
        """Return the loop's name: the destination and the number of its lane."""
        return f"destination:{self.lane.destination}:{self.lane.number}"

    def run_once(self) -> Result:
        """Deliver what is pending, a step at a time. Raises Transient (try again) and Halted (a person must answer)."""
        try:
            connection = self._open()
            if connection is None:
                return Result(standby=True)
            result = self._step(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.seat.stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.close()
            return Result(standby=True)
        except Halted as error:
            self._report("stopped", error)
            self.close()
            raise
        except Transient as error:
            self._report("waiting", error)
            self.seat.stand_up()
            raise
        self.error = None
        return result

    def close(self) -> None:
        """Give the lease back and close the connection; idempotent."""
        self.seat.leave()

    def _open(self) -> psycopg.Connection[Any] | None:
        if self.seat.connection is not None:
            return self.seat.connection
        taken = self.seat.take()
        if taken is None:
            return None
        connection, _ = taken
        self._names = due.Names(connection)
        self._place, self._quiet = feeds.open_lane(connection, self.lane), None
        # what was in flight before may have arrived: up to here no hash says what the API holds
        self._distrusted = feeds.horizon(connection).change_seq
        self.destination.ping()  # nothing leaves before the credentials have told their region
        return connection

    def _report(self, state: str, error: ConnectorError) -> None:
        self.error = error
        if self.seat.connection is None or self.seat.connection.closed:
            return
        try:
            feeds.set_state(self.seat.connection, self.lane, state, str(error))
        except Exception as failure:  # noqa: BLE001 - the loop reports the first error, not this one
            log.debug("feed.state_not_written", error=type(failure).__name__)

    def _step(self, connection: psycopg.Connection[Any]) -> Result:
        """Send what there is; one question of the store a pass where nothing is new."""
        horizon = feeds.horizon(connection)
        if horizon == self._quiet and (clock.monotonic() < self._tidy_at or self.lane.number == EXCLUSIONS):
            return Result()
        result = self._send(connection, horizon.event_seq)
        self._quiet = None if result.busy else horizon
        return result

    def _send(self, connection: psycopg.Connection[Any], until: int) -> Result:
        profiles = self._send_changes(connection)
        if profiles.busy or self.lane.number == EXCLUSIONS:
            return profiles
        tidied = self._tidy(connection)
        waited = self._send_parked(connection, history=False) if profiles.items or tidied else Result()
        if waited.busy:  # the rest of what waited goes before anything newer
            return Result(profiles.items + waited.items, busy=True)
        sent = self._send_events(connection, until)
        items = profiles.items + waited.items + sent.items
        if sent.busy or not (tidied or self._history):  # history goes when nothing else wants to
            return Result(items, busy=sent.busy)
        old = self._send_parked(connection, history=True)
        self._history = old.busy
        return Result(items + old.items, busy=old.busy)

    def _send_changes(self, connection: psycopg.Connection[Any]) -> Result:
        rows = feeds.changes(connection, self.lane, after=self._place.change_seq, limit=STEP)
        items: list[Item] = []
        marks: dict[int, int] = {}
        news: list[Sent] = []
        mine = [row for row in rows if not row["is_stub"] and row["tenant"] == self.lane.tenant]
        mine = [contacts.opened(row, self.lane.tenant, self.keys) for row in mine]
        at, ids = clock.now(), [row["player_id"] for row in mine]
        segments = self._segments(connection) if mine else {}
        known = windows.payments(connection, self.lane.tenant, ids, at, places=self.places)
        for row in mine:
            previous = Previous(frozenset(row["sent_names"] or ()), row["sent_hash"], bool(row["unsubscribed_by_us"]))
            profile = _profile(row, known[row["player_id"]], self.places, at, segments)
            item = self._encode(profile, previous)
            if item.unsubscribed and row["marketable"]:
                log.info("destination.opt_out_kept", destination=self.lane.destination, player_id=row["player_id"])
            certain = row["reason"] == "profile" and row["change_seq"] > self._distrusted
            if not (certain and item.digest == previous.digest):
                items.append(item)
                marks[id(item)] = row["change_seq"]
                if not item.names <= previous.names or item.unsubscribed > previous.unsubscribed_by_us:
                    news.append(_sent(item))
        delivered.intend(connection, self.lane.tenant, self.lane.destination, news)
        deadline = clock.monotonic() + STEP_SECONDS
        for batch in self.destination.batches(items):
            if clock.monotonic() > deadline:
                return Result(len(items), busy=True)
            self._deliver(connection, batch, Place(self._place.event_seq, marks[id(batch[-1])]))
        if rows:
            self._settle(connection, Place(self._place.event_seq, rows[-1]["change_seq"]), _NOTHING)
        return Result(len(rows), busy=len(rows) == STEP)

    def _segments(self, connection: psycopg.Connection[Any]) -> dict[int, str]:
        """Return the segments that the destination is told of, by number; those that are not there yet are named."""
        wanted = self.settings.segments
        found = segment_feed.named(connection, self.lane.tenant, wanted) if wanted else {}
        missing = sorted(set(wanted) - set(found.values()))
        if missing and missing != self._missing:
            log.warning("destination.no_such_segment", destination=self.lane.destination, segments=missing)
        self._missing = missing
        return found

    def _encode(self, profile: Profile, previous: Previous) -> Item:
        if profile.values["erased_at"] is not None:
            return self.destination.encode_erasure(profile)
        return self.destination.encode_profile(profile, previous)

    def _send_parked(self, connection: psycopg.Connection[Any], *, history: bool) -> Result:
        """Send events that waited for their player's profile, which went out before, or until they were harmless."""
        limit = HISTORY_STEP if history else STEP
        found = due.parked(connection, self.lane, self._place, history=history, limit=limit)
        rows = [row for row in found if not row.waiting]
        if not rows:
            return Result()
        items, verdicts = self._sift(rows, max_age=inf if history else self.settings.max_age)
        for batch in self.destination.batches(items):
            allowed, excluded = _sorted_out(connection, batch)
            sent = replace(_tally(excluded), unparked=[item.seq for item in batch if item.seq is not None])
            self._deliver(connection, allowed, self._place, sent)
        self._settle(connection, self._place, replace(_tally(verdicts), unparked=[row.seq for row in rows]))
        return Result(len(rows), busy=len(found) == limit)

    def _send_events(self, connection: psycopg.Connection[Any], until: int) -> Result:
        """Send the lane's events in order. The place never moves past an event whose verdict is not written with it."""
        until = min(until, self._place.event_seq + due.SPAN)
        names = self.settings.subscribed
        if until <= self._place.event_seq or not names:
            return Result()
        rows = due.events(connection, self.lane, self._place, until=until, names=names, limit=STEP)
        ready = rows[: next((index for index, row in enumerate(rows) if row.waiting), len(rows))]
        if len(ready) < len(rows) or len(rows) == STEP:
            until = ready[-1].seq if ready else self._place.event_seq
        items, verdicts = self._sift(ready, max_age=self.settings.max_age)
        deadline = clock.monotonic() + STEP_SECONDS
        for batch in self.destination.batches(items):
            if clock.monotonic() > deadline:
                return Result(len(items), busy=True)
            last = batch[-1].seq
            assert last is not None
            allowed, excluded = _sorted_out(connection, batch)
            passed = [verdict for verdict in verdicts if self._place.event_seq < verdict.seq <= last]
            self._deliver(connection, allowed, Place(last, self._place.change_seq), _tally([*passed, *excluded]))
        moved = until > self._place.event_seq
        if moved:
            left = [verdict for verdict in verdicts if verdict.seq > self._place.event_seq]
            self._settle(connection, Place(until, self._place.change_seq), _tally(left))
        return Result(len(items), busy=moved or len(ready) < len(rows) or len(rows) == STEP)

    def _sift(self, rows: Sequence[due.Due], *, max_age: float) -> tuple[list[Item], list[Verdict]]:
        """Encode the events that may go; park a stub's, drop an excluded player's, let go of stale ones."""
        items: list[Item] = []
        verdicts: list[Verdict] = []
        oldest = clock.now().timestamp() - max_age
        for row in rows:
            if row.is_stub:
                verdicts.append(Verdict(row.seq, row.player_id, "parked"))
            elif not row.marketable:
                verdicts.append(Verdict(row.seq, row.player_id, "dropped"))
            elif row.salt is None and row.occurred_at.timestamp() < oldest:
                verdicts.append(Verdict(row.seq, row.player_id, "expired"))
            else:
                items += self.destination.encode_event(_event(row, self.lane.tenant, self._names))
        return items, verdicts

    def _deliver(
        self, connection: psycopg.Connection[Any], batch: Sequence[Item], place: Place, extra: Settled = _NOTHING
    ) -> None:
        outcomes = self.destination.deliver(batch, urgent=self.lane.number == EXCLUSIONS)
        pairs = list(zip(batch, outcomes, strict=True))
        accepted = [item for item, refusal in pairs if refusal is None]
        letters = [_letter(item, refusal, self.keys) for item, refusal in pairs if refusal is not None]
        profiles = [_sent(item) for item in accepted if item.kind == "profile"]
        distrusted = [item.player_id for item, refusal in pairs if refusal is not None and item.kind == "profile"]
        sent = [(item.player_id, item.seq or 0) for item in accepted]
        done = replace(extra, accepted=sent, letters=letters, profiles=profiles, distrusted=distrusted)
        self._settle(connection, place, done)
        self.metrics.delivered.labels(self.lane.destination).inc(len(accepted))
        self.metrics.refused.labels(self.lane.destination).inc(len(letters))

    def _settle(self, connection: psycopg.Connection[Any], place: Place, settled: Settled) -> None:
        assert self.seat.lease is not None
        feeds.settle(connection, self.lane, place, settled, self.seat.lease)
        self._place = place

    def _tidy(self, connection: psycopg.Connection[Any]) -> bool:
        """Do what need not be done in every step, once its time has come; returns whether it was."""
        if clock.monotonic() < self._tidy_at:
            return False
        self._tidy_at = clock.monotonic() + _TIDY_SECONDS
        feeds.expire_parked(connection, self.lane, older_than=self.settings.max_age)
        feeds.refresh(connection, self.lane, older_than=self.settings.refresh, limit=STEP)
        return True


def _sorted_out(connection: psycopg.Connection[Any], batch: Sequence[Item]) -> tuple[list[Item], list[Verdict]]:
    """Return what may go of a batch of events, and what may not: its step began before the player was excluded."""
    excluded = feeds.excluded(connection, {item.player_id for item in batch})
    gone = {item.seq: item.player_id for item in batch if item.player_id in excluded and item.seq is not None}
    verdicts = [Verdict(seq, player_id, "dropped") for seq, player_id in gone.items()]
    return [item for item in batch if item.seq not in gone], verdicts


def _tally(verdicts: Sequence[Verdict]) -> Settled:
    parked = [(verdict.player_id, verdict.seq) for verdict in verdicts if verdict.what == "parked"]
    count = [verdict.what for verdict in verdicts].count
    return Settled(parked=parked, dropped=count("dropped"), expired=count("expired"))


def lanes_of(tenant: str, settings: Settings) -> list[Lane]:
    """Return a destination's lanes, the exclusion lane first."""
    numbers = [EXCLUSIONS, *range(settings.lanes)]
    return [Lane(tenant, settings.name, number, settings.lanes) for number in numbers]


def _profile(
    row: Mapping[str, Any], payments: Payments, places: int, at: datetime, segments: Mapping[int, str]
) -> Profile:
    excluded = not row["marketable"]
    place = row["player_id"], row["brand_id"], row["external_id"]
    names = frozenset(segments[number] for number in row["segment_ids"] if number in segments)
    return Profile(*place, excluded, values=row, payments=payments, places=places, at=at, segments=names)


def _sent(item: Item) -> Sent:
    return Sent(item.player_id, item.digest, item.names, item.unsubscribed)


def _event(row: due.Due, tenant: str, names: due.Names) -> StoredEvent:
    (name,) = names.events[row.name_id]
    again = (row.salt,) if row.salt else ()
    identity = (tenant, *names.streams[row.stream_id], row.brand_id, row.key, name, *again)
    shape = None if row.shape_id is None else names.shapes[row.shape_id][0]
    return StoredEvent(
        *(row.seq, row.player_id, row.brand_id, row.external_id, identity, name),
        *(row.occurred_at, row.amount, row.currency, row.transaction_id),
        named(shape, row.properties, row.packed),
    )


def _letter(item: Item, refusal: Refusal, keys: Keys | None) -> tuple[Any, ...]:
    """Return a dead letter. The API may quote a contact; where those are encrypted, the item is kept without them."""
    said = (refusal.reason, refusal.field, contacts.told(refusal.message))
    body = item.body if keys is None else contacts.hidden(item.body.decode(), contacts.KINDS).encode()
    return feeds.letter(item.player_id, item.seq, item.kind, item.name, said, body)
