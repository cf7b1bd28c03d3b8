"""One source's loop: users, deposits, withdrawals, casino, and again; after them the sweeps of what is due.

Owns the order, each stream's budget of pages, and what becomes of a failure: transient ones back off and halve the
page, a stream that must not go on stops alone and is looked at again now and then.
"""

from __future__ import annotations

import traceback
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
import structlog

from connector import clock, identity, opening, paging, poller, probe, sweeper
from connector.errors import ConnectorError, Halted, LeaseLost, Misconfigured, Paused, Superseded, Transient, Waiting
from connector.position import SECOND, cursor_text
from connector.seat import Seat
from connector.service import Worked
from connector.slot import Slot
from connector.store import checkpoints, quarantine
from connector.store.database import classify
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Container

    from connector import config
    from connector.contacts import Keys
    from connector.metrics import Metrics
    from connector.money import Rates
    from connector.player import MarketingRules
    from connector.sources.dialect import Sample
    from connector.store.database import Database

#: What a stream with a backlog may take of one cycle: users are never held up by bets for much longer than this.
STREAM_SECONDS: Final = 5.0
#: A pass that took longer reads one more page of each stream at most: every loop reports often enough for the watchdog.
PASS_SECONDS: Final = 20.0
#: How often rows that are not read (no cursor, or ahead of the clock) are counted, and a stopped stream is tried again.
COUNT_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 30.0
RESCAN_SECONDS: Final = 600.0
#: How often an idle stream says that it lives, and how long counting rests after it took too long.
IDLE_SECONDS: Final = 3.0
COUNT_REST_SECONDS: Final = 600.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Result(Worked):
    """What a pass read, and how many of its rows had come late."""

    rows: int = 0
    late: int = 0


