"""One tick of one stream: window -> read -> normalise -> commit. Also how a stream is opened and resumed.

Owns a stream's positions while it runs. A tick either commits its page with the checkpoint or leaves no trace.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from connector.errors import Halted, Misconfigured, Paused
from connector.position import SECOND, IdHorizon, Position, Window, cursor_text, tick_of, time_horizon
from connector.sources.reader import Page, Reader, View
from connector.store import checkpoints
from connector.store.checkpoints import Advance, Checkpoint
from connector.store.commit import Batch, Committed, commit
from connector.streams import values
from connector.streams.contract import Binding, Context, Contract, Normalised, bind

if TYPE_CHECKING:
    import psycopg

    from connector import config
    from connector.money import Rates
    from connector.player import MarketingRules
    from connector.sources.dialect import Sample
    from connector.store.lease import Lease

#: Drift, not poison: this share of this many rows refused pauses a stream (users are never paused).
_DRIFT_ROWS: Final = 10_000
_DRIFT_SHARE: Final = 0.01
_DRIFT_LEAST: Final = 100
#: A row this far ahead of the source's clock is a mistake; so many of them are shown.
_FUTURE: Final = 86_400 * SECOND
_FUTURE_ROWS: Final = 100


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


@dataclass
class Stream:
    """A running stream. `at` is where the tail reads on; it differs from `seen` only while a restart reads again."""

    binding: Binding
    view: View
    checkpoint: Checkpoint
    at: Position | None
    seen: Position | None
    sealed: Position | None
    limit: int
    rereading: bool = False
    ids: IdHorizon = field(default_factory=IdHorizon)
    recent: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def name(self) -> str:
        """Return the stream's name, its contract's."""
        return self.binding.stream


@dataclass(frozen=True)
class Tick:
    """What one tick did; `more`: read on at once; `newest`: the latest business time of its rows, in nanoseconds."""

    rows: int
    committed: Committed | None
    more: bool
    newest: int | None = None


def open_stream(desk: Desk, contract: Contract, settings: config.Stream, sample: Sample) -> Stream:
    """Bind the view, load or create the checkpoint, and stand at `sealed`: reading resumes there.

    Raises Misconfigured for a view that can't be bound, Halted for a question that a person must answer.
    """
    name = settings.view or contract.stream
    types = desk.reader.columns(name)
    if not types:
        raise Misconfigured(
            f"view {name} of stream {contract.stream} is not there, or may not be read",
            hint=f"create it from views/ and grant select on it, or set sources[].streams.{contract.stream}.view",
        )
    binding = bind(contract, settings, types, view=name)
    view = View(name, binding.cursor, binding.kind, binding.key, binding.selected, types)
    checkpoint = checkpoints.load(desk.connection, desk.tenant, desk.source.name, contract.stream)
    if checkpoint is None:
        checkpoints.create(desk.connection, _first_start(desk, binding, view, settings, sample))
        checkpoint = checkpoints.load(desk.connection, desk.tenant, desk.source.name, contract.stream)
        assert checkpoint is not None
    _same_data(checkpoint, binding, sample)
    at = checkpoint.sealed
    return Stream(
        binding,
        view,
        checkpoint,
        at,
        checkpoint.seen,
        checkpoint.sealed,
        desk.source.page_rows,
        rereading=at != checkpoint.seen,
    )


def tick(desk: Desk, stream: Stream, sample: Sample, *, horizon: int | None) -> Tick:
    """Read the next page above `at` and commit it. `horizon`: marks at or below it can no longer appear late.

    A page that starts where everything below is sealed, and ends below the horizon (sampled before the read), is a
    completed sweep of itself: it moves both marks.
    """
    window = Window(stream.at, _upper_bound(desk, stream, sample))
    page = desk.reader.read(stream.view, window, limit=stream.limit)
    if page.last is None:
        return _nothing_new(stream)
    contiguous, rereading = stream.sealed == stream.at, stream.rereading
    sealed = page.last if contiguous and horizon is not None and page.last.mark <= horizon else None
    fresh = not stream.rereading
    seen = page.last if fresh else None
    committed, newest = write(desk, stream, page, Advance(seen, sealed), fresh=fresh, clock=sample.clock)
    _move(stream, page, sealed)
    return Tick(page.frame.height, committed, page.full or rereading, newest)


def write(
    desk: Desk, stream: Stream, page: Page, advance: Advance | None, *, fresh: bool, clock: int | None = None
) -> tuple[Committed, int | None]:
    """Normalise a page and commit it with its checkpoint; returns also the newest business time of its rows.

    Called for tail and sweep pages alike. `clock` is the source's, given for tail pages: the age of their newest row is
    the stream's lag.
    """
    context = Context(stream.checkpoint.history_until, rules=desk.rules)
    normalised = stream.binding.contract.normalise(page.frame, stream.binding, context)
    newest = _newest(normalised)
    if advance is not None and clock is not None and newest is not None:
        advance = replace(advance, lag_seconds=max(0.0, (clock - newest) / SECOND))
    batch = Batch(
        stream.checkpoint,
        events=normalised.events,
        profiles=normalised.profiles,
        rejections=normalised.rejections,
        advance=advance,
        fresh=fresh,
        rows=page.frame.height if fresh else 0,
    )
    committed = commit(desk.connection, batch, rates=desk.rates, lease=desk.lease)
    refused = normalised.rejections.height - int(normalised.rejections["kept"].sum())
    _watch_drift(stream, page.frame.height, refused)
    return committed, newest


def rescan(desk: Desk, stream: Stream, after: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Read one page of user rows that have no cursor, in key order; returns where to go on, None at the end."""
    frame = desk.reader.without_cursor(stream.view, after=after, limit=stream.limit)
    if frame.is_empty():
        return None
    write(desk, stream, Page(frame, None, full=False), None, fresh=False)
    return tuple(frame[name][-1] for name in stream.view.key)


