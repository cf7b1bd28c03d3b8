"""One tick of one stream: window -> read -> normalise -> commit.

Owns a stream's positions while it runs. A tick either commits its page with the checkpoint or leaves no trace.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from connector import clock
from connector.ahead import ahead
from connector.errors import Halted, Paused
from connector.held import Gaps, Held, Pass
from connector.normalised import Normalised
from connector.position import SECOND, Position, Window, cursor_text, mark_of
from connector.sources.dialect import Settings
from connector.sources.reader import Page, Reader, View
from connector.store.checkpoints import Advance, Checkpoint
from connector.store.commit import Batch, Committed, commit
from connector.store.draft import draft
from connector.streams import values
from connector.streams.contract import Binding, Context

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import polars as pl
    import psycopg

    from connector import config
    from connector.contacts import Keys
    from connector.horizon import Horizon
    from connector.money import Rates
    from connector.player import MarketingRules
    from connector.sources.dialect import Sample
    from connector.store.draft import Draft
    from connector.store.lease import Lease

#: Drift, not poison: this share of this many rows refused pauses a stream (users are never paused).
_DRIFT_ROWS: Final = 10_000
_DRIFT_SHARE: Final = 0.01
_DRIFT_LEAST: Final = 100
#: A row this far ahead of the source's clock is a mistake; so many of them are shown.
_FUTURE: Final = 86_400 * SECOND
_FUTURE_ROWS: Final = 100
#: An epoch integer of these days, in the coarsest unit, is not smaller.
_EPOCH_SECONDS: Final = 10**9
_NOTHING: Final = Normalised()
FAR_AHEAD: Final = "dated more than a day ahead"


@dataclass(frozen=True)
class Desk:
    """What a source's thread works with: its session, its store connection, and the rules of the tenant."""

    tenant: str
    source: config.Source
    reader: Reader
    connection: psycopg.Connection[Any]
    lease: Lease
    rates: Rates
    rules: MarketingRules
    keys: Keys | None


def open_desk(
    tenant: str,
    source: config.Source,
    connection: psycopg.Connection[Any],
    lease: Lease,
    rates: Rates,
    rules: MarketingRules,
    *,
    keys: Keys | None,
    longest_seconds: float = math.inf,
) -> Desk:
    """Add a session of the source to a store connection; it connects when it is asked for something.

    No statement of it takes longer than `longest_seconds`, or than the configuration allows.
    """
    limits = Settings(statement_timeout=min(longest_seconds, source.statement_timeout))
    reader = Reader(source.url.get_secret_value(), source=source.name, settings=limits)
    return Desk(tenant, source, reader, connection, lease, rates, rules, keys)


@dataclass
class Stream:
    """A running stream. `at` is where the tail reads on; it differs from `seen` only while a restart reads again.

    `held` is what was read above `sealed`, `passes` how far each age's looks at it have come; `lateness` is the window
    in seconds, as configured or as it has widened.
    """

    binding: Binding
    view: View
    checkpoint: Checkpoint
    at: Position | None
    seen: Position | None
    sealed: Position | None
    limit: int
    lateness: float
    held: Held
    horizon: Horizon
    rereading: bool = False
    #: What the source lacks of what was read from it, in words; reading goes on.
    waits: str | None = None
    #: The last row read, of ids held as gaps: if it is not there any more, others may stand under the ids read before.
    tip: Mapping[str, str | None] | None = None
    passes: dict[float, Pass] = field(default_factory=dict)
    recent: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """Return the stream's name, its contract's."""
        return self.binding.stream


@dataclass(frozen=True)
class Tick:
    """What one tick did; `more`: read on at once; `newest`: the latest business time of its rows, in nanoseconds.

    `size` of its texts in bytes; `seconds` that each stage of it took: read, normalise, commit.
    """

    rows: int
    committed: Committed | None
    more: bool
    newest: int | None = None
    size: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


def ticks(desk: Desk, stream: Stream, sample: Sample, *, horizon: int | None, seconds: float) -> Generator[Tick]:
    """Read pages above `at` and commit each, in order; none is begun after `seconds`, those begun are still committed.

    `horizon`: marks at or below it can no longer appear late. It was sampled before the first read, as `sample` was, so
    no page is read ahead of a later one: what is left over when the caller stops is thrown away. Close it.
    """
    until, more = clock.monotonic() + seconds, True

    def following(read: _Read) -> _Read | None:
        late = clock.monotonic() > until
        return None if late or not read.page.full else _read(desk, stream, sample, read.page.last)

    while more:
        first = _read(desk, stream, sample, stream.at)
        if not first.page.full:  # the usual case: threads would cost more than they bring
            yield (done := _tick(desk, stream, sample, _normalise(desk, stream, first), horizon=horizon))
        else:
            with closing(ahead(first, following, lambda read: _normalise(desk, stream, read))) as pages:
                for read in pages:
                    yield (done := _tick(desk, stream, sample, read, horizon=horizon))
        more = done.more and clock.monotonic() < until


