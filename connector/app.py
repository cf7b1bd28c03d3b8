"""The composition root: a configuration in, wired services out. The only module that knows every part."""

from __future__ import annotations

import functools
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from connector import backfill, clock, config, tenancy
from connector.audience import Audience
from connector.auditor import Auditor
from connector.cycle import Cycle
from connector.destinations import DESTINATIONS
from connector.edges import Edges
from connector.errors import ConnectorError, Misconfigured, Transient, Unhealthy
from connector.event import NAMES, PLAYER_BALANCE
from connector.gate import Gate, GatedReader
from connector.metrics import Metrics
from connector.poller import Desk, open_desk
from connector.relay import Relay, lanes_of
from connector.segment_desk import SegmentDesk
from connector.service import Loop, Pace, Service, Worked, notify_systemd, supervise
from connector.settler import Settler
from connector.store import database, lease as leases, reports
from connector.streams import STREAMS

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import psycopg

    from connector.store.lease import Lease
    from connector.web.server import WebServer

#: How long `run --once` keeps trying a server that is away.
_PATIENCE_SECONDS: Final = 30.0
#: ... and how long it waits between passes that found nothing.
_CALM_SECONDS: Final = 0.05

log = structlog.get_logger()


@dataclass
class LeaseKeeper:
    """Renews every lease this process holds, so that one who only reads or waits for an API does not lose it."""

    database: database.Database
    held: Callable[[], list[Lease]]
    name: str = "leases"
    _connection: psycopg.Connection[Any] | None = field(default=None, init=False)

    def run_once(self) -> Worked:
        """Renew. Idempotent; a lost lease is noticed by its owner's next commit."""
        if held := self.held():
            if self._connection is None or self._connection.closed:
                self._connection = self.database.connect()
            leases.renew(self._connection, held)
        return Worked()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


@dataclass
class App:
    """A wired application: its loops share nothing but the store."""

    settings: config.Config
    database: database.Database
    cycles: list[Cycle]
    relays: list[Relay]
    auditors: list[Auditor]
    settler: Settler
    edges: Edges
    audience: Audience
    metrics: Metrics

    def loops(self) -> list[tuple[Loop, Pace]]:
        """Return every loop with its pace."""
        cycles: list[tuple[Loop, Pace]] = [
            (cycle, Pace(cycle.source.wait.busy, cycle.source.wait.idle)) for cycle in self.cycles
        ]
        relays: list[tuple[Loop, Pace]] = [(relay, Pace(idle=0.5, listens=True)) for relay in self.relays]
        auditors: list[tuple[Loop, Pace]] = [(auditor, Pace(0.25, 1.0)) for auditor in self.auditors]
        edges: tuple[Loop, Pace] = (self.edges, Pace(0.01, 1.0))
        keeper: Loop = LeaseKeeper(self.database, self._held)
        settler: tuple[Loop, Pace] = (self.settler, Pace(0.25, 1.0))
        audience: tuple[Loop, Pace] = (self.audience, Pace(listens=True))
        return [*cycles, *relays, *auditors, settler, edges, audience, (keeper, Pace(0.0, leases.TTL_SECONDS / 4))]

    def _held(self) -> list[Lease]:
        """Return the leases that this process holds now."""
        return [lease for holder in self._seated() if (lease := holder.seat.lease) is not None]

    def _seated(self) -> list[Cycle | Relay | Auditor | Settler | Edges | Audience]:
        """Return the loops that hold a connection and, while they work, a lease."""
        return [*self.cycles, *self.relays, *self.auditors, self.settler, self.edges, self.audience]

    def run(self, stopping: threading.Event) -> bool:
        """Run until `stopping` is set; returns whether every loop stopped in time."""
        service = Service(self.loops(), self.metrics)
        web = self._web(service)
        service.start()
        stopped = False
        try:
            stopped = supervise(service, stopping, notify=notify_systemd, alive=self.database.alive)
        finally:
            if web is not None:
                web.stop()
            if stopped:
                self.close()
            else:  # a thread still uses its connections: what is open on them rolls back when the process ends
                self.database.close()
        return stopped

    def _web(self, service: Service) -> WebServer | None:
        """Start the process's page, unless there is none to serve."""
        if self.settings.web is None:
            return None
        from connector.web import segments as pages
        from connector.web.server import WebServer

        token = self.settings.web.token
        web = WebServer(
            self.settings.web.listen,
            registry=self.metrics.registry,
            stuck=service.stuck,
            status=lambda: report(self.database, self.settings),
            mounted=pages.routes(
                segment_desk(self.database, self.settings), token.get_secret_value().strip() if token else None
            ),
        )
        try:
            web.start()
        except Misconfigured:
            self.close()
            raise
        return web

    def run_once(self, stopping: threading.Event) -> dict[str, ConnectorError]:
        """Read to the heads seen now, drain every destination, and return what stopped, by name."""
        try:
            for cycle in self.cycles:
                _drain(cycle, lambda cycle=cycle: cycle.done, stopping)
            _drain(self.settler, None, stopping)
            _drain(self.edges, None, stopping)
            _drain(self.audience, None, stopping)
            failed: dict[str, ConnectorError] = {}
            for relay in self.relays:
                try:
                    _drain(relay, None, stopping)
                except ConnectorError as error:
                    failed[relay.lane.destination] = error
            return failed | {
                f"{cycle.source.name}.{name}": error for cycle in self.cycles for name, error in cycle.failures.items()
            }
        finally:
            self.close()

    def close(self) -> None:
        """Close loops and the store."""
        for loop in self._seated():
            loop.close()
        for relay in self.relays:
            relay.destination.close()
        self.database.close()


