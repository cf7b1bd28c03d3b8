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
from connector.sources.dialect import Settings
from connector.sources.reader import Reader
from connector.store import audits, lease as leases
from connector.store.database import classify

if TYPE_CHECKING:
    from connector import config
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


@dataclass(frozen=True)
class Looked:
    """Result of a pass."""

    busy: bool = False
    standby: bool = False


@dataclass
class Auditor:
    """One source's light audit, a loop of its own. See service.Loop."""

    tenant: str
    source: config.Source
    database: Database
    rates: Rates
    rules: MarketingRules
    metrics: Metrics
    desk: poller.Desk | None = field(default=None, init=False)
    _connection: psycopg.Connection[Any] | None = field(default=None, init=False)
    _run: audit.Audit | None = field(default=None, init=False)
    _rest_until: float = field(default=float("-inf"), init=False)
    _left_alone: dict[str, float] = field(default_factory=dict, init=False)
    _said: set[str] = field(default_factory=set, init=False)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return f"audit:{self.source.name}"

    @property
    def lease(self) -> leases.Lease | None:
        """Return the lease while this process holds it."""
        return self.desk.lease if self.desk else None

    def run_once(self) -> Looked:
        """Compare one bucket, if an audit is due, the source is quiet and the rest is over."""
        if clock.monotonic() < self._rest_until:
            return Looked(busy=self._run is not None)
        began = clock.monotonic()
        try:
            desk = self._sit_down()
            return Looked(standby=True) if desk is None else Looked(busy=self._work(desk))
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.close()
            return Looked(standby=True)
        finally:
            now = clock.monotonic()
            self._rest_until = max(self._rest_until, now + (now - began) * (1 / DUTY - 1))

    def close(self) -> None:
        """Give the lease back and close both connections; idempotent."""
        if self.desk is not None and self._connection is not None and not self._connection.closed:
            try:
                leases.release(self._connection, self.desk.lease)
            except Exception as error:  # noqa: BLE001 - the lease expires by itself
                log.debug("lease.release_failed", error=type(error).__name__)
        self._stand_up()

    def _work(self, desk: poller.Desk) -> bool:
        """Take one step of the audit under way, or begin one; whether there is more of it."""
        streams = {row["stream"]: row for row in audits.progress(desk.connection, self.tenant, self.source.name)}
        if self._run is None:
            self._run = self._begin(desk, streams)
        elif quiet(streams, self._run.stream.name):
            self._step(desk, self._run)
        else:
            self._rest(LOOK_SECONDS)
        if self._run is None:
            desk.reader.close()  # the operator granted it for other commands too
            self._rest(LOOK_SECONDS)
        return self._run is not None

    def _step(self, desk: poller.Desk, run: audit.Audit) -> None:
        before = run.outcome.missing
        try:
            more = run.step()
        except (Transient, Halted) as error:
            if desk.connection.broken or desk.connection.closed:
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
                name: streams[name]["ages"].get(kind, float("inf")) for name in self.source.streams if name in streams
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
            if desk.connection.broken or desk.connection.closed:
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
        """Open the store's connection under the lease; None while another process holds it."""
        if self.desk is not None:
            return self.desk
        connection = self._connection = self.database.connect()
        lease = leases.acquire(connection, f"{self.tenant}/{self.name}")
        if lease is None:
            self._stand_up()
            return None
        limits = Settings(statement_timeout=min(_STATEMENT_SECONDS, self.source.statement_timeout))
        reader = Reader(self.source.url.get_secret_value(), source=self.source.name, settings=limits)
        self.desk = poller.Desk(self.tenant, self.source, reader, connection, lease, self.rates, self.rules)
        return self.desk

    def _stand_up(self) -> None:
        desk, self.desk, self._run = self.desk, None, None
        if desk is not None:
            desk.reader.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def quiet(streams: dict[str, dict[str, Any]], name: str) -> bool:
    """Return whether a stream runs and is read up to now, and no other one of its source is behind."""
    one = streams.get(name)
    if one is None or one["state"] != "running" or not one["polled"]:
        return False
    return all(row["lag"] <= QUIET_SECONDS for row in streams.values() if row["polled"])
