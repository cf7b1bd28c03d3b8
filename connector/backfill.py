"""History in ranges, resumable, through the same normalisers and THE transaction; safe beside the running daemon.

A job is a stream and its bounds; its ranges and each range's position stand in the store, so a job that was stopped
goes on where it was. Rows that are there already are left alone; players read here never overwrite a newer profile.
Everything it writes is history: players and totals change, destinations get no events unless they are asked for, and
then only such as are too old to trigger a campaign.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from connector import opening
from connector.errors import Halted, Misconfigured
from connector.position import SECOND, Position, Window, cursor_text, mark_of
from connector.store import feeds, lease as leases
from connector.store.commit import Batch, commit
from connector.streams import STREAMS
from connector.streams.contract import Context

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from connector.poller import Desk, Stream
    from connector.sources.reader import Page

#: One range spans about this much: small enough to show progress, large enough to be cheap.
_DAY: Final = 86_400 * SECOND
_IDS: Final = 200_000
_MOST_RANGES: Final = 200

#: Destination -> names of the events it is sent; empty: history sends none.
Subscriptions = dict[str, list[str]]


@dataclass(frozen=True)
class Range:
    """One stretch of a job, both bounds included, and how far it has come."""

    range_id: int
    since: str
    until: str
    at: Position | None


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    ranges: int
    ranges_done: int
    rows: int


def prepare(desk: Desk, stream: Stream, *, since: str | None, until: str | None, sends: bool = False) -> str:
    """Create the ranges of a job unless they are there; returns the job's name. `None` bounds: the view's own ends."""
    for text in filter(None, (since, until)):
        opening.refuse_unreadable(text, stream.view)
    job = f"{since or 'beginning'} to {until or 'history'}" + (", events sent" if sends else "")
    who = (desk.tenant, desk.source.name, stream.name, job)
    found = desk.connection.execute(
        "select count(*) from crm.backfill_ranges where (tenant, source, stream, job) = (%s, %s, %s, %s)", who
    ).fetchone()
    if found is not None and found[0]:
        return job
    bounds = _bounds(desk, stream, since, until)
    if bounds is not None:
        with desk.connection.cursor() as cursor:
            cursor.executemany(
                """
                insert into crm.backfill_ranges (tenant, source, stream, job, ordinal, from_cursor, until_cursor)
                values (%s, %s, %s, %s, %s, %s, %s)
                """,
                [(*who, ordinal, *bound) for ordinal, bound in enumerate(split(*bounds, kind=stream.binding.kind))],
            )
    return job


def run(
    desk: Desk,
    stream: Stream,
    job: str,
    *,
    send_to: Subscriptions,
    report: Callable[[Progress], None],
    stopped: Callable[[], bool],
) -> Progress:
    """Work through the job's open ranges in order until done or `stopped()`. Raises Transient: run it again."""
    progress = _progress(desk, stream, job)
    report(progress)
    for part in _open_ranges(desk, stream, job):
        at = part.at
        while not stopped():
            page = desk.reader.read(stream.view, Window(at, part.until, part.since), limit=stream.limit)
            _write(desk, stream, part, page, send_to)
            done = page.last is None  # only an empty page: one may be short because it was cut by bytes
            progress = Progress(progress.ranges, progress.ranges_done + done, progress.rows + page.frame.height)
            report(progress)
            if done:
                break
            at = page.last
    return progress


