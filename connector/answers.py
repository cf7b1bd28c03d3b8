"""What a person can answer when a stream asks about its source, or answers without being asked.

Called by one-shot commands, beside a running daemon or without one: it notices the answer at its next commit, writes
nothing that it read before, and opens the stream again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connector import identity, opening
from connector.errors import Misconfigured, Transient
from connector.position import SECOND, cursor_text
from connector.store import answers, checkpoints
from connector.streams import STREAMS

if TYPE_CHECKING:
    from connector.identity import Look
    from connector.poller import Desk
    from connector.position import Position
    from connector.sources.reader import View
    from connector.store.checkpoints import Checkpoint
    from connector.streams.contract import Binding


@dataclass(frozen=True)
class Examined:
    """The server that answers now, and what it shows of the rows that were final. `known`: it is accepted already."""

    checkpoint: Checkpoint
    server: str
    found: Look
    known: bool

    @property
    def matches(self) -> bool:
        """Whether what was remembered speaks for the data; where nothing was, nothing does."""
        return self.found.verdict != "other" and (self.known or "same" in self.found.states)


@dataclass(frozen=True)
class Generation:
    """A generation that can begin: where it starts, how many rows it counts anew, and which of them are history."""

    checkpoint: Checkpoint
    binding: Binding
    position: Position | None
    server: str
    rows: int | None
    history_until: int | None
    history_text: str | None


def examine(desk: Desk, name: str) -> Examined:
    """Compare the server that answers now with what was read; changes nothing."""
    checkpoint, (binding, view) = _standing(desk, name), _bound(desk, name)
    opening.same_key(checkpoint, binding)
    sample = desk.reader.sample()
    known = checkpoints.landmarks(desk.connection, checkpoint)
    found = identity.look(desk, binding, view, checkpoint, sample, known)
    return Examined(checkpoint, sample.server, found, sample.server in checkpoint.servers)


def accept(desk: Desk, examined: Examined) -> None:
    """Read on from this server, generation and marks kept; what does not match is taken as it is."""
    answers.accept(desk.connection, examined.checkpoint, examined.server, forget=not examined.matches)


def wait(desk: Desk, name: str) -> None:
    """Stop asking: the stream waits until its source is what it was, and goes on by itself. Needs no source."""
    error = "waits: as answered, until the source holds the data that was read from it"
    answers.wait(desk.connection, _standing(desk, name), error)


def reset(desk: Desk, name: str, since: str | None) -> int | None:
    """Read again from a cursor value on, None: from the beginning. Returns how many rows, None where nobody can count.

    Goes back only: a mark that moved forward would leave rows out. The store ignores what it has, so totals stay.
    """
    checkpoint, position = _standing(desk, name), None
    if since is not None:
        binding, view = _bound(desk, name)
        opening.same_key(checkpoint, binding)
        opening.refuse_unreadable(since, view)
        position = opening.position_before(desk, view, since)
        if position is not None and (checkpoint.sealed is None or position.mark > checkpoint.sealed.mark):
            raise Misconfigured(
                f"stream {name} has not been read as far as {since}: rows before it would be left out",
                hint="reset goes back only; without --from it reads from the beginning",
            )
    rows = _count(desk, name, since)
    answers.reset(desk.connection, checkpoint, position)
    return rows


def prepare_generation(desk: Desk, name: str, since: str | None) -> Generation:
    """Look what a new generation would count, from a cursor value on or from the beginning; changes nothing.

    History in it is what happened up to the last row that the old generation had read as final: its events have been
    sent, or it was old then. What happened later is live, so its events reach the destinations. By a time cursor that
    is the old `seen` itself; by an id it is the last id whose business time is not later. Where neither is known all
    rows are live, and `max_age` keeps events of more than a day ago from being sent.
    """
    checkpoint, (binding, view) = _standing(desk, name), _bound(desk, name)
    if since is not None:
        opening.refuse_unreadable(since, view)
    position = opening.position_before(desk, view, since) if since is not None else None
    until = _history(desk, checkpoint, binding, view)
    rows = _count(desk, name, since)
    server = desk.reader.sample().server
    text = None if until is None else str(until) if view.kind == "id" else cursor_text(until, like="2026-01-01")
    return Generation(checkpoint, binding, position, server, rows, until, text)


def begin_generation(desk: Desk, generation: Generation) -> None:
    """Count its rows as new ones: under a new generation the same keys are other events."""
    answers.begin_generation(
        desk.connection,
        generation.checkpoint,
        generation.position,
        server=generation.server,
        cursor=generation.binding.cursor,
        key=generation.binding.key,
        history_until=generation.history_until,
    )


def _history(desk: Desk, checkpoint: Checkpoint, binding: Binding, view: View) -> int | None:
    if view.kind == "time":
        return checkpoint.seen.mark if checkpoint.seen else checkpoint.history_until
    landmarks = checkpoints.landmarks(desk.connection, checkpoint)
    second = next((mark.second for mark in landmarks if mark.second is not None), None)
    if second is None:
        return None
    last = opening.happened_until(desk, binding, view, (second + 1) * SECOND - 1000)
    return None if last is None else last.mark


def _count(desk: Desk, name: str, since: str | None) -> int | None:
    try:
        _, view = _bound(desk, name)
        return desk.reader.count_rows(view, since=since)
    except Transient:
        return None


def _standing(desk: Desk, name: str) -> Checkpoint:
    checkpoint = checkpoints.load(desk.connection, desk.tenant, desk.source.name, name)
    if checkpoint is None:
        raise Misconfigured(f"stream {name} has not started yet", hint="there is nothing to answer: `connector run`")
    return checkpoint


def _bound(desk: Desk, name: str) -> tuple[Binding, View]:
    return opening.bound(desk, STREAMS[name], desk.source.streams[name])
