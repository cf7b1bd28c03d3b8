"""The light audit: one source's last hour, day and week compared without anyone asking, at quiet times, in small steps.

It works over a session of its own, so that the tail never waits for it, and rests nine times as long as it worked. What
it finds missing it puts into the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import structlog

from connector import audit, clock, poller
from connector.errors import ConnectorError, Halted, LeaseLost, Transient
from connector.position import SECOND
from connector.seat import Seat
from connector.service import Worked
from connector.store import audits
from connector.store.database import classify

if TYPE_CHECKING:
    from connector import config
    from connector.contacts import Keys
    from connector.metrics import Metrics
    from connector.money import Rates
    from connector.player import MarketingRules
    from connector.store.database import Database

#: Kind -> seconds that it looks back, and seconds from one to the next.
KINDS: Final = {"hour": (3600, 600), "day": (86_400, 21_600), "week": (604_800, 86_400)}
#: The share of the time in which it works.
DUTY: Final = 0.1
#: A source whose streams lag more than this has other things to do.
QUIET_SECONDS: Final = 60.0
#: How often it looks whether something is due, and how long it leaves a stream or source alone that refuses.
LOOK_SECONDS: Final = 5.0
REFUSED_SECONDS: Final = 900.0
#: A bucket row by row takes at most about this long: every loop reports often enough for the watchdog.
_STEP_SECONDS: Final = 15.0
_STATEMENT_SECONDS: Final = 10.0

log = structlog.get_logger()


@dataclass
class Auditor:
    """One source's light audit, a loop of its own. See service.Loop."""

    tenant: str
    source: config.Source
    database: Database
    rates: Rates
    rules: MarketingRules
    metrics: Metrics
    keys: Keys | None = None
    desk: poller.Desk | None = field(default=None, init=False)
    seat: Seat = field(init=False)
    _run: audit.Audit | None = field(default=None, init=False)
    _rest_until: float = field(default=float("-inf"), init=False)
    _left_alone: dict[str, float] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.seat = Seat(f"{self.tenant}/{self.name}", self.database)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return f"audit:{self.source.name}"

    def run_once(self) -> Worked:
        """Compare one bucket, if an audit is due, the source is quiet and the rest is over."""
        if clock.monotonic() < self._rest_until:
            return Worked(busy=self._run is not None)
        began = clock.monotonic()
        try:
            desk = self._sit_down()
            return Worked(standby=True) if desk is None else Worked(busy=self._work(desk))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.close()
            return Worked(standby=True)
        finally:
            now = clock.monotonic()
            self._rest_until = max(self._rest_until, now + (now - began) * (1 / DUTY - 1))

    def close(self) -> None:
        """Give the lease back and close both connections; idempotent."""
        self.seat.leave()
        self._stand_up()

    def _work(self, desk: poller.Desk) -> bool:
        """Take one step of the audit under way, or begin one; whether there is more of it."""
        streams = {row["stream"]: row for row in audits.progress(desk.connection, self.tenant, self.source.name)}
        if self._run is None:
            self._run = self._begin(desk, streams)
        elif quiet(streams, self._run.stream.name):
            self._step(self._run)
        else:
            self._rest(LOOK_SECONDS)
        if self._run is None:
            desk.reader.close()  # the operator granted it for other commands too
            self._rest(LOOK_SECONDS)
        return self._run is not None

    def _step(self, run: audit.Audit) -> None:
        before = run.outcome.missing
        try:
            more = run.step()
        except (Transient, Halted) as error:
            if self.seat.broken:
                raise
            self._run = None
            run.give_up(str(error))
            self._say("audit.given_up", run.stream.name, str(error))
            return
        if run.outcome.missing > before:
            log.warning("audit.repaired", stream=run.stream.name, rows=run.outcome.missing - before, last=run.kind)
        if not more:
            self._run = None
            found = vars(run.outcome)
            if run.outcome.gone or run.outcome.changed:
                log.warning("audit.differs", stream=run.stream.name, last=run.kind, **found)

    def _begin(self, desk: poller.Desk, streams: dict[str, dict[str, Any]]) -> audit.Audit | None:
        """Open the shortest audit that is due, of the stream that has waited longest for it."""
        now = clock.monotonic()
        for kind, (span, every) in KINDS.items():
            ages = {
                name: streams[name]["ages"].get(kind, float("inf"))
                for name in self.source.streams
                if name in streams and audit.skipped(name) is None
            }
            for name in sorted(ages, key=lambda name: -ages[name]):
                if ages[name] >= every and now >= self._left_alone.get(name, now) and quiet(streams, name):
                    return self._open(desk, name, kind, span)
        return None

    def _open(self, desk: poller.Desk, name: str, kind: str, span: int) -> audit.Audit | None:
        """Open a stream over the second session; a refusal is said once, and costs the audit alone."""
        try:
            stream = audit.open_stream(desk, name)
            if stream is None:
                self._left_alone[name] = clock.monotonic() + LOOK_SECONDS
                return None
            since = desk.reader.sample().clock - span * SECOND
            ranges = audit.promised(desk, stream, low=audit.mark_ago(desk, stream, since))
        except ConnectorError as error:
            if self.seat.broken:
                raise
            self._left_alone[name] = clock.monotonic() + REFUSED_SECONDS
            self._say("audit.refused", name, str(error))
            return None
        return audit.Audit(desk, stream, kind, ranges, repair=True, metrics=self.metrics, patience=_STEP_SECONDS)

    def _say(self, event: str, stream: str, reason: str) -> None:
        """Tell a person of each thing once: it is tried again by itself, and the tail goes on meanwhile."""
        if reason not in self._said:
            self._said.add(reason)
            log.warning(event, source=self.source.name, stream=stream, reason=reason)

    def _rest(self, seconds: float) -> None:
        self._rest_until = clock.monotonic() + seconds

    def _sit_down(self) -> poller.Desk | None:
        """Open both connections under the lease; None while another process holds it."""
        if self.desk is None and (taken := self.seat.take()) is not None:
            self.desk = poller.open_desk(
                *(self.tenant, self.source, *taken, self.rates, self.rules),
                keys=self.keys,
                longest_seconds=_STATEMENT_SECONDS,
            )
        return self.desk

    def _stand_up(self) -> None:
        desk, self.desk, self._run = self.desk, None, None
        if desk is not None:
            desk.reader.close()
        self.seat.stand_up()


def quiet(streams: dict[str, dict[str, Any]], name: str) -> bool:
    """Return whether a stream runs and is read up to now, and no other one of its source is behind."""
    one = streams.get(name)
    if one is None or one["state"] != "running" or not one["polled"]:
        return False
    return all(row["lag"] <= QUIET_SECONDS for row in streams.values() if row["polled"])