def load_config(path: Path) -> config.Config:
    """Load the configuration, names of streams and events checked."""
    return config.load(path, streams=list(STREAMS), events=(*NAMES, PLAYER_BALANCE))


def build(settings: config.Config, *, once: bool = False, waits: bool = False, sends: bool = True) -> App:
    """Open and migrate the store and wire everything. Main thread only.

    Raises Misconfigured; Transient when the store is away, unless the application `waits`: then its loops do. One that
    does not `send` has no destinations.
    """
    store = database.open_store(settings.store.url.get_secret_value())
    store.prepare = functools.partial(tenancy.prepare, settings=settings)
    try:
        store.connect().close()
    except Transient as error:
        if not waits:
            store.close()
            raise
        log.warning("store.away", error=str(error))
    except ConnectorError:
        store.close()
        raise
    metrics = Metrics()
    rates, keys = tenancy.rates_of(settings), tenancy.keys_of(settings)
    settler = Settler(settings.tenant, store, rates)
    reading = (store, rates, tenancy.rules(settings), metrics, keys)
    cycles = [Cycle(settings.tenant, source, *reading, once=once) for source in settings.sources]
    auditors = [Auditor(settings.tenant, source, *reading) for source in settings.sources]
    relays, edging = _relays(settings, store, metrics) if sends else [], Edges(settings.tenant, store)
    audience = Audience(settings.tenant, store, contacts=tenancy.contacts_of(settings))
    return App(settings, store, cycles, relays, auditors, settler, edging, audience, metrics)


def status(settings: config.Config) -> dict[str, Any]:
    """Return the state of everything, from the store. Raises Unhealthy when there is no store to ask."""
    with reading(settings) as store:
        return report(store, settings)


@contextmanager
def reading(settings: config.Config) -> Iterator[database.Database]:
    """Open the store as it is, for a command that needs nothing else. Raises Unhealthy when there is none to ask."""
    store = database.open_store(settings.store.url.get_secret_value())
    try:
        if not database.is_current(store):
            raise Unhealthy(
                "the store has no current schema", hint="start `connector run`, or `connector store migrate`"
            )
        yield store
    finally:
        store.close()


def report(store: database.Database, settings: config.Config) -> dict[str, Any]:
    """Return what `status` says of an open store."""
    with store.reader(settings.tenant) as connection:
        subscriptions = {destination.name: destination.subscribed for destination in settings.destinations}
        return reports.status(connection, settings.tenant, subscriptions)


def segment_desk(store: database.Database, settings: config.Config, *, actor: str = "http") -> SegmentDesk:
    """Return what answers for the tenant's segments; `actor` is who asks."""
    reached = tenancy.contacts_of(settings), tenancy.keys_of(settings)
    return SegmentDesk(store, settings.tenant, tenancy.rates_of(settings).places, *reached, actor)