def tick(desk: Desk, stream: Stream, sample: Sample, *, horizon: int | None) -> Tick:
    """Read the next page above `at` and commit it; see `ticks`."""
    read = _normalise(desk, stream, _read(desk, stream, sample, stream.at))
    return _tick(desk, stream, sample, read, horizon=horizon)


@dataclass(frozen=True)
class _Read:
    """A page and what it became: nothing yet stands in the store."""

    page: Page
    normalised: Normalised = _NOTHING
    drafted: Draft | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


def _read(desk: Desk, stream: Stream, sample: Sample, after: Position | None) -> _Read:
    started = clock.monotonic()
    page = desk.reader.read(stream.view, window(desk, stream, sample, after), limit=stream.limit)
    return _Read(page, seconds={"read": clock.monotonic() - started})


def _normalise(desk: Desk, stream: Stream, read: _Read) -> _Read:
    if read.page.last is None:
        return read
    started = clock.monotonic()
    normalised = _normalised(desk, stream, read.page)
    drafted = draft(normalised, desk.rates)
    return _Read(read.page, normalised, drafted, {**read.seconds, "normalise": clock.monotonic() - started})


def _normalised(desk: Desk, stream: Stream, page: Page) -> Normalised:
    context = Context(stream.checkpoint.history_until, rules=desk.rules)
    return stream.binding.contract.normalise(page.frame, stream.binding, context)


def _tick(desk: Desk, stream: Stream, sample: Sample, read: _Read, *, horizon: int | None) -> Tick:
    """Commit a page that was read above `at`.

    One that starts where everything below is sealed, and ends below the horizon (sampled before the read), is a
    completed sweep of itself: it moves both marks.
    """
    page = read.page
    if page.last is None:
        return _nothing_new(stream)
    if page.last == stream.at:
        raise Halted(
            f"stream {stream.name} makes no progress: a page ends where it began, at {page.last.cursor}",
            hint="the database does not compare this value as it writes it: run `connector check`",
        )
    contiguous, rereading = stream.sealed == stream.at, stream.rereading
    sealed = page.last if contiguous and horizon is not None and page.last.mark <= horizon else None
    fresh = not stream.rereading
    seen = page.last if fresh else None
    started = clock.monotonic()
    committed, newest = _commit(desk, stream, read, Advance(seen, sealed), fresh=fresh, now=sample.clock)
    seconds = {**read.seconds, "commit": clock.monotonic() - started}
    _move(stream, page, sealed)
    size = int(page.frame.estimated_size())
    return Tick(page.frame.height, committed, page.full or rereading, newest, size, seconds)


def write(desk: Desk, stream: Stream, page: Page, advance: Advance | None, *, fresh: bool) -> Committed:
    """Normalise rows and commit them with what they move: what was read late, again, or without a cursor."""
    return _commit(desk, stream, _Read(page, _normalised(desk, stream, page)), advance, fresh=fresh)[0]


def _commit(
    desk: Desk, stream: Stream, read: _Read, advance: Advance | None, *, fresh: bool, now: int | None = None
) -> tuple[Committed, int | None]:
    """Commit a page with its checkpoint; returns also the newest business time of its rows.

    `now` is the source's clock, given for tail pages: the age of their newest row is the stream's lag.
    """
    page, normalised = read.page, read.normalised
    newest = _newest(normalised)
    if advance is not None and now is not None and newest is not None:
        advance = replace(advance, lag_seconds=max(0.0, (now - newest) / SECOND))
    batch = Batch(
        stream.checkpoint,
        normalised,
        advance=advance,
        fresh=fresh,
        rows=page.frame.height if fresh else 0,
        followed=page.full,
        drafted=read.drafted,
    )
    committed = commit(desk.connection, batch, rates=desk.rates, lease=desk.lease, keys=desk.keys)
    refused = normalised.rejections.height - int(normalised.rejections["kept"].sum())
    if fresh:  # what is read again says nothing new
        _watch_drift(stream, page.frame.height, refused)
    return committed, newest


def write_late(desk: Desk, stream: Stream, rows: pl.DataFrame, advance: Advance) -> Committed:
    """Commit rows that a look back has found, none perhaps, with what it seals, and hold them."""
    if rows.is_empty():
        return commit(
            desk.connection,
            Batch(stream.checkpoint, advance=advance),
            rates=desk.rates,
            lease=desk.lease,
            keys=desk.keys,
        )
    committed = write(desk, stream, Page(rows, None, full=False), advance, fresh=False)
    if isinstance(stream.held, Gaps):
        stream.held.fill(int(text) for text in rows[stream.view.cursor])
    else:
        hold(stream, rows)
    return committed


