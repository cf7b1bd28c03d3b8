"""History in ranges, resumable, through the same normalisers and THE transaction; safe beside the running daemon.

A job is a stream and its bounds; its ranges and each range's position stand in the store, so a job that was stopped
goes on where it was. Rows that are there already are left alone; players read here never overwrite a newer profile.
Everything it writes is history: players and totals change, destinations get no events unless they are asked for, and
then only such as are too old to trigger a campaign.

One process works on a stream at a time, under a lease; its workers take the ranges from one another's hands.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import psycopg

from connector import clock, opening, paging
from connector.ahead import ahead
from connector.errors import Halted, Misconfigured, Superseded, Transient
from connector.gate import GatedReader, StoppedError
from connector.position import Position, Window, cursor_text, mark_of
from connector.ranges import remainder, split
from connector.service import backoff
from connector.store import backfills, feeds, lease as leases
from connector.store.backfills import Job, Progress, Range
from connector.store.commit import Batch, commit
from connector.store.database import classify
from connector.store.draft import draft
from connector.streams import STREAMS
from connector.streams.contract import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from connector.normalised import Normalised
    from connector.poller import Desk, Stream
    from connector.sources.reader import Page
    from connector.store.draft import Draft

#: A range that turns out to hold more rows ends there, and the rest is put back as further ranges.
MOST_ROWS: Final = 200_000
#: Failures of the source in a row that a worker of a command waits out: about a minute and a half.
PATIENCE: Final = 9
_NOTICE_SECONDS: Final = 0.2

#: Destination -> names of the events it is sent; empty: history sends none.
Subscriptions = dict[str, list[str]]


def prepare(desk: Desk, stream: Stream, *, since: str | None, until: str | None, sends: bool = False) -> str:
    """Create the ranges of a job unless they are there; returns the job's name. `None` bounds: the view's own ends."""
    for text in filter(None, (since, until)):
        opening.refuse_unreadable(text, stream.view)
    name = f"{since or 'beginning'} to {until or 'history'}" + (", events sent" if sends else "")
    job = job_of(desk, stream, name)
    if backfills.progress(desk.connection, job).ranges:
        return name
    if since and until and mark_of(since, stream.binding.kind) > mark_of(until, stream.binding.kind):
        raise Misconfigured(f"{since} lies after {until}", hint="--from is the first cursor value, --to the last")
    if (ends := _bounds(desk, stream, since, until)) is not None:
        parts = _ranges(split(*ends, kind=stream.binding.kind), stream)
        backfills.create(desk.connection, job, stream.checkpoint, parts)
    return name


def run(
    desk: Desk,
    stream: Stream,
    job: str,
    *,
    send_to: Subscriptions,
    report: Callable[[Progress], None],
    stopped: Callable[[], bool],
    others: Sequence[Desk] = (),
    patience: int = 0,
) -> Progress:
    """Work through the job's open ranges in order until done or `stopped()`, over this desk and `others`, one a worker.

    So many failures of the source in a row are waited out. Raises Transient: run it again. `report` and `stopped` are
    called by any worker, `report` by one at a time.
    """
    which = job_of(desk, stream, job)
    try:
        report(backfills.progress(desk.connection, which))
        claims = Claims(_open_ranges(desk, stream, which), stopped)
        workers = [Worker(one, stream, which, claims, send_to, report, patience) for one in (desk, *others)]
        if others:
            with ThreadPoolExecutor(len(workers), "backfill") as pool:
                for done in [pool.submit(worker.run) for worker in workers]:
                    done.result()
        else:
            workers[0].run()
        return backfills.progress(desk.connection, which)
    except StoppedError:
        return backfills.progress(desk.connection, which)
    except psycopg.OperationalError as error:
        raise classify(error) from error


class Claims:
    """The open ranges of a job. Each is in one worker's hands at a time; a killed process leaves them all open."""

    def __init__(self, parts: Iterable[Range], stopped: Callable[[], bool]) -> None:
        self._open, self._held, self._closed = deque(parts), 0, False
        self._stopped = stopped
        self._changed = threading.Condition()
        #: Held while one worker reports.
        self.reporting = threading.Lock()

    def take(self) -> Range | None:
        """Return the next range, waiting for what may be put back; None: there is nothing left to do."""
        with self._changed:
            while not self._open and self._held and not self._closed:
                self._changed.wait(_NOTICE_SECONDS)
            if self._closed or not self._open:
                return None
            self._held += 1
            return self._open.popleft()

    def finish(self, rest: Sequence[Range]) -> None:
        """Give back a range that is done, and what was cut off it."""
        with self._changed:
            self._held -= 1
            self._open.extendleft(reversed(rest))
            self._changed.notify_all()

    def close(self) -> None:
        """Hand out no more, and have every worker stop after its page in hand."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def over(self) -> bool:
        """Return whether to stop."""
        return self._closed or self._stopped()


@dataclass(frozen=True)
class _Read:
    """A page of a range: nothing of it stands in the store yet. `rows`: of the range, with this page."""

    part: Range
    page: Page
    rows: int
    ends: bool


@dataclass
class Worker:
    """One desk at work. Pages are in three hands (see ahead), be they of the same range or the next one."""

    desk: Desk
    stream: Stream
    job: Job
    claims: Claims
    send_to: Subscriptions
    report: Callable[[Progress], None]
    patience: int
    #: Rows of the last page that were new: then the next one's are taken for new, too.
    _fresh: bool = field(default=True, init=False)
    _most: int = field(init=False)

    def __post_init__(self) -> None:
        reader, self._most = self.desk.reader, self.desk.source.page_rows
        if isinstance(reader, GatedReader):
            self._most = reader.gate.terms.page_rows(self._most)
        self.stream = replace(self.stream, limit=min(self.stream.limit, self._most))

    def run(self) -> None:
        """Work until no range is left, or it is over. Raises what went wrong; then the other workers end as well."""
        with self._closed_on_failure():
            first = self._next(None)
        if first is None:
            return
        with closing(ahead(first, self._next, self._normalise)) as pages, self._closed_on_failure():
            for read, normalised, drafted in pages:
                if self.claims.over():
                    self.claims.close()
                    return
                self._write(read, normalised, drafted)
                with self.claims.reporting:
                    self.report(backfills.progress(self.desk.connection, self.job))

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        """Hand out no more ranges once something has failed: nobody may wait for one that will not be put back.

        Before the hands are waited for: one of them may be waiting for such a range.
        """
        try:
            yield
        except BaseException:
            self.claims.close()
            raise

    def _next(self, before: _Read | None) -> _Read | None:
        """Read what comes after a page, of its range or of another; None: nothing is left."""
        if before is None or before.ends:
            part = self.claims.take()
            if part is None:
                return None
            at, rows = part.at, part.rows
        else:
            part, at, rows = before.part, before.page.last, before.rows
        page = self._page(part, at)
        rows += page.frame.height
        # only an empty page ends a range: one may be short because it was cut by bytes
        return _Read(part, page, rows, ends=page.last is None or (page.full and rows >= MOST_ROWS))

    def _normalise(self, read: _Read) -> tuple[_Read, Normalised, Draft | None]:
        with self._closed_on_failure():
            context = Context(all_history=True, rules=self.desk.rules)
            normalised = self.stream.binding.contract.normalise(read.page.frame, self.stream.binding, context)
            return read, normalised, draft(normalised, self.desk.rates)

    def _page(self, part: Range, at: Position | None) -> Page:
        """Read a page, smaller and later after each failure of the source."""
        window = Window(at, part.until, part.since)
        for failures in itertools.count(1):
            try:
                page = self.desk.reader.read(self.stream.view, window, limit=self.stream.limit)
            except Superseded:
                raise
            except Transient:
                if failures > self.patience or self.claims.over():
                    raise
                self.stream.limit = paging.halved(self.stream.limit)
                self._wait(backoff(failures))
            else:
                break
        if page.last is not None and page.last == at:
            raise Halted(
                f"stream {self.stream.name} makes no progress: a page ends where it began, at {page.last.cursor}",
                hint="the database does not compare this value as it writes it: run `connector check`",
            )
        if isinstance(self.desk.reader, GatedReader):
            self.stream.limit = self.desk.reader.fitting(self.stream.limit, most=self._most)
        else:
            rows, size = page.frame.height, int(page.frame.estimated_size())
            self.stream.limit = paging.fitted(self.stream.limit, self._most, rows=rows, seconds=0.0, size=size)
        return page

    def _wait(self, seconds: float) -> None:
        deadline = clock.monotonic() + seconds
        while clock.monotonic() < deadline and not self.claims.over():
            clock.sleep(_NOTICE_SECONDS)

    def _write(self, read: _Read, normalised: Normalised, drafted: Draft | None) -> None:
        """Commit a page, its range's position and what destinations shall get of it in one transaction."""
        stream, page = self.stream, read.page
        rest: list[Range] = []

        def advance(connection: psycopg.Connection[Any]) -> None:
            for destination, names in self.send_to.items():
                keys = normalised.events["key"].to_list()
                feeds.park_history(connection, stream.checkpoint, destination, keys=keys, names=names)
            backfills.advance(connection, read.part, page.last, rows=page.frame.height, ends=read.ends)
            rest[:] = []
            if read.ends and page.last is not None:
                bounds, kind = (read.part.since, read.part.until), stream.binding.kind
                parts = _ranges(remainder(bounds, page.last, rows=read.rows, most=MOST_ROWS, kind=kind), stream)
                parts[0] = replace(parts[0], at=page.last)
                rest.extend(backfills.put_back(connection, self.job, parts))

        batch = Batch(
            *(stream.checkpoint, normalised),
            fresh=self._fresh,
            production=False,
            after=advance,
            followed=not read.ends,
            drafted=drafted,
        )
        committed = commit(
            self.desk.connection, batch, rates=self.desk.rates, lease=self.desk.lease, keys=self.desk.keys
        )
        if page.last is not None:
            self._fresh = 2 * committed.events > normalised.events.height
        if read.ends:
            self.claims.finish(rest)


