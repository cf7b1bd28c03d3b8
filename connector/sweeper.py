"""The trailing pass over (sealed, seen]: reads every row again once it is final, adds what the tail missed, and seals.

A row can become visible after the tail has passed its cursor (it was stamped, or its id drawn, before its transaction
committed). Once `progress` has moved on by `lateness` no such row can come any more: a second read of that stretch is
complete, and the mark moves in the transaction that holds its rows. No completed sweep, no sealing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connector import poller
from connector.position import Window, cursor_text
from connector.store.checkpoints import Advance

if TYPE_CHECKING:
    from connector.poller import Desk, Stream


@dataclass(frozen=True)
class Swept:
    """What one sweep page did: rows read again, events found late, and whether more of the window is left."""

    rows: int
    late: int
    more: bool


def run_once(desk: Desk, stream: Stream, *, horizon: int | None) -> Swept:
    """Sweep one page of what is final and not sealed. `horizon` must have been computed before this call."""
    if horizon is None or stream.seen is None or stream.rereading:
        return Swept(0, 0, more=False)
    mark = min(horizon, stream.seen.mark)
    if stream.sealed is not None and stream.sealed.mark >= mark:
        return Swept(0, 0, more=False)
    until = str(mark) if stream.binding.kind == "id" else cursor_text(mark, like=poller.like(stream))
    page = desk.reader.read(stream.view, Window(stream.sealed, until), limit=stream.limit)
    if page.last is None:
        return Swept(0, 0, more=False)
    committed, _ = poller.write(desk, stream, page, Advance(sealed=page.last), fresh=False)
    stream.sealed = page.last
    return Swept(page.frame.height, committed.events, more=page.full)