@dataclass
class Cycle:
    """One source. `run_once` is called by one thread only; it owns the reader and one store connection."""

    tenant: str
    source: config.Source
    database: Database
    rates: Rates
    rules: MarketingRules
    metrics: Metrics
    keys: Keys | None = None
    once: bool = False
    slots: list[Slot] = field(init=False)
    desk: poller.Desk | None = field(default=None, init=False)
    seat: Seat = field(init=False)
    _newest: int = field(default=0, init=False)
    _probe_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.slots = [Slot(name, self.source.streams[name]) for name in STREAMS if name in self.source.streams]
        self.seat = Seat(f"{self.tenant}/{self.name}", self.database)

    @property
    def name(self) -> str:
        """Return the loop's name, which is its lease's too."""
        return f"source:{self.source.name}"

    def run_once(self) -> Result:
        """Do one pass over all streams. Raises Transient when the store or the source is away: call again later."""
        try:
            desk = self.sit_down()
            if desk is None:
                return Result(standby=True)
            sample = desk.reader.sample()
            return self._pass(desk, sample)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._stand_up()
            raise classify(error) from error
        except LeaseLost:
            self.close()
            return Result(standby=True)
        except (Transient, Misconfigured) as error:
            self._tell(error)
            raise

    def close(self) -> None:
        """Give the lease back and close both connections; idempotent."""
        self.seat.leave()
        self._stand_up()

    @property
    def done(self) -> bool:
        """With `once`: every stream has reached the head that it had at the start, or has stopped."""
        return all(slot.reached or slot.error is not None for slot in self.slots)

    @property
    def failures(self) -> dict[str, ConnectorError]:
        """Return the streams that stand still, with the reason."""
        return {slot.name: slot.error for slot in self.slots if slot.error is not None}

    def sit_down(self) -> poller.Desk | None:
        """Open both connections under the source's lease; None while another process holds it."""
        if self.desk is None and (taken := self.seat.take()) is not None:
            self.desk = poller.open_desk(self.tenant, self.source, *taken, self.rates, self.rules, keys=self.keys)
            for slot in self.slots:
                slot.stream = None
                if not isinstance(slot.error, Paused):
                    slot.look_again = 0.0
        return self.desk

    def _tell(self, error: ConnectorError) -> None:
        """Write a failure of the whole source to its streams.

        The reader connects again by itself. Where the store's connection broke nobody knows what was committed: the
        streams start again from their checkpoints.
        """
        if self.seat.connection is None or self.seat.broken:
            self._stand_up()
            return
        state = "stopped" if isinstance(error, Misconfigured) else "running"
        place = self.tenant, self.source.name
        try:
            for slot in self.slots:
                if slot.error is None:
                    checkpoints.set_state(self.seat.connection, *place, slot.name, state, str(error))
        except psycopg.Error:  # the store is away too
            self._stand_up()

    def _stand_up(self) -> None:
        desk, self.desk = self.desk, None
        if desk is not None:
            desk.reader.close()
        self.seat.stand_up()
        for slot in self.slots:
            slot.stream = None

    def _pass(self, desk: poller.Desk, sample: Sample) -> Result:
        total, failed = Result(), None
        progress = self._progress(sample)
        deadline = clock.monotonic() + PASS_SECONDS
        self._probe(desk, sample)
        for slot in self.slots:
            if not slot.open_at(sample.clock):
                slot.reached = True  # `once` does not wait for the hours to come
                continue
            if slot.stream is not None and sample.server not in slot.stream.checkpoint.servers:
                slot.stream = None  # opening it asks what this other server is
            try:
                done = self._guarded(desk, slot, sample, progress, deadline)
            except Transient as error:
                if self.seat.broken:
                    raise
                failed = error  # a page that is too slow must not keep the other streams from being read
                continue
            busy, news = total.busy or done.busy, total.news or done.news
            total = Result(total.rows + done.rows, total.late + done.late, busy=busy, news=news)
        if failed is not None:
            raise failed
        return total

    def _probe(self, desk: poller.Desk, sample: Sample) -> None:
        """Ask for all streams at once that were quiet in the last pass: mostly they still are."""
        quiet = [slot for slot in self.slots if slot.quiet and slot.error is None and slot.open_at(sample.clock)]
        silent: Container[str] = ()
        if clock.monotonic() >= self._probe_at:
            try:
                silent = probe.silent(desk, [slot.stream for slot in quiet if slot.stream is not None], sample)
            except (Transient, Misconfigured):  # each is read then, and tells of its own failure
                self._probe_at = clock.monotonic() + RETRY_SECONDS
        for slot in self.slots:
            slot.silent = slot.name in silent

    def _guarded(self, desk: poller.Desk, slot: Slot, sample: Sample, progress: int, deadline: float) -> Result:
        """Run one stream; what stops it stops it alone."""
        if slot.error is not None and clock.monotonic() < slot.look_again:
            return Result()
        try:
            if slot.stream is not None and not self._recognised(desk, slot, slot.stream, sample):
                slot.stream = None
            if slot.stream is None:
                contract = STREAMS[slot.name]
                slot.silent = False
                slot.stream = opening.open_stream(desk, contract, slot.settings, sample, doubtful=slot.doubtful)
                soon = slot.stream.sealed is None or slot.stream.waits is not None  # nothing is remembered yet
                slot.check_at = clock.monotonic() + (RETRY_SECONDS / 6 if soon else COUNT_SECONDS)
                slot.connections = desk.reader.connections
                slot.goal = desk.reader.head(slot.stream.view) if self.once else None
            result = self._run_stream(desk, slot, slot.stream, sample, progress, deadline)
        except (Halted, Misconfigured) as error:
            self._stop(desk, slot, error)
            return Result()
        except Superseded:
            slot.stream = None
            return Result(busy=True)
        except Transient:
            if slot.stream is not None:
                slot.stream.limit = paging.halved(slot.stream.limit)
            raise
        except (LeaseLost, psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - what nobody foresaw stops its stream alone, and is named without its values
            where = traceback.extract_tb(error.__traceback__)[-1]
            unforeseen = f"stream {slot.name}: {type(error).__name__} in {Path(where.filename).name}, {where.name}"
            self._stop(desk, slot, Halted(unforeseen, hint="a value that nobody foresaw: please report it"))
            return Result()
        if slot.error is not None:
            slot.error = None
            checkpoints.set_state(desk.connection, self.tenant, self.source.name, slot.name, "running", None)
        return result

    def _recognised(self, desk: poller.Desk, slot: Slot, stream: poller.Stream, sample: Sample) -> bool:
        """Look each minute, and on every new connection, whether the source is still what the stream was opened on."""
        if clock.monotonic() < slot.check_at and slot.connections == desk.reader.connections:
            return True
        slot.connections = desk.reader.connections
        try:
            same = identity.check(desk, stream, sample, doubtful=slot.doubtful)
        except Superseded:
            raise
        except Transient as error:  # a look that takes too long must not stop the reading; the next one rests longer
            log.warning("stream.not_recognised", stream=stream.name, error=str(error))
            slot.connections += 1
            slot.check_rest = min(COUNT_REST_SECONDS, max(5.0, 2 * slot.check_rest))
            slot.check_at = clock.monotonic() + slot.check_rest
            return True
        slot.check_rest, slot.doubtful = 0.0, False
        slot.check_at = clock.monotonic() + (RETRY_SECONDS if stream.waits else COUNT_SECONDS)
        return same

    def _run_stream(
        self, desk: poller.Desk, slot: Slot, stream: poller.Stream, sample: Sample, progress: int, deadline: float
    ) -> Result:
        horizon = self._horizon(desk, slot, stream, sample, progress)
        rows, more = 0, not slot.silent
        left = deadline - clock.monotonic()
        seconds = min(left, STREAM_SECONDS) if len(self.slots) > 1 else left  # alone it holds nobody up
        with closing(poller.ticks(desk, stream, sample, horizon=horizon, seconds=seconds)) as ticks:
            for done in () if slot.silent else ticks:
                rows += done.rows
                more = done.more
                slot.doubtful = slot.doubtful or bool(done.committed and done.committed.changed)
                self._observe(desk, stream, sample, done)
        slot.quiet = not more and rows == 0
        if not more and (rows == 0 or self.once) and clock.monotonic() - slot.idle_said_at >= IDLE_SECONDS:
            slot.idle_said_at = clock.monotonic()
            checkpoints.caught_up(desk.connection, stream.checkpoint, waits=stream.waits)
        late, sweeping = self._sweep(desk, slot, stream, progress, horizon)
        self._count_unread(desk, slot, stream, sample)
        rescanning = self._rescan(desk, slot, stream)
        slot.reached = slot.reached or (self._at_goal(slot, stream, more=more) and not rescanning)
        return Result(rows, late, busy=more or rows > 0 or sweeping or rescanning, news=rows + late > 0)

    def _horizon(
        self, desk: poller.Desk, slot: Slot, stream: poller.Stream, sample: Sample, progress: int
    ) -> int | None:
        """Look how far the source is, and return the mark at or below which no row can appear any more.

        Of ids that takes two statements: they are not asked while everything that was read is sealed, or while nothing
        stands above a head that is noted.
        """
        head = stream.horizon.head
        noted = head is not None and stream.at is not None and head >= stream.at.mark
        if stream.binding.kind == "time" or (slot.silent and noted):
            stream.horizon.observe(progress=progress, snapshot=sample.snapshot)
        elif stream.sealed != stream.at and (last := desk.reader.head(stream.view)) is not None:
            later = desk.reader.sample()
            seen_at = later.clock if later.progress is None else self._progress(later)  # rows tell too old a time
            stream.horizon.observe(head=last.mark, progress=seen_at, snapshot=later.snapshot)
        lateness, longest = int(stream.lateness * SECOND), int(desk.source.lateness_max * SECOND)
        final = stream.horizon.final(progress=progress, lateness=lateness, longest=longest)
        if stream.horizon.held and not slot.held_said:
            log.warning("seal.held", stream=stream.name, reason="a transaction at the source is open for long")
        slot.held_said = stream.horizon.held
        return final

    def _sweep(
        self, desk: poller.Desk, slot: Slot, stream: poller.Stream, progress: int, final: int | None
    ) -> tuple[int, bool]:
        late, more = 0, False
        for swept in sweeper.run_once(desk, stream, progress=progress, final=final):
            more = more or swept.more
            late += swept.late
            if swept.late:
                slot.late, slot.late_within = slot.late + swept.late, max(slot.late_within, swept.age)
                self.metrics.note_late(self.source.name, stream.name, swept.late, swept.age)
            if swept.widened is not None:
                log.warning("sweep.window_widened", stream=stream.name, seconds=swept.widened)
        return late, more

    def _observe(self, desk: poller.Desk, stream: poller.Stream, sample: Sample, done: poller.Tick) -> None:
        self.metrics.rows_read.labels(self.source.name, stream.name).inc(done.rows)
        for stage, seconds in done.seconds.items():
            self.metrics.stage_seconds.labels(self.source.name, stream.name, stage).inc(seconds)
        if done.rows:
            took = done.seconds["commit"]
            most = desk.source.page_rows
            stream.limit = paging.fitted(stream.limit, most, rows=done.rows, seconds=took, size=done.size)
        if done.newest is not None:
            self._newest = max(self._newest, min(done.newest, sample.clock))

    def _progress(self, sample: Sample) -> int:
        """The replica's own progress, or the newest business time of any stream minus `tolerance`. Never our clock."""
        if sample.progress is not None:
            return min(sample.progress, sample.clock)
        return min(self._newest, sample.clock) - int(self.source.tolerance * SECOND)

    def _count_unread(self, desk: poller.Desk, slot: Slot, stream: poller.Stream, sample: Sample) -> None:
        if clock.monotonic() - slot.counted_at < COUNT_SECONDS:
            return
        slot.counted_at = clock.monotonic()
        if slot.late:
            log.info("sweep.late_rows", stream=stream.name, rows=slot.late, within_seconds=slot.late_within)
            slot.late, slot.late_within = 0, 0.0
        try:
            self._count(desk, slot, stream, sample)
        except Transient as error:  # a count is for people: one that takes too long must not stop the reading
            log.warning("stream.not_counted", stream=stream.name, error=str(error))
            slot.counted_at += COUNT_REST_SECONDS

    def _count(self, desk: poller.Desk, slot: Slot, stream: poller.Stream, sample: Sample) -> None:
        future = 0
        if stream.binding.kind == "time":
            ahead = sample.clock + int(desk.source.tolerance * SECOND)
            future = desk.reader.count(stream.view, after=cursor_text(ahead, like=poller.like(stream)))
        if future and stream.binding.contract.reads_profiles:
            poller.apply_future(desk, stream, sample)
        if future:
            poller.quarantine_future(desk, stream, sample)
        if stream.binding.kind == "time":
            quarantine.release_due(desk.connection, stream.checkpoint, poller.FAR_AHEAD)
        null_cursors = desk.reader.count(stream.view)
        widened = checkpoints.widened(desk.connection, stream.checkpoint)
        sweeper.keep_window(stream, max(desk.source.lateness, widened or 0.0))
        checkpoints.set_counts(desk.connection, stream.checkpoint, null_cursors=null_cursors, future_rows=future)
        if null_cursors and stream.binding.contract.reads_profiles and clock.monotonic() >= slot.rescan_at:
            slot.rescan_at = clock.monotonic() + RESCAN_SECONDS
            slot.rescanning = ()

    def _rescan(self, desk: poller.Desk, slot: Slot, stream: poller.Stream) -> bool:
        """Read a page of the users without a cursor, if their time has come; True: there are more."""
        if slot.rescanning is not None:
            slot.rescanning = poller.rescan(desk, stream, slot.rescanning or None)
        return slot.rescanning is not None

    def _at_goal(self, slot: Slot, stream: poller.Stream, *, more: bool) -> bool:
        if stream.rereading:
            return False
        return not more or slot.goal is None or (stream.at is not None and stream.at.mark > slot.goal.mark)

    def _stop(self, desk: poller.Desk, slot: Slot, error: ConnectorError) -> None:
        if slot.error is None or str(slot.error) != str(error):
            told = log.warning if isinstance(error, Waiting) else log.error
            told("stream.stopped", stream=slot.name, reason=error.message, hint=error.hint)
        paused = isinstance(error, Paused)
        state = "paused" if paused else "running" if isinstance(error, Waiting) else "stopped"
        slot.error, slot.stream = error, None
        slot.look_again = float("inf") if paused else clock.monotonic() + RETRY_SECONDS
        checkpoints.set_state(desk.connection, self.tenant, self.source.name, slot.name, state, str(error))
