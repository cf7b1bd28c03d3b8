"""The sealed range of a stream, compared bucket by bucket: the source's sums against the store's.

Both sides answer one aggregate a bucket; only where they differ is the bucket cut, and at last compared row by row.
What is promised is everything from where the stream began up to its seal, and what backfills have loaded below.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import psycopg

from connector import clock, evidence, opening
from connector.buckets import LEAF_ROWS, Bucket, Sums, Walk, merged, within
from connector.errors import Halted, Misconfigured, Superseded, Transient
from connector.position import EARLIEST, LATEST, SECOND, Window, cursor_text, epoch_unit, mark_of, tick_of
from connector.store import checkpoints
from connector.store.audits import Outcome, Shelf
from connector.store.database import classify
from connector.streams import STREAMS
from connector.streams.instants import instants

if TYPE_CHECKING:
    from connector.metrics import Metrics
    from connector.poller import Desk, Stream

#: A bucket is at first this wide: nanoseconds, or ids.
_HOUR: Final = 3600 * SECOND
_IDS: Final = 10_000
#: Failures in a row, each with half the rows, after which the source is given up for now.
_PATIENCE: Final = 8
#: Ids that need no closer look for where an hour began.
_NEAR: Final = 256
#: Cursors as coarse as this have no values between their ticks.
_COARSE: Final = 60 * SECOND


@dataclass
class Audit:
    """One run over one stream. `step` until it says that nothing is left; `outcome` is what was found so far."""

    desk: Desk
    stream: Stream
    kind: str
    ranges: list[Bucket]
    repair: bool
    metrics: Metrics | None = None
    #: Seconds that a bucket may take, row by row; None: as long as it needs.
    patience: float | None = None
    outcome: Outcome = field(default_factory=Outcome)
    queries: int = 0
    _failures: int = 0
    _since: float = field(default_factory=clock.monotonic)

    def __post_init__(self) -> None:
        self._case = evidence.Case(
            self.desk, self.stream, Shelf(self.desk.connection, self.stream.checkpoint), self.repair
        )
        width = _IDS if self.stream.binding.kind == "id" else _HOUR
        self._walk = Walk(list(self.ranges), tick_of_cursor(self.stream), width)

    def step(self) -> bool:
        """Compare the next bucket; False when none is left: then the result is recorded.

        Raises Transient when source or store stay away, Superseded or Halted when they are no longer what they were; a
        bucket that takes too long is halved and goes on.
        """
        bucket = self._walk.take()
        if bucket is None:
            self._record(None)
            return False
        try:
            self._compare(bucket)
        except Superseded:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self._failed(bucket, classify(error))
        except Transient as error:
            self._failed(bucket, error)
        else:
            self._failures = 0
        return True

    def give_up(self, reason: str) -> None:
        """Record why the audit ends before its time."""
        self._record(reason)

    def _record(self, error: str | None) -> None:
        seconds = clock.monotonic() - self._since
        self._case.shelf.record(self.kind, self.ranges, self.outcome, seconds=seconds, error=error)

    def _failed(self, bucket: Bucket, error: Exception) -> None:
        self._walk.failed(bucket)
        self._failures += 1
        if self._failures >= _PATIENCE or self.desk.connection.broken or self.desk.connection.closed:
            raise error

    def run(self) -> Outcome:
        """Compare everything that is left."""
        while self.step():
            pass
        return self.outcome

    @property
    def _sorted(self) -> bool:
        """Whether keys are compared themselves: users move, and so their number says little."""
        return self.stream.binding.contract.reads_profiles

    def _compare(self, bucket: Bucket) -> None:
        with ThreadPoolExecutor(1, "audit-store") as beside:  # two servers: neither waits for the other
            counted = beside.submit(self._here, bucket)
            there = self._there(bucket)
        here = counted.result()
        self.queries += 1
        if None in (there.digest, there.amount):  # rows themselves are compared: no more of them than that is good for
            self._walk.target = LEAF_ROWS
        if there.agrees(here):
            self._walk.agreed(bucket, there.rows)
            self.outcome += Outcome(there.rows)
        elif self._walk.differed(bucket, max(there.rows, here.rows)):
            self._recognise()
            limit = None if self.patience is None else clock.monotonic() + self.patience
            found = evidence.compare(replace(self._case, limit=limit), self._bounds(bucket))
            self.outcome += found
            if found.repaired:
                self._tell(found.repaired)

    def _recognise(self) -> None:
        """Before a difference is believed: this is the server of old, and it has all that was sealed."""
        sample, point = self.desk.reader.sample(), self.stream.checkpoint
        if sample.server not in point.servers:
            raise Halted(f"stream {self.stream.name}: the source has become another server ({sample.server})")
        behind = point.sealed is not None and sample.progress is not None and sample.progress < point.sealed.mark
        if behind and self.stream.binding.kind == "time":
            raise Halted(f"stream {self.stream.name}: the source has fallen behind what was read of it")

    def _there(self, bucket: Bucket) -> Sums:
        low, high = self._text(bucket.low), self._text(bucket.high)
        assert high is not None
        view, amounts = self.stream.view, self.stream.binding.amounts
        found = self.desk.reader.sums(view, low, high, amounts=amounts, digest=not self._sorted)
        return found if amounts else replace(found, amount=Decimal(0))  # nothing to add up: numbers and digests tell

    def _here(self, bucket: Bucket) -> Sums:
        if not self._sorted:
            found = self._case.shelf.sums(bucket)
            return found if self.stream.binding.amounts else replace(found, amount=Decimal(0))
        return Sums(self._case.shelf.players_within(bucket) if self._case.by_update else 0)

    def _bounds(self, bucket: Bucket) -> evidence.Bounds:
        tick = tick_of_cursor(self.stream)
        until = self._text(bucket.high - tick if tick >= _COARSE else bucket.high)
        assert until is not None
        return evidence.Bounds(bucket, self._text(bucket.low), until)

    def _text(self, mark: int) -> str | None:
        return text_of(self.stream, mark)

    def _tell(self, rows: int) -> None:
        """A row found so late asks for the longest window."""
        longest, source = self.desk.source.lateness_max, self.desk.source.name
        checkpoints.note_late(self.desk.connection, self.stream.checkpoint, rows=rows, lateness=longest)
        if self.metrics is not None:
            self.metrics.note_late(source, self.stream.name, rows, longest)


def skipped(name: str) -> str | None:
    """Return why a stream is never audited, None where it is."""
    if STREAMS[name].brings != "facts":
        return None
    return "not audited: its rows are facts that may be written anew, so none of them is final"


def open_stream(desk: Desk, name: str) -> Stream | None:
    """Bind a stream that the daemon has started, with its checkpoint of now; None while nothing of it is sealed.

    Raises Halted or Misconfigured when its view is not what the daemon read.
    """
    point = checkpoints.load(desk.connection, desk.tenant, desk.source.name, name)
    if point is None or point.sealed is None:
        return None
    return opening.open_stream(desk, STREAMS[name], desk.source.streams[name], desk.reader.sample())


def promised(desk: Desk, stream: Stream, *, low: int | None = None) -> list[Bucket]:
    """Return the ranges of which every row must be in the store, in order, from `low` on."""
    point, sealed = stream.checkpoint, stream.checkpoint.sealed
    if sealed is None:
        return []
    started, tick = _started(desk, stream), tick_of_cursor(stream)
    end = (sealed.mark // tick + 1) * tick
    first = EARLIEST if started <= EARLIEST else (started // tick + 1) * tick
    shelf = Shelf(desk.connection, point)
    kind = stream.binding.kind
    marks = [(mark_of(since, kind), mark_of(until, kind), whole) for since, until, whole in shelf.filled()]
    filled = [Bucket(low // tick * tick, (last // tick + whole) * tick) for low, last, whole in marks]
    ranges = within(merged([Bucket(first, end), *filled]), None if low is None else low // tick * tick, end)
    return _trimmed(desk, stream, shelf, ranges)


def _trimmed(desk: Desk, stream: Stream, shelf: Shelf, ranges: list[Bucket]) -> list[Bucket]:
    """Begin no earlier than either side has rows: EARLIEST is far away."""
    if not ranges or ranges[0].low > EARLIEST or stream.sealed is None:
        return ranges
    tick = tick_of_cursor(stream)
    first = desk.reader.read(stream.view, Window(None, None), limit=1).last
    there = None if first is None else first.mark
    users = stream.binding.contract.reads_profiles
    here = shelf.least_update() if users else shelf.least(there)
    least = min((mark for mark in (there, here) if mark is not None), default=None)
    return [] if least is None else within(ranges, max(EARLIEST, least // tick * tick), None)


def mark_ago(desk: Desk, stream: Stream, instant: int) -> int:
    """Return a mark such that no row below it is younger than an instant (nanoseconds), as far as ids follow time."""
    if stream.binding.kind == "time":
        return instant
    assert stream.checkpoint.sealed is not None
    column = stream.binding.columns[stream.binding.contract.business_time]
    view = replace(stream.view, columns=tuple(dict.fromkeys((stream.view.cursor, *stream.view.key, column))))
    first = desk.reader.read(view, Window(None, None), limit=1).last
    low, high = first.mark if first else 0, stream.checkpoint.sealed.mark
    while high - low > _NEAR:
        middle = (low + high) // 2
        page = desk.reader.read(view, Window(None, None, since=str(middle)), limit=1)
        stamp = None if page.last is None else instants(page.frame[column]).dt.epoch("us").item()
        low, high = (middle, high) if stamp is not None and stamp * 1000 < instant else (low, middle)
    return low


def _started(desk: Desk, stream: Stream) -> int:
    """Return the mark above which everything is promised, EARLIEST: all. Older checkpoints don't say: `start` does."""
    point = stream.checkpoint
    if point.started is not None:
        return point.started
    start = desk.source.streams[stream.name].start or STREAMS[stream.name].start
    return EARLIEST if start == "beginning" or point.history_until is None else point.history_until


