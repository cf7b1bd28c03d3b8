"""Whether a source still holds the data that was read from it: asked at every opening, each minute, and after a cut.

A stream stops with a question only where going on could lose or double rows: at another server, and where what was
final is not there. A server that is merely behind is waited for, and a view that was made anew is bound anew.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import polars as pl
import structlog

from connector.errors import Halted, Waiting
from connector.landmark import Landmark, State, Verdict, judge, thinned, user_hash
from connector.position import LATEST, SECOND, Position, Window, cursor_text, mark_of
from connector.store import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.poller import Desk, Stream
    from connector.sources.dialect import Sample
    from connector.sources.reader import View
    from connector.store.checkpoints import Checkpoint
    from connector.streams.contract import Binding

#: So many landmarks are looked up each time; all of them when these leave a doubt.
_FIRST: Final = 4
#: So many rows at `sealed` become landmarks; the first time also some at growing distances (minutes, or tens of ids).
_ROWS: Final = 3
_DISTANCES: Final = tuple(8**power for power in range(7))
_UNITS: Final = {"time": 60 * SECOND, "id": 10}

log = structlog.get_logger()


@dataclass(frozen=True)
class Look:
    """What was found: the source's last row, and of each landmark that was asked for whether it is still there."""

    verdict: Verdict
    head: Position | None
    states: tuple[State, ...]

    def __str__(self) -> str:
        counts = Counter(self.states)
        told = f"{counts['same']} of {len(self.states)} remembered rows are there as they were"
        told += f", {counts['other']} have other content" if counts["other"] else ""
        told += f", {counts['gone']} are not there" if counts["gone"] else ""
        return f"{told}; the last row stands at {self.head.cursor}" if self.head else f"{told}; the view is empty"


def recognise(
    desk: Desk, binding: Binding, view: View, checkpoint: Checkpoint, sample: Sample, *, doubtful: bool = False
) -> str | None:
    """Compare the source with what was read. Returns what it lacks, in words, when it is merely behind.

    Raises Halted for a question that a person must answer, Waiting where the answer was to wait. What is final now is
    remembered for the next time.
    """
    if sample.server not in checkpoint.servers:
        message = f"this is another server ({sample.server}) than the one read so far ({', '.join(checkpoint.servers)})"
        raise _question(
            checkpoint,
            message,
            "`connector stream accept {}` if it holds the same data, else point the "
            "source back; `connector stream wait {}` waits for that",
        )
    known = checkpoints.landmarks(desk.connection, checkpoint)
    found = look(desk, binding, view, checkpoint, sample, known, doubtful=doubtful)
    if found.verdict == "other":
        raise _question(
            checkpoint,
            _told(view, checkpoint, found),
            "ids restarted, or an older backup came back: "
            "`connector stream new-generation {}` counts the rows that are there as new ones, "
            "`connector stream reset {}` reads them again as the old ones, `connector stream wait {}` "
            "waits until they are what they were, `connector stream accept {}` takes them as they are",
        )
    if checkpoint.answer is not None:
        checkpoints.clear_answer(desk.connection, checkpoint)
    if found.verdict == "same" and checkpoint.sealed is not None:
        _remember(desk, binding, view, checkpoint.sealed, sample, known, checkpoint)
        return None
    return None if checkpoint.sealed is None else _waits(checkpoint.sealed, found)


def check(desk: Desk, stream: Stream, sample: Sample, *, doubtful: bool) -> bool:
    """Look whether a running stream may go on as it is; False: open it again. Raises like `recognise`."""
    types = desk.reader.columns(stream.view.name)
    if types != stream.view.types:
        log.warning("view.changed", stream=stream.name, view=stream.view.name)
        return False
    checkpoint, before = replace(stream.checkpoint, sealed=stream.sealed), stream.waits
    stream.waits = recognise(desk, stream.binding, stream.view, checkpoint, sample, doubtful=doubtful)
    if stream.waits is not None and before is None:
        log.warning("stream.waits", stream=stream.name, reason=stream.waits)
    return _tip_is_there(desk, stream)


def _tip_is_there(desk: Desk, stream: Stream) -> bool:
    """Whether the row read last is what it was. Ids above `sealed` are held as numbers, so other rows look known."""
    if stream.tip is None:
        return True
    tip = _landmark(stream.tip, stream.binding, stream.view, None)
    if _states(desk, stream.binding, stream.view, [tip], by_key=False) == ("same",):
        return True
    log.warning("stream.read_again", stream=stream.name, reason="the row read last is gone, or another one")
    return False


def look(
    desk: Desk,
    binding: Binding,
    view: View,
    checkpoint: Checkpoint,
    sample: Sample,
    known: Sequence[Landmark],
    *,
    doubtful: bool = False,
) -> Look:
    """Look up the landmarks, the newest ones first, and judge by them."""
    head, sealed, moves = head_of(desk, view, sample), checkpoint.sealed, binding.contract.rewritten
    short = sealed is not None and (head is None or head.mark < sealed.mark)
    if not known or sealed is None:
        return Look("behind" if short else "same", head, ())
    reachable = [mark for mark in known if moves or not short or (head is not None and mark.mark <= head.mark)]
    lagging = None not in {sample.progress, known[0].progress} and sample.progress < known[0].progress  # type: ignore[operator]
    by_key = moves or doubtful
    states = _states(desk, binding, view, reachable[:_FIRST], by_key=by_key)
    if short or "same" not in states:
        states += _states(desk, binding, view, reachable[_FIRST:], by_key=by_key)
    return Look(judge(states, short=short, lagging=lagging, doubtful=doubtful, moves=moves), head, states)


