"""Rows of the quarantine, once more: read by key from the view, and through the same path as any other page.

A row that makes it leaves the quarantine in the transaction that stores it. Called by a one-shot command, beside the
running daemon; a player read here never overwrites a newer profile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.position import SECOND, mark_of
from connector.store import quarantine
from connector.store.commit import Batch, commit
from connector.streams.contract import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg

    from connector.poller import Desk, Stream
    from connector.store.quarantine import Entry, Selection

_PAGE: Final = 500
_AHEAD: Final = "dated ahead of the source's clock"

Key = tuple[str, ...]


@dataclass
class Retried:
    """What became of the entries: those that made it, and of the others the ids and why.

    `failing` counts by (reason, field). `gone`: no such row with a cursor at the source. `unreadable`: the entry does
    not hold the key columns of the view.
    """

    asked: int = 0
    made: int = 0
    failing: Counter[tuple[str, str]] = field(default_factory=Counter)
    gone: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """How many did not make it."""
        return self.asked - self.made


@dataclass(frozen=True)
class _Read:
    """The rows that are there now: due ones with what refuses them, by row key, and those ahead of the clock."""

    due: set[Key]
    ahead: set[Key]
    refusals: dict[str, list[tuple[str, str, bool]]]


def run(desk: Desk, stream: Stream, selection: Selection, *, report: Callable[[Retried], None]) -> Retried:
    """Retry the selected entries of one stream, page by page; what was inserted meanwhile is left for the next time."""
    done, after = Retried(), 0
    until = quarantine.newest_id(desk.connection, desk.tenant)
    while entries := quarantine.page(desk.connection, desk.tenant, selection, after=after, until=until, limit=_PAGE):
        after = entries[-1].entry_id
        _retry(desk, stream, entries, done)
        report(done)
    return done


def _retry(desk: Desk, stream: Stream, entries: list[Entry], done: Retried) -> None:
    keys = {entry.entry_id: key for entry in entries if (key := _key(entry, stream)) is not None}
    done.asked += len(entries)
    done.unreadable += [entry.entry_id for entry in entries if entry.entry_id not in keys]
    if not keys:
        return
    wanted = pl.DataFrame(sorted(set(keys.values())), schema=dict.fromkeys(stream.view.key, pl.String), orient="row")
    due, ahead = _split(desk, stream, desk.reader.read_named(stream.view, wanted))
    context = Context(stream.checkpoint.history_until, rules=desk.rules)
    normalised = stream.binding.contract.normalise(due, stream.binding, context)
    refusals: dict[str, list[tuple[str, str, bool]]] = {}
    for row_key, *told in normalised.rejections.select_seq("row_key", "reason", "field", "kept").iter_rows():
        refusals.setdefault(row_key or "", []).append((told[0], told[1] or "", told[2]))
    read = _Read(_keys(due, stream), _keys(ahead, stream), refusals)
    solved = [
        entry.entry_id
        for entry in entries
        if entry.entry_id in keys and _settle(entry, keys[entry.entry_id], read, stream, done)
    ]
    if due.is_empty():
        return

    def leave(connection: psycopg.Connection[Any]) -> None:
        quarantine.delete(connection, solved)

    batch = Batch(
        stream.checkpoint,
        normalised,
        production=False,
        after=leave,
    )
    commit(desk.connection, batch, rates=desk.rates, lease=desk.lease, keys=desk.keys)


def _settle(entry: Entry, key: Key, read: _Read, stream: Stream, done: Retried) -> bool:
    """Count what became of an entry; True: it leaves, because its row made it or is refused for another reason now."""
    if key in read.ahead:
        done.failing[_AHEAD, stream.view.cursor] += 1
        return False
    if key not in read.due:
        done.gone.append(entry.entry_id)
        return False
    refusals = read.refusals.get(entry.row_key, [])
    same = (entry.reason, entry.field) in {(reason, name) for reason, name, _ in refusals}
    refused = next(((reason, name) for reason, name, kept in refusals if not kept), None)
    if same:
        done.failing[entry.reason, entry.field] += 1
    elif refused is not None:
        done.failing[refused] += 1
    else:
        done.made += 1
    return not same


def _key(entry: Entry, stream: Stream) -> Key | None:
    """Return the texts of the row's key, None where the entry does not have them (reason `changed` keeps no row)."""
    texts = [entry.raw.get(name) for name in stream.view.key]
    found = tuple(text for text in texts if isinstance(text, str) and text)
    return found if len(found) == len(texts) else None


def _split(desk: Desk, stream: Stream, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Separate rows that the tail may read from those it does not read yet."""
    if stream.view.kind == "id" or rows.is_empty():
        return rows, rows.clear()
    limit = desk.reader.sample().clock + int(desk.source.tolerance * SECOND)
    ahead = pl.Series([mark_of(text, "time") > limit for text in rows[stream.view.cursor]], dtype=pl.Boolean)
    return rows.filter(~ahead), rows.filter(ahead)


def _keys(rows: pl.DataFrame, stream: Stream) -> set[Key]:
    found: Iterable[Key] = rows.select_seq(stream.view.key).iter_rows()
    return set(found)
