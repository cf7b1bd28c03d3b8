"""The trailing looks at (sealed, seen]: they find what the tail could not see yet, and the last of them seals.

A row can become visible after the tail has passed its cursor (it was stamped, or its id drawn, before its transaction
committed). So every stretch is looked at again when its rows are 5 seconds, 30 seconds and `lateness` old. A look reads
the key columns alone, or of ids only the gaps; what is not held yet is fetched whole and committed. The last look is
taken beyond the horizon, where nothing can appear any more: the mark moves in the transaction that holds its finds.
No completed look, no sealing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl

from connector import clock, poller
from connector.held import Gaps, Keys, Pass
from connector.position import SECOND, Position, Window, cursor_text
from connector.sources.reader import Page, position_at
from connector.store import checkpoints
from connector.store.checkpoints import Advance

if TYPE_CHECKING:
    from connector.poller import Desk, Stream

#: Seconds: the ages at which rows are looked at again before they are final.
AGES: Final = (5.0, 30.0)
#: A look waits until this share of its age has passed since the one before.
_SHARE: Final = 2
#: ... of a coarse cursor's tick: a DATE column makes every look read the whole day again.
_TICK_SHARE: Final = 1440
_SEAL_SHARE: Final = 8
_LONGEST_WAIT: Final = 15.0
#: More rows than this are not asked for one by one: the whole page is read.
_SINGLY: Final = 400
_GAPS_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Swept:
    """What one page of a look did: rows read again, rows found late, and whether more of it is left.

    No late row came later than `age` seconds; `widened`: the window is that long since then.
    """

    age: float
    rows: int = 0
    late: int = 0
    more: bool = False
    widened: float | None = None


@dataclass(frozen=True)
class _Look:
    """One page of a look: rows read, the whole rows that were missing, where it ended, whether that was its end."""

    rows: int
    missing: pl.DataFrame
    last: Position | None
    done: bool


_NOTHING: Final = _Look(0, pl.DataFrame(), None, done=True)


def run_once(desk: Desk, stream: Stream, *, progress: int, final: int | None) -> list[Swept]:
    """Do one page of each look that is due, oldest rows first. `final` and `progress` were sampled before this call."""
    if stream.seen is None or stream.rereading:
        return []
    swept = []
    for age in [stream.lateness, *reversed(ages(desk.source.lateness, stream.lateness))]:
        state = stream.passes.setdefault(age, Pass())
        if clock.monotonic() >= state.due:
            target = (
                final if age == stream.lateness else stream.horizon.settled(progress=progress, age=int(age * SECOND))
            )
            swept.append(_run(desk, stream, age, state, target))
    return swept


def ages(configured: float, window: float) -> list[float]:
    """Return the ages before the last look, in seconds: 5, 30, and the doublings that a widened window leaves below."""
    doublings = [configured]
    while doublings[-1] * 2 < window:
        doublings.append(doublings[-1] * 2)
    return [age for age in (*AGES, *(age for age in doublings if age > AGES[-1])) if age < window]


def _run(desk: Desk, stream: Stream, age: float, state: Pass, target: int | None) -> Swept:
    """Take one page of one look; a finished one rests."""
    assert stream.seen is not None
    low, final = stream.sealed.mark if stream.sealed else None, age == stream.lateness
    looked = not final and state.reached is not None and (low is None or state.reached >= low)
    low = state.reached if looked else low
    if state.target is None and target is not None:
        more = 0 if final else max(0, stream.horizon.tick - 1)  # rows can still come into the tick of `seen`
        state.target = min(target, stream.seen.mark + more)
    if state.target is None or stream.sealed == stream.seen or (low is not None and state.target < low + looked):
        _rest(stream, age, state, low)  # rows tied with `sealed` may stand behind it
        return Swept(age)
    if isinstance(stream.held, Gaps):
        look = _look_at_gaps(desk, stream, stream.held, state.at.mark if state.at else low, state.target)
    else:
        look = _look_at_keys(desk, stream, stream.held, state, low)
    swept = _commit(desk, stream, age, look)
    state.at = look.last
    if look.done:
        _rest(stream, age, state, state.target)
    return swept


def _rest(stream: Stream, age: float, state: Pass, reached: int | None) -> None:
    """End a look: the next one begins where it came to, when enough has come together to be worth it."""
    final = age == stream.lateness
    coarse = stream.horizon.tick / SECOND / _TICK_SHARE
    state.due = clock.monotonic() + max(coarse, 0.5, min(_LONGEST_WAIT, age / (_SEAL_SHARE if final else _SHARE)))
    state.reached, state.target, state.at = (None if final else reached), None, None


def _look_at_gaps(desk: Desk, stream: Stream, held: Gaps, low: int | None, target: int) -> _Look:
    """Ask for the ids that were not there; whatever answers has come late."""
    gaps = held.within(low, target)
    asked = gaps[:_GAPS_AT_ONCE]
    ranges = [(None if gap.low is None else str(gap.low), str(gap.high)) for gap in asked]
    page = (
        desk.reader.read_ranges(stream.view, ranges, limit=stream.limit) if asked else Page(pl.DataFrame(), None, False)
    )
    if page.full:
        return _Look(page.frame.height, page.frame, page.last, done=False)
    done = len(gaps) == len(asked)
    end = target if done else asked[-1].high
    return _Look(page.frame.height, page.frame, Position(str(end), (str(end),), end), done)


def _look_at_keys(desk: Desk, stream: Stream, held: Keys, state: Pass, low: int | None) -> _Look:
    """Read the key columns of the stretch, and whole those rows that are not held."""
    assert state.target is not None
    view, narrow = stream.view, replace(stream.view, columns=held.columns)
    window = Window(state.at or stream.sealed, _text(stream, state.target), _text(stream, low, start=True))
    page = desk.reader.read(narrow, window, limit=stream.limit)
    if page.last is None:
        return _NOTHING
    first = position_at(page.frame, narrow, 0).mark
    absent = held.absent(page.frame, min(first, page.last.mark), max(first, page.last.mark))
    if narrow != view and absent.height > _SINGLY:
        whole = desk.reader.read(view, window, limit=page.frame.height)
        return _Look(whole.frame.height, whole.frame, whole.last, done=whole.last is None)
    if narrow != view and absent.height:
        absent = desk.reader.read_rows(view, absent)
    return _Look(page.frame.height, absent, page.last, done=not page.full)


def _text(stream: Stream, mark: int | None, *, start: bool = False) -> str | None:
    """Write a mark as a cursor; `start`: of the tick in which it lies, since more rows can have come into that."""
    if mark is None or stream.view.kind == "id":
        return None if mark is None else str(mark)
    tick = max(1, stream.horizon.tick)
    return cursor_text(mark // tick * tick if start else mark, like=poller.like(stream))


def _commit(desk: Desk, stream: Stream, age: float, look: _Look) -> Swept:
    """Write what was missing and, after the last look, the seal, in one transaction."""
    sealed = look.last if age == stream.lateness else None
    if look.missing.is_empty() and sealed is None:
        return Swept(age, look.rows, more=not look.done)
    committed = poller.write_late(desk, stream, look.missing, Advance(sealed=sealed))
    if sealed is not None:
        poller.seal(stream, sealed)
    late = look.missing.height if stream.binding.contract.rewritten else committed.events
    widened = _widen(desk, stream, age) if late else None
    if late:
        checkpoints.note_late(desk.connection, stream.checkpoint, rows=late, lateness=widened)
    return Swept(age, look.rows, late, more=not look.done, widened=widened)


def _widen(desk: Desk, stream: Stream, age: float) -> float | None:
    """Keep the window twice as long as the latest row needed, within `lateness_max`; returns its new length."""
    wanted = min(desk.source.lateness_max, 2 * age)
    if wanted <= stream.lateness:
        return None
    keep_window(stream, wanted)
    return wanted


def keep_window(stream: Stream, lateness: float) -> None:
    """Look back over a window of this many seconds from now on; every look begins again at `sealed`."""
    if lateness != stream.lateness:
        stream.lateness = lateness
        stream.passes.clear()
