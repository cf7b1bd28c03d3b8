"""What would make the connector lose or double rows, each in one patch: a machine that does not notice proves nothing.

The only place of these scenarios that knows the inside of the loops.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from connector import opening, poller, sweeper
from connector.held import Gaps, Keys
from connector.horizon import Horizon
from connector.position import LATEST, SECOND
from connector.sources.reader import Reader
from connector.store import checkpoints, ledger
from connector.store.checkpoints import Advance

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def no_sweep(patch: pytest.MonkeyPatch) -> None:
    """Never look back: what the tail has passed stays away."""
    patch.setattr(sweeper, "run_once", lambda *_, **__: [])


def seal_without_a_sweep(patch: pytest.MonkeyPatch) -> None:
    """Take what is old for final without having looked at it again."""

    def seal(desk: Any, stream: Any, *, progress: int, final: int | None) -> list[sweeper.Swept]:
        del progress
        if not stream.rereading and stream.seen and final is not None and stream.seen.mark <= final:
            checkpoints.advance(desk.connection, stream.checkpoint, Advance(sealed=stream.seen), rows=0)
            poller.seal(stream, stream.seen)
        return []

    patch.setattr(sweeper, "run_once", seal)


def seal_at_once(patch: pytest.MonkeyPatch) -> None:
    """Take every mark for final."""
    patch.setattr(Horizon, "final", lambda *_, **__: LATEST)


def seal_a_second_early(patch: pytest.MonkeyPatch) -> None:
    """Wait for a second less than `lateness`."""
    final = Horizon.final

    def early(horizon: Horizon, *, progress: int, lateness: int, longest: int) -> int | None:
        return final(horizon, progress=progress, lateness=lateness - SECOND, longest=longest)

    patch.setattr(Horizon, "final", early)


def ask_for_no_gaps(patch: pytest.MonkeyPatch) -> None:
    """Take an id that was not there for one that never comes."""
    patch.setattr(Gaps, "within", lambda *_: [])


def miss_no_keys(patch: pytest.MonkeyPatch) -> None:
    """Take every row of a look for one that is held."""
    patch.setattr(Keys, "absent", lambda _, rows, *__: rows.clear())


def resume_at_seen(patch: pytest.MonkeyPatch) -> None:
    """Take what was seen before a restart for final."""
    open_stream = opening.open_stream

    def resume(*arguments: Any, **options: Any) -> Any:
        stream = open_stream(*arguments, **options)
        if stream.seen is not None:
            stream.at = stream.seen
            poller.seal(stream, stream.seen)
        stream.rereading = False
        return stream

    patch.setattr(opening, "open_stream", resume)


def bare_greater(patch: pytest.MonkeyPatch) -> None:
    """Go on at the next cursor rather than at the next row."""
    keyset = Reader._keyset

    def bare(reader: Reader, view: Any, window: Any, limit: int, *, named: str = "") -> Any:
        query = keyset(reader, view, window, limit, named=named)
        if window.after is None:
            return query
        column: Any = sa.column(view.cursor)
        return query.where(column > reader._bind(view, view.cursor, window.after.cursor, f"{named}bare"))

    patch.setattr(Reader, "_keyset", bare)


def count_what_is_there(patch: pytest.MonkeyPatch) -> None:
    """Add rows to the totals again when they are read again."""
    insert = ledger.insert

    def again(*given: Any, **named: Any) -> ledger.Inserted:
        inserted = insert(*given, **named)
        return replace(ledger._placed(*given), changed=inserted.changed)

    patch.setattr(ledger, "insert", again)


MUTATIONS: Final[dict[str, Callable[[pytest.MonkeyPatch], None]]] = {
    made.__name__: made
    for made in (
        *(no_sweep, seal_without_a_sweep, seal_at_once, seal_a_second_early, ask_for_no_gaps, miss_no_keys),
        *(resume_at_seen, bare_greater, count_what_is_there),
    )
}