def bounded(stream: Stream, ranges: list[Bucket], since: str | None, until: str | None) -> list[Bucket]:
    """Return the ranges cut to [since, until], both included, as a person writes them: times or ids."""
    tick = tick_of_cursor(stream)
    low = None if since is None else _mark(stream, since) // tick * tick
    high = None if until is None else (_mark(stream, until) // tick + 1) * tick
    return within(ranges, low, high)


def _mark(stream: Stream, text: str) -> int:
    try:
        mark = mark_of(text, stream.binding.kind)
    except ValueError:
        mark = LATEST
    if mark in {EARLIEST, LATEST}:
        example = "123456" if stream.binding.kind == "id" else "2026-01-31 or '2026-01-31 12:00:00'"
        said = f"{text!r} is no {stream.binding.kind} of cursor {stream.view.cursor}"
        raise Misconfigured(said, hint=f"write {example}")
    return mark


def text_of(stream: Stream, mark: int) -> str | None:
    """Return a mark as the source writes cursors; None for the beginning of all."""
    if mark <= EARLIEST:
        return None
    if stream.binding.kind == "id":
        return str(mark)
    assert stream.checkpoint.sealed is not None
    return cursor_text(mark, like=stream.checkpoint.sealed.cursor)


def tick_of_cursor(stream: Stream) -> int:
    """Return the least width of a bucket: what one value of the cursor covers, and at least what marks tell apart."""
    if stream.binding.kind == "id":
        return 1
    like = stream.checkpoint.sealed.cursor if stream.checkpoint.sealed else ""
    unit = epoch_unit(int(like)) if like.lstrip("-").isdigit() else 1
    return max(tick_of(stream.view.types[stream.view.cursor]), 1000, unit)