def take_lease(
    connection: psycopg.Connection[Any], tenant: str, source: str, stream: str, *, purpose: str = "backfill"
) -> leases.Lease:
    """Take the lease of what a command does with this stream; raises Halted while another one does it."""
    lease = leases.acquire(connection, f"{tenant}/{purpose}:{source}:{stream}")
    if lease is None:
        raise Halted(f"another {purpose} of {stream} is running already", hint="wait for it, or stop it first")
    return lease


def open_stream(desk: Desk, name: str) -> Stream:
    """Bind the stream that is to be filled, with the daemon's own checkpoint."""
    if name not in desk.source.streams:
        known = ", ".join(desk.source.streams)
        raise Misconfigured(f"source {desk.source.name} has no stream {name!r}", hint=f"configured are: {known}")
    return opening.open_stream(desk, STREAMS[name], desk.source.streams[name], desk.reader.sample())


def job_of(desk: Desk, stream: Stream, name: str) -> Job:
    """Return the job of that name of a stream."""
    return Job(desk.tenant, desk.source.name, stream.name, name)


def _bounds(desk: Desk, stream: Stream, since: str | None, until: str | None) -> tuple[str, str] | None:
    """The ends of the job: the given ones, or the view's first row and the end of history.

    Never beyond the history: what is above is the daemon's to read, or its events would never reach a destination.
    """
    limit = stream.checkpoint.history_until
    first = desk.reader.read(stream.view, Window(None, None, since), limit=1).last
    if first is None or limit is None or first.mark > limit:
        return None
    end = str(limit) if stream.binding.kind == "id" else cursor_text(limit, like=first.cursor)
    if until is not None and mark_of(until, stream.binding.kind) < limit:
        end = until
    return None if first.mark > mark_of(end, stream.binding.kind) else (since or first.cursor, end)


def _ranges(parts: Iterable[tuple[str, str]], stream: Stream) -> list[Range]:
    kind = stream.binding.kind
    return [Range(0, since, until, (mark_of(since, kind), mark_of(until, kind))) for since, until in parts]


def _open_ranges(desk: Desk, stream: Stream, job: Job) -> list[Range]:
    kind = stream.binding.kind
    return [
        Range(range_id, since, until, (mark_of(since, kind), mark_of(until, kind)), at, rows)
        for range_id, since, until, at, rows in backfills.open_ranges(desk.connection, job)
    ]