def split(since: str, until: str, *, kind: str) -> list[tuple[str, str]]:
    """Cut [since, until] into ranges that together cover it; neighbours share their bound, which is harmless. Pure."""
    first, last = (mark_of(text, "id" if kind == "id" else "time") for text in (since, until))
    step = max(_IDS if kind == "id" else _DAY, (last - first) // _MOST_RANGES + 1)
    inner = range(first + step, last, step)
    texts = [since, *(str(mark) if kind == "id" else cursor_text(mark, like=since) for mark in inner), until]
    return list(itertools.pairwise(texts))


def take_lease(
    connection: psycopg.Connection[Any], tenant: str, source: str, stream: str, *, purpose: str = "backfill"
) -> leases.Lease:
    """Take the lease of what a command does with this stream; raises Halted while another one does it."""
    lease = leases.acquire(connection, f"{tenant}/{purpose}:{source}:{stream}")
    if lease is None:
        raise Halted(f"another {purpose} of {stream} is running already", hint="wait for it, or stop it first")
    return lease


def open_stream(desk: Desk, name: str) -> Stream:
    """Bind the stream that is to be filled, with the daemon's own checkpoint."""
    if name not in desk.source.streams:
        known = ", ".join(desk.source.streams)
        raise Misconfigured(f"source {desk.source.name} has no stream {name!r}", hint=f"configured are: {known}")
    return opening.open_stream(desk, STREAMS[name], desk.source.streams[name], desk.reader.sample())


def _bounds(desk: Desk, stream: Stream, since: str | None, until: str | None) -> tuple[str, str] | None:
    """The ends of the job: the given ones, or the view's first row and the end of history.

    Never beyond the history: what is above is the daemon's to read, or its events would never reach a destination.
    """
    limit = stream.checkpoint.history_until
    first = desk.reader.read(stream.view, Window(None, None, since), limit=1).last
    if first is None or limit is None or first.mark > limit:
        return None
    end = str(limit) if stream.binding.kind == "id" else cursor_text(limit, like=first.cursor)
    if until is not None and mark_of(until, stream.binding.kind) < limit:
        end = until
    return (since or first.cursor, end)


def _open_ranges(desk: Desk, stream: Stream, job: str) -> list[Range]:
    rows = desk.connection.execute(
        """
        select range_id, from_cursor, until_cursor, at_cursor, at_key, at_mark from crm.backfill_ranges
        where (tenant, source, stream, job) = (%s, %s, %s, %s) and done_at is null order by ordinal
        """,
        (desk.tenant, desk.source.name, stream.name, job),
    ).fetchall()
    return [
        Range(range_id, since, until, None if cursor is None else Position(cursor, tuple(key), int(mark)))
        for range_id, since, until, cursor, key, mark in rows
    ]


def _progress(desk: Desk, stream: Stream, job: str) -> Progress:
    row = desk.connection.execute(
        """
        select count(*), count(done_at), coalesce(sum(rows), 0) from crm.backfill_ranges
        where (tenant, source, stream, job) = (%s, %s, %s, %s)
        """,
        (desk.tenant, desk.source.name, stream.name, job),
    ).fetchone()
    assert row is not None
    return Progress(int(row[0]), int(row[1]), int(row[2]))


def _write(desk: Desk, stream: Stream, part: Range, page: Page, send_to: Subscriptions) -> None:
    """Commit a page, its range's position and what destinations shall get of it in one transaction."""
    normalised = stream.binding.contract.normalise(
        page.frame, stream.binding, Context(all_history=True, rules=desk.rules)
    )

    def advance(connection: psycopg.Connection[Any]) -> None:
        for destination, names in send_to.items():
            keys = normalised.events["key"].to_list()
            feeds.park_history(connection, stream.checkpoint, destination, keys=keys, names=names)
        last = page.last
        connection.execute(
            """
            update crm.backfill_ranges set
                rows = rows + %s, at_cursor = coalesce(%s, at_cursor), at_key = coalesce(%s, at_key),
                at_mark = coalesce(%s, at_mark), done_at = case when %s then now() else done_at end
            where range_id = %s
            """,
            (
                *(page.frame.height, last.cursor if last else None, list(last.key) if last else None),
                *(last.mark if last else None, last is None, part.range_id),
            ),
        )

    batch = Batch(
        stream.checkpoint,
        normalised,
        production=False,
        after=advance,
    )
    commit(desk.connection, batch, rates=desk.rates, lease=desk.lease, keys=desk.keys)
