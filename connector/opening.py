"""How a stream is opened: its view bound, its first start resolved once, its data recognised as the same as before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector import identity, paging
from connector.errors import Halted, Misconfigured
from connector.held import Held, Keys, ledger
from connector.horizon import Horizon
from connector.poller import Desk, Stream, like
from connector.position import EARLIEST, LATEST, SECOND, Position, cursor_text, mark_of, tick_of
from connector.sources.reader import View
from connector.store import checkpoints
from connector.store.checkpoints import Checkpoint
from connector.streams.contract import Binding, Contract, bind
from connector.streams.instants import instants

if TYPE_CHECKING:
    from connector import config
    from connector.sources.dialect import Sample


def open_stream(
    desk: Desk, contract: Contract, settings: config.Stream, sample: Sample, *, doubtful: bool = False
) -> Stream:
    """Bind the view, load or create the checkpoint, and stand at `sealed`: reading resumes there.

    Raises Misconfigured for a view that can't be bound, Halted for a question that a person must answer. `doubtful`:
    its rows have come with keys that were known with other content (see identity.recognise).
    """
    binding, view = bound(desk, contract, settings)
    checkpoint = checkpoints.load(desk.connection, desk.tenant, desk.source.name, contract.stream)
    if checkpoint is None:
        checkpoints.create(desk.connection, _first_start(desk, binding, view, settings, sample))
        checkpoint = checkpoints.load(desk.connection, desk.tenant, desk.source.name, contract.stream)
        assert checkpoint is not None
    same_key(checkpoint, binding)
    waits = identity.recognise(desk, binding, view, checkpoint, sample, doubtful=doubtful)
    at, type_name = checkpoint.sealed, view.types[view.cursor]
    return Stream(
        binding,
        view,
        checkpoint,
        at=at,
        seen=checkpoint.seen,
        sealed=at,
        limit=min(desk.source.page_rows, paging.FIRST),
        lateness=max(desk.source.lateness, checkpoint.lateness or 0.0),
        held=_held(binding, view, at),
        horizon=Horizon(view.kind, tick_of(type_name) if view.kind == "time" else 0),
        rereading=at != checkpoint.seen,
        waits=waits,
    )


def _held(binding: Binding, view: View, sealed: Position | None) -> Held:
    """Users change: two updates can bear one stamp, so whole rows are compared. Transactions are told by their keys."""
    if binding.contract.rewritten:
        return Keys(view.columns)
    return ledger(view.kind, view.cursor, view.key, view.types[view.cursor], sealed.mark if sealed else None)


def bound(desk: Desk, contract: Contract, settings: config.Stream) -> tuple[Binding, View]:
    """Bind the contract to the view that is there; raises Misconfigured."""
    name = settings.view or contract.stream
    types = desk.reader.columns(name)
    if not types:
        raise Misconfigured(
            f"view {name} of stream {contract.stream} is not there, or may not be read",
            hint=f"create it from views/ and grant select on it, or set sources[].streams.{contract.stream}.view",
        )
    binding = bind(contract, settings, types, view=name, scales=desk.source.scales)
    return binding, View(name, binding.cursor, binding.kind, binding.key, binding.selected, types)


def same_key(checkpoint: Checkpoint, binding: Binding) -> None:
    """Raise Halted when the configuration names another cursor or key than the stream was read by."""
    if (checkpoint.cursor_column, checkpoint.key_columns) != (binding.cursor, binding.key):
        raise Halted(
            f"stream {binding.stream} was read by {checkpoint.cursor_column} with key "
            f"{', '.join(checkpoint.key_columns)}, the configuration now says {binding.cursor} with key "
            f"{', '.join(binding.key)}",
            hint="another key would count every row again: put the old cursor and key back",
        )


def final_at_start(desk: Desk, stream: Stream) -> Position | None:
    """Return the last row that was final when the stream was first opened, as its rows tell the time, or None."""
    binding, view, until = stream.binding, stream.view, stream.checkpoint.history_until
    if until is None:
        return None
    lateness = int(desk.source.lateness * SECOND)
    if view.kind == "time":
        return desk.reader.head(view, column=view.cursor, until=cursor_text(until - lateness, like=like(stream)))
    newest = desk.reader.newest(view, column=view.cursor, until=str(until))
    column = binding.columns[binding.contract.business_time]
    stamps = instants(newest[column]).dt.epoch("us").drop_nulls()
    return None if stamps.is_empty() else happened_until(desk, binding, view, stamps[0] * 1000 - lateness)


def _first_start(desk: Desk, binding: Binding, view: View, settings: config.Stream, sample: Sample) -> Checkpoint:
    """Resolve `start` once. Rows up to today's head are history for ever; `now` keeps `lateness` open below it."""
    head = identity.head_of(desk, view, sample)
    start = settings.start or binding.contract.start
    seen = sealed = None
    if start == "now":
        seen = head
        sealed = _lateness_ago(desk, binding, view, sample, head) if head else None
    elif start != "beginning":
        seen = sealed = position_before(desk, view, start)
    return Checkpoint(
        *(desk.tenant, desk.source.name, binding.stream, 0, view.cursor, view.key, (sample.server,), seen, sealed),
        history_until=head.mark if head else None,
    )


def _lateness_ago(desk: Desk, binding: Binding, view: View, sample: Sample, head: Position) -> Position | None:
    """Return the last row that was final at the first start: what was uncommitted then is still found."""
    since = sample.clock - int(desk.source.lateness * SECOND)
    if view.kind == "time":
        return desk.reader.head(view, column=view.cursor, until=cursor_text(since, like=head.cursor))
    return happened_until(desk, binding, view, since)


def happened_until(desk: Desk, binding: Binding, view: View, instant: int) -> Position | None:
    """Return the last row, in the order of the view, that happened at or before an instant (nanoseconds)."""
    column = binding.columns[binding.contract.business_time]
    example = "1700000000000" if "int" in view.types[column].lower() else "2026-01-01 00:00:00"
    return desk.reader.head(view, column=column, until=cursor_text(instant, like=example))


def position_before(desk: Desk, view: View, start: str) -> Position | None:
    """Return the last row before `start`, which itself is read."""
    return desk.reader.head(view, column=view.cursor, before=start)


def refuse_unreadable(text: str, view: View) -> None:
    """Refuse a cursor value that says something else tomorrow ('yesterday'), or nothing; raises Misconfigured."""
    try:
        fixed = mark_of(text, view.kind) not in {EARLIEST, LATEST}
    except ValueError:
        fixed = False
    if not fixed:
        example = "123456" if view.kind == "id" else "2026-01-31 or '2026-01-31 12:00:00'"
        raise Misconfigured(f"{text!r} is no {view.kind} of cursor {view.cursor}", hint=f"write {example}")