def quarantine_future(desk: Desk, stream: Stream, sample: Sample) -> None:
    """Show rows that are dated more than a day ahead: nobody waits for them. When mended they are read as any other."""
    ahead = cursor_text(sample.clock + _FUTURE, like=like(stream))
    page = desk.reader.read(stream.view, Window(None, None, since=ahead), limit=_FUTURE_ROWS)
    if page.last is not None:
        refused = values.refused(
            page.frame, stream.binding, reason="dated more than a day ahead", field=stream.view.cursor
        )
        commit(desk.connection, Batch(stream.checkpoint, rejections=refused), rates=desk.rates, lease=desk.lease)


def horizon_of(desk: Desk, stream: Stream, sample: Sample, progress: int) -> int | None:
    """Return the mark at or below which no row can appear any more, None while that is not known."""
    lateness = int(desk.source.lateness * SECOND)
    if stream.binding.kind == "id":
        return stream.ids.mark(progress=progress, lateness=lateness)
    return time_horizon(
        progress=min(progress, sample.clock), lateness=lateness, tick=tick_of(stream.view.types[stream.view.cursor])
    )


def like(stream: Stream) -> str:
    """Return a cursor text in the source's own writing, to write instants like it."""
    if stream.at is not None:
        return stream.at.cursor
    type_name = stream.view.types[stream.view.cursor].lower()
    numeric = any(word in type_name for word in ("int", "numeric", "decimal"))
    return (
        "1700000000000"
        if numeric
        else "2026-01-01 00:00:00+00"
        if "with time zone" in type_name
        else "2026-01-01 00:00:00"
    )


def _upper_bound(desk: Desk, stream: Stream, sample: Sample) -> str | None:
    """While rereading: what was seen before. After that never ahead of the source's clock: such rows wait until due."""
    if stream.rereading and stream.seen is not None:
        return stream.seen.cursor
    if stream.binding.kind == "id":
        return None
    return cursor_text(sample.clock + int(desk.source.tolerance * SECOND), like=like(stream))


def _nothing_new(stream: Stream) -> Tick:
    if stream.rereading:  # only an empty page ends it: one may be short because it was cut by bytes
        stream.rereading = False
        stream.at = stream.seen = _further(stream.at, stream.seen)
        return Tick(0, None, more=True)
    return Tick(0, None, more=False)