def rescan(desk: Desk, stream: Stream, after: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Read one page of user rows that have no cursor, in key order; returns where to go on, None at the end."""
    frame = desk.reader.without_cursor(stream.view, after=after, limit=stream.limit)
    if frame.is_empty():
        return None
    write(desk, stream, Page(frame, None, full=False), None, fresh=False)
    return tuple(frame[name][-1] for name in stream.view.key)


def quarantine_future(desk: Desk, stream: Stream, sample: Sample) -> None:
    """Show rows that are dated more than a day ahead: nobody waits for them. When mended they are read as any other."""
    ahead = cursor_text(sample.clock + _FUTURE + stream.horizon.tick, like=like(stream))
    page = desk.reader.read(stream.view, Window(None, None, since=ahead), limit=_FUTURE_ROWS)
    if page.last is not None:
        refused = values.refused(page.frame, stream.binding, reason=FAR_AHEAD, field=stream.view.cursor)
        batch = Batch(stream.checkpoint, Normalised(rejections=refused))
        commit(desk.connection, batch, rates=desk.rates, lease=desk.lease, keys=desk.keys)


def apply_future(desk: Desk, stream: Stream, sample: Sample) -> None:
    """Bring users up to date whose rows are dated ahead: an exclusion must not wait for its stamp. Moves no mark."""
    since = cursor_text(sample.clock + int(desk.source.tolerance * SECOND), like=like(stream))
    page = desk.reader.read(stream.view, Window(None, None, since=since), limit=stream.limit)
    if page.last is not None:
        write(desk, stream, Page(page.frame, None, full=False), None, fresh=False)


def like(stream: Stream) -> str:
    """Return a cursor text in the source's own writing, to write instants like it."""
    at = None if stream.at is None else stream.at.cursor
    if at is not None and not (
        at.lstrip("-").isdigit() and abs(int(at)) < _EPOCH_SECONDS
    ):  # too small to tell its unit
        return at
    type_name = stream.view.types[stream.view.cursor].lower()
    numeric = any(word in type_name for word in ("int", "numeric", "decimal"))
    return (
        "1700000000000"
        if numeric
        else "2026-01-01 00:00:00+00"
        if "with time zone" in type_name
        else "2026-01-01 00:00:00"
    )


def window(desk: Desk, stream: Stream, sample: Sample, after: Position | None) -> Window:
    """Return what the tail reads above a position.

    While rereading it ends at what was seen before, later never ahead of the source's clock: such rows wait until due.
    """
    if stream.rereading and stream.seen is not None:
        return Window(after, stream.seen.cursor)
    if stream.binding.kind == "id":
        return Window(after, None)
    return Window(after, cursor_text(sample.clock + int(desk.source.tolerance * SECOND), like=like(stream)))


def _nothing_new(stream: Stream) -> Tick:
    if stream.rereading:  # only an empty page ends it: one may be short because it was cut by bytes
        stream.rereading = False
        stream.at = stream.seen = _further(stream.at, stream.seen)
        if isinstance(stream.held, Gaps) and stream.seen is not None:
            stream.held.reach(stream.seen.mark)
        return Tick(0, None, more=True)
    return Tick(0, None, more=False)


def _move(stream: Stream, page: Page, sealed: Position | None) -> None:
    assert page.last is not None
    stream.at = page.last
    if not stream.rereading:
        stream.seen = page.last
    if isinstance(stream.held, Gaps):
        stream.tip = page.frame.row(-1, named=True)
    if sealed is None or isinstance(stream.held, Gaps):
        hold(stream, page.frame)
    if sealed is not None:
        seal(stream, sealed)


def hold(stream: Stream, rows: pl.DataFrame) -> None:
    """Remember that these rows, read in order, are known."""
    cursors = rows[stream.view.cursor]
    if isinstance(stream.held, Gaps):
        stream.held.add(cursors)
    else:
        marks = [mark_of(cursors[index], stream.view.kind) for index in (0, -1)]
        stream.held.add(rows, min(marks), max(marks))


def seal(stream: Stream, sealed: Position) -> None:
    """Follow a committed seal: what lies below is final and need not be held."""
    stream.sealed = sealed
    stream.held.release(sealed.mark)


def _further(at: Position | None, seen: Position | None) -> Position | None:
    """Everything with a cursor up to `seen` has been read again; rows tied with it count as seen too."""
    return seen if at is None or (seen is not None and at.mark < seen.mark) else at


def _newest(normalised: Normalised) -> int | None:
    """Return the latest business time of a page, in nanoseconds."""
    newest = [normalised.events["occurred_at"].max(), normalised.profiles["source_updated_at"].max()]
    newest.append(normalised.labels["updated_at"].max())
    instants = [instant.timestamp() for instant in newest if isinstance(instant, datetime)]
    return int(max(instants) * SECOND) if instants else None


def _watch_drift(stream: Stream, rows: int, refused: int) -> None:
    if stream.binding.contract.reads_profiles:
        return
    stream.recent.append((rows, refused))
    while len(stream.recent) > 1 and sum(count for count, _ in stream.recent) - stream.recent[0][0] >= _DRIFT_ROWS:
        stream.recent.popleft()
    total, bad = (sum(values) for values in zip(*stream.recent, strict=True))
    if bad > _DRIFT_LEAST and bad > total * _DRIFT_SHARE:
        stream.recent.clear()
        raise Paused(
            f"stream {stream.name} pauses: {bad} of its last {total} rows were refused",
            hint="the view has probably changed: see `connector quarantine list`, mend view or configuration, restart",
        )