def head_of(desk: Desk, view: View, sample: Sample) -> Position | None:
    """Return the last row that is not ahead of the source's clock: a row dated 2099 is nobody's head."""
    head = desk.reader.head(view)
    limit = sample.clock + int(desk.source.tolerance * SECOND)
    if head is None or view.kind == "id" or head.mark <= limit:
        return head
    example = cursor_text(limit, like=head.cursor)
    return desk.reader.head(view, column=view.cursor, until=example)


def _states(desk: Desk, binding: Binding, view: View, marks: Sequence[Landmark], *, by_key: bool) -> tuple[State, ...]:
    """Say of each landmark whether it is there. By key alone only where rows move or a doubt is worth a scan."""
    if not marks:
        return ()
    narrow, moves = _narrow(binding, view), binding.contract.rewritten
    names = view.key if by_key else tuple(dict.fromkeys((view.cursor, *view.key)))
    wanted = [{view.cursor: mark.cursor, **dict(zip(view.key, mark.key, strict=True))} for mark in marks]
    frame = pl.DataFrame(wanted, schema=dict.fromkeys((view.cursor, *view.key), pl.String)).select_seq(names)
    rows = desk.reader.read_named(narrow, frame.unique(maintain_order=True))
    found = {mark.key: mark for mark in _landmarks(rows, binding, narrow, None)}
    return tuple(mark.state(found.get(mark.key), moves=moves) for mark in marks)


def _remember(
    desk: Desk,
    binding: Binding,
    view: View,
    sealed: Position,
    sample: Sample,
    known: Sequence[Landmark],
    checkpoint: Checkpoint,
) -> None:
    """Keep the rows at `sealed`, and the first time some of all ages: a server that is behind has only the old ones."""
    if known and known[0].mark >= sealed.mark:
        return
    narrow = _narrow(binding, view)
    frames = [desk.reader.newest(narrow, column=view.cursor, until=sealed.cursor, limit=_ROWS)]
    if not known and abs(sealed.mark) < LATEST:
        frames.append(desk.reader.read(narrow, Window(None, sealed.cursor), limit=1).frame)
        first = mark_of(frames[-1][view.cursor][0], view.kind) if frames[-1].height else sealed.mark
        older = [sealed.mark - distance * _UNITS[view.kind] for distance in _DISTANCES]
        for mark in (mark for mark in older if mark > first):
            until = str(mark) if view.kind == "id" else cursor_text(mark, like=sealed.cursor)
            frames.append(desk.reader.newest(narrow, column=view.cursor, until=until))
    rows = pl.concat([frame for frame in frames if frame.height] or [frames[0]])
    marks = thinned([*known, *_landmarks(rows, binding, narrow, sample.progress)])
    checkpoints.set_landmarks(desk.connection, checkpoint, marks)


def _narrow(binding: Binding, view: View) -> View:
    columns = binding.columns
    told = (columns.get("user_ext_id", view.cursor), columns[binding.contract.business_time])
    return replace(view, columns=tuple(dict.fromkeys((view.cursor, *view.key, *told))))


def _landmarks(rows: pl.DataFrame, binding: Binding, view: View, progress: int | None) -> list[Landmark]:
    return [_landmark(row, binding, view, progress) for row in rows.iter_rows(named=True)]


def _landmark(row: Mapping[str, str | None], binding: Binding, view: View, progress: int | None) -> Landmark:
    cursor, key = row[view.cursor] or "", tuple(row[name] or "" for name in view.key)
    business = row[binding.columns[binding.contract.business_time]]
    second = None if business is None else mark_of(business, "time") // SECOND
    user = user_hash(row.get(binding.columns.get("user_ext_id", "")))  # rates are nobody's
    return Landmark(cursor, key, mark_of(cursor, view.kind), user, second, progress)


def _question(checkpoint: Checkpoint, message: str, hint: str) -> Halted:
    """Return what stops a stream: the question, or the wait that a person has answered it with."""
    name = checkpoint.stream
    if checkpoint.answer == "wait":
        return Waiting(
            f"waits: stream {name}: {message}",
            hint=f"`connector stream wait {name}` was given: it goes on by itself when the data is back",
        )
    return Halted(f"stream {name}: {message}", hint=hint.replace("{}", name))


def _told(view: View, checkpoint: Checkpoint, found: Look) -> str:
    assert checkpoint.sealed is not None
    end = f"ends at {found.head.cursor}" if found.head else "is empty"
    if found.head is None or found.head.mark < checkpoint.sealed.mark:
        return f"{view.name} {end}, though it was complete up to {checkpoint.sealed.cursor}; {found}"
    return f"the rows of {view.name} are not those that were read: {found}"


def _waits(sealed: Position, found: Look) -> str:
    end = f"ends at {found.head.cursor}" if found.head else "shows nothing"
    return (
        f"waits: the source {end}, and rows up to {sealed.cursor} have been read from it: it is behind, or its newest "
        "rows were deleted; nothing is lost, and reading goes on"
    )
