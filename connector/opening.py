"""How a stream is opened: its view bound, its first start resolved once, its data recognised as the same as before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.errors import Halted, Misconfigured
from connector.held import ledger
from connector.horizon import Horizon
from connector.poller import Desk, Stream
from connector.position import SECOND, Position, cursor_text, tick_of
from connector.sources.reader import View
from connector.store import checkpoints
from connector.store.checkpoints import Checkpoint
from connector.streams.contract import Binding, Contract, bind

if TYPE_CHECKING:
    from connector import config
    from connector.sources.dialect import Sample


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
    at, type_name = checkpoint.sealed, view.types[view.cursor]
    return Stream(
        binding,
        view,
        checkpoint,
        at=at,
        seen=checkpoint.seen,
        sealed=at,
        limit=desk.source.page_rows,
        lateness=max(desk.source.lateness, checkpoint.lateness or 0.0),
        held=ledger(view.kind, view.cursor, view.key, type_name, at.mark if at else None),
        horizon=Horizon(view.kind, tick_of(type_name) if view.kind == "time" else 0),
        rereading=at != checkpoint.seen,
    )


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