def _move(stream: Stream, page: Page, sealed: Position | None) -> None:
    assert page.last is not None
    stream.at = page.last
    stream.sealed = sealed or stream.sealed
    if not stream.rereading:
        stream.seen = page.last


def _further(at: Position | None, seen: Position | None) -> Position | None:
    """Everything with a cursor up to `seen` has been read again; rows tied with it count as seen too."""
    return seen if at is None or (seen is not None and at.mark < seen.mark) else at


def _newest(normalised: Normalised) -> int | None:
    """Return the latest business time of a page, in nanoseconds."""
    newest = [normalised.events["occurred_at"].max(), normalised.profiles["source_updated_at"].max()]
    instants = [instant.timestamp() for instant in newest if isinstance(instant, datetime)]
    return int(max(instants) * SECOND) if instants else None


def _first_start(desk: Desk, binding: Binding, view: View, settings: config.Stream, sample: Sample) -> Checkpoint:
    """Resolve `start` once. Rows up to today's head are history for ever; `now` keeps `lateness` open below it."""
    head = head_of(desk, view, sample)
    start = settings.start or binding.contract.start
    seen = sealed = None
    if start == "now":
        seen = head
        sealed = _lateness_ago(desk, binding, view, sample, head) if head else None
    elif start != "beginning":
        seen = sealed = _position_before(desk, view, start)
    return Checkpoint(
        *(desk.tenant, desk.source.name, binding.stream, 0, view.cursor, view.key, (sample.server,), seen, sealed),
        history_until=head.mark if head else None,
    )


def head_of(desk: Desk, view: View, sample: Sample) -> Position | None:
    """Return the last row that is not ahead of the source's clock: a row dated 2099 is nobody's head."""
    head = desk.reader.head(view)
    limit = sample.clock + int(desk.source.tolerance * SECOND)
    if head is None or view.kind == "id" or head.mark <= limit:
        return head
    example = cursor_text(limit, like=head.cursor)
    return desk.reader.head(view, column=view.cursor, until=example)


def _lateness_ago(desk: Desk, binding: Binding, view: View, sample: Sample, head: Position) -> Position | None:
    """Return the last row that was final at the first start: what was uncommitted then is still found."""
    since = sample.clock - int(desk.source.lateness * SECOND)
    column = view.cursor if view.kind == "time" else binding.columns[binding.contract.business_time]
    example = head.cursor if view.kind == "time" else "2026-01-01 00:00:00"
    if view.kind == "id" and "int" in view.types[column].lower():
        example = "1700000000000"
    return desk.reader.head(view, column=column, until=cursor_text(since, like=example))


def _position_before(desk: Desk, view: View, start: str) -> Position | None:
    """Return the last row before `start`, which itself is read."""
    return desk.reader.head(view, column=view.cursor, before=start)


def _same_data(checkpoint: Checkpoint, binding: Binding, sample: Sample) -> None:
    name = binding.stream
    if (checkpoint.cursor_column, checkpoint.key_columns) != (binding.cursor, binding.key):
        raise Halted(
            f"stream {name} was read by {checkpoint.cursor_column} with key {', '.join(checkpoint.key_columns)}, "
            f"the configuration now says {binding.cursor} with key {', '.join(binding.key)}",
            hint="another key would count every row again: put the old cursor and key back",
        )
    if sample.server not in checkpoint.servers:
        raise Halted(
            f"stream {name}: this is another server ({sample.server}) than the one read so far "
            f"({', '.join(checkpoint.servers)})",
            hint="if it holds the same data, add it to crm.checkpoints.servers of this stream; "
            "else point the source back",
        )


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
            hint="the view has probably changed: look at crm.quarantine, mend view or configuration, restart",
        )


def smaller_pages(stream: Stream) -> None:
    """Halve the page after a transient failure: a shorter read meets fewer conflicts and time-outs."""
    stream.limit = max(100, stream.limit // 2)


def larger_pages(stream: Stream, most: int) -> None:
    """Grow back after a good tick."""
    stream.limit = min(most, stream.limit * 2)