def stream_of(settings: config.Config, name: str, source: str | None = None) -> tuple[str, str]:
    """Return source and stream of a name as `status` has it: `deposits`, or `main.deposits` where several have one."""
    prefix, _, stream = name.rpartition(".")
    known = [(item.name, member) for item in settings.sources for member in item.streams]
    found = [(where, member) for where, member in known if member == stream and where == (source or prefix or where)]
    if len(found) != 1:
        names = ", ".join(f"{where}.{member}" if len(settings.sources) > 1 else member for where, member in known)
        raise Misconfigured(
            f"{'no' if not found else 'more than one'} stream is named {name!r}", hint=f"configured are: {names}"
        )
    return found[0]


@contextmanager
def desk(settings: config.Config, *, source: str | None, stream: str, purpose: str = "backfill") -> Iterator[Desk]:
    """Give a one-shot command a source to read and a store to write, beside the daemon and under a lease of its own."""
    with desks(settings, source=source, stream=stream, purpose=purpose) as (one,):
        yield one


@contextmanager
def desks(
    settings: config.Config,
    *,
    source: str | None,
    stream: str,
    purpose: str = "backfill",
    workers: int = 1,
    gate: Gate | None = None,
) -> Iterator[list[Desk]]:
    """Give a command several desks under one lease, each for a thread of its own; all read through one gate."""
    chosen = [item for item in settings.sources if source in {None, item.name}]
    if len(chosen) != 1:
        known = ", ".join(item.name for item in settings.sources)
        raise Misconfigured(f"which source? {source or 'none named'}", hint=f"--source, one of: {known}")
    app = build(settings, sends=False)
    try:
        with ExitStack() as stack:
            connection = stack.enter_context(app.database.connect())
            lease = backfill.take_lease(connection, settings.tenant, chosen[0].name, stream, purpose=purpose)
            keeper = Service(
                [(LeaseKeeper(app.database, lambda: [lease]), Pace(0.0, leases.TTL_SECONDS / 4))], app.metrics
            )
            connections = [connection, *(stack.enter_context(app.database.connect()) for _ in range(workers - 1))]
            leases.join(connections[1:], lease)
            shared = lease, app.cycles[0].rates, tenancy.rules(settings)
            work = [
                open_desk(settings.tenant, chosen[0], one, *shared, keys=tenancy.keys_of(settings))
                for one in connections
            ]
            if gate is not None:
                work = [_gated(one, gate) for one in work]
            keeper.start()
            try:
                yield work
            finally:
                keeper.stop()
                for one in work:
                    one.reader.close()
                leases.release(connection, lease)
    finally:
        app.close()


def _gated(desk: Desk, gate: Gate) -> Desk:
    """Return a desk that reads its source through a gate."""
    url, limits = desk.source.url.get_secret_value(), desk.reader.settings
    return replace(desk, reader=GatedReader(url, source=desk.source.name, settings=limits, gate=gate))


def _relays(settings: config.Config, store: database.Database, metrics: Metrics) -> list[Relay]:
    brands = {name: brand for source in settings.sources for name, brand in source.brands.items()}
    relays, places = [], tenancy.rates_of(settings).places
    for destination in settings.destinations:
        client = DESTINATIONS[destination.kind](destination, brands)
        with_what = (destination, client, store, metrics, places, tenancy.keys_of(settings))
        relays += [Relay(lane, *with_what) for lane in lanes_of(settings.tenant, destination)]
    return relays


def _drain(loop: Cycle | Relay | Settler | Edges | Audience, done: Any, stopping: threading.Event) -> None:
    """Call a loop until it is done; a server that is away gets _PATIENCE_SECONDS."""
    failing_since: float | None = None
    while not stopping.is_set():
        try:
            result = loop.run_once()
        except Transient as error:
            failing_since = failing_since or clock.monotonic()
            if clock.monotonic() - failing_since > _PATIENCE_SECONDS:
                raise Unhealthy(
                    error.message, hint="it did not come back in time; nothing is lost, run again"
                ) from error
            stopping.wait(0.5)
            continue
        if result.standby:
            failing_since = failing_since or clock.monotonic()
            if clock.monotonic() - failing_since > _PATIENCE_SECONDS:
                raise Unhealthy(f"another process is running {loop.name}", hint="stop it, or let it do the work")
            stopping.wait(0.5)
            continue
        failing_since = None
        if not result.busy:
            if done is None or done():
                return
            stopping.wait(_CALM_SECONDS)
