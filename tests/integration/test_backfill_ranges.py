"""Ranges that split, workers that share them, stops and kills in between: every row is in the store exactly once."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import app as application, audit, backfill
from connector.errors import Halted, LeaseLost, Transient
from connector.sources.reader import Page, Reader
from connector.store import lease as leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.backfill import Progress
    from connector.poller import Desk

House = Any
WORKERS: Final = 3
PAGE_ROWS: Final = 3
BEGAN: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)


class KilledError(Exception):
    """Stands for the end of the process: nothing after it is done."""


class Filler:
    """A house whose deposits are history, and desks that stay open, so that many jobs can be run over it."""

    def __init__(self, house: House, desks: list[Desk]) -> None:
        self.house, self.desks = house, desks

    def begin(self, stamps: list[int]) -> None:
        """Make deposits of these seconds, in an empty house and an empty store."""
        self.house.operator.execute("delete from deposits_rows")
        times = [BEGAN + timedelta(seconds=second) for second in stamps]
        rows = [(f"d{number}", "kaasino", "7", at, at, "10.00", "EUR") for number, at in enumerate(times)]
        self.house.operator.fill("deposits_rows", rows)
        self.house.look("truncate crm.event_rows, crm.backfill_ranges, crm.checkpoints, crm.player_money")
        self.house.look("update crm.players set total_deposited = 0, deposit_count = 0")

    def fill(self, *, workers: int = 1, pages: float = float("inf")) -> Progress:
        """Run the job, stopped after so many pages."""
        done = itertools.count()
        desk, *others = self.desks[:workers]
        stream = backfill.open_stream(desk, "deposits")
        job = backfill.prepare(desk, stream, since=None, until=None)
        reported = iter(lambda: next(done), None)
        seen = 0

        def report(_: Progress) -> None:
            nonlocal seen
            seen = next(reported)

        return backfill.run(
            *(desk, stream, job),
            send_to={},
            report=report,
            stopped=lambda: seen >= pages,
            others=others,
        )

    @property
    def stored(self) -> Counter[str]:
        """The deposits in the store."""
        return Counter(self.house.stored("deposits"))

    @property
    def counted(self) -> int:
        """How many deposits the totals know of."""
        return int(self.house.look("select coalesce(sum(deposit_count), 0) from crm.players")[0][0])


@pytest.fixture
def filler(house_on: Callable[[str], House], monkeypatch: pytest.MonkeyPatch) -> Iterator[Filler]:
    """Give a filler with three workers' desks, pages of three rows, and ranges that hold eight."""
    house = house_on("postgresql")
    house.source |= {"page_rows": PAGE_ROWS, "streams": {"deposits": {}}}
    monkeypatch.setattr(backfill, "MOST_ROWS", 8)
    with application.desks(house.settings, source=None, stream="deposits", workers=WORKERS) as desks:
        yield Filler(house, desks)


#: A few crowds, each on one second or on some in a row, and some rows far from all others.
crowds = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 10), st.integers(8, 20), st.sampled_from([0, 1])).map(
            lambda crowd: [crowd[0] + number * crowd[2] for number in range(crowd[1])]
        ),
        st.integers(0, 10**6).map(lambda second: [second]),
    ),
    max_size=4,
).map(lambda parts: [second for part in parts for second in part])
ends = st.sampled_from(
    ["stop", "killed before a commit", "killed after a commit", "the source fails", "not understood"]
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stamps=crowds,
    attempts=st.lists(st.tuples(ends, st.integers(1, 6), st.integers(1, WORKERS)), max_size=4),
    workers=st.integers(1, WORKERS),
)
def test_every_row_is_stored_once_whatever_splits_stops_and_kills(
    filler: Filler, stamps: list[int], attempts: list[tuple[str, int, int]], workers: int
) -> None:
    """Ties are wider than pages and ranges, and each attempt ends somewhere else; the last one is let through."""
    filler.begin(stamps)
    for how, when, many in attempts:
        with pytest.MonkeyPatch.context() as patch:
            _break(patch, how, when)
            with suppress(KilledError, Transient):
                filler.fill(workers=many, pages=when if how == "stop" else float("inf"))
        assert max(filler.stored.values(), default=1) == 1
    done = filler.fill(workers=workers)
    assert done.done
    assert filler.stored == Counter(f"d{number}" for number in range(len(stamps)))
    assert filler.counted == len(stamps)
    assert filler.fill(workers=workers) == done


def _break(patch: pytest.MonkeyPatch, how: str, when: int) -> None:
    """Have the so-many-th page end the attempt, in one of several ways."""
    if how == "the source fails":
        patch.setattr(Reader, "read", _failing(Reader.read, when, before=True, error=Transient("a cut")))
    elif how == "not understood":
        patch.setattr(backfill, "draft", _failing(backfill.draft, when, before=True, error=KilledError()))
    elif how != "stop":
        before = how == "killed before a commit"
        patch.setattr(backfill, "commit", _failing(backfill.commit, when, before=before, error=KilledError()))


def _failing(real: Callable[..., Any], when: int, *, before: bool, error: Exception) -> Callable[..., Any]:
    """Wrap a function: from its so-many-th call on it fails, before or after it has done its work."""
    calls = itertools.count(1)

    def failing(*arguments: Any, **named: Any) -> Any:
        fails = next(calls) >= when
        if fails and before:
            raise error
        result = real(*arguments, **named)
        if fails:
            raise error
        return result

    return failing


def test_a_range_that_holds_too_much_is_cut_while_it_is_read(filler: Filler) -> None:
    """A crowd within one second, then one row a day: no range holds many more rows than it may."""
    filler.begin([*range(40), *(86_400 * day for day in range(1, 10))])
    done = filler.fill()
    assert sum(filler.stored.values()) == 49
    rows = [row for (row,) in filler.house.look("select rows from crm.backfill_ranges order by ordinal")]
    assert (done.share, sum(rows)) == (1.0, done.rows)
    assert max(rows) <= 8 + PAGE_ROWS
    assert done.ranges == len(rows) > 5


def test_a_range_that_was_cut_among_tied_rows_promises_none_of_them(filler: Filler) -> None:
    """Until what is left of it has been read too, an audit must not miss them."""
    filler.begin([5] * 20 + [90])
    filler.fill(pages=3)
    assert sum(filler.stored.values()) == 9
    assert filler.house.look("select count(*) from crm.backfill_ranges where done_at is not null") == [(1,)]
    stream = backfill.open_stream(filler.desks[0], "deposits")
    stream = _sealed_far_ahead(filler, stream)
    assert audit.promised(filler.desks[0], stream) == []
    filler.fill()
    (whole,) = audit.promised(filler.desks[0], stream)
    assert audit.Audit(filler.desks[0], stream, "command", [whole], repair=False).run().rows == 21


def _sealed_far_ahead(filler: Filler, stream: Any) -> Any:
    """Return a stream that began above all of its rows, and is sealed there."""
    last = filler.desks[0].reader.head(stream.view)
    assert last is not None
    point = replace(stream.checkpoint, sealed=last, started=last.mark)
    return replace(stream, sealed=last, checkpoint=point)


def test_workers_share_the_ranges_of_a_job(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits in its first commit for the others: one alone would wait for ever."""
    filler.begin([86_400 * day for day in range(48)])
    together, real, met = threading.Barrier(WORKERS), backfill.commit, threading.local()

    def meeting(*arguments: Any, **named: Any) -> Any:
        if not getattr(met, "once", False):
            met.once = True
            together.wait(20)
        return real(*arguments, **named)

    monkeypatch.setattr(backfill, "commit", meeting)
    assert filler.fill(workers=WORKERS).done
    assert sum(filler.stored.values()) == filler.counted == 48


def test_what_ends_one_worker_ends_the_others(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ranges that will not be put back; the reason is told, and the next run goes on."""
    filler.begin([86_400 * day for day in range(48)])
    with monkeypatch.context() as patch:
        _break(patch, "killed before a commit", 3)
        with pytest.raises(KilledError):
            filler.fill(workers=WORKERS)
    assert sum(filler.stored.values()) <= 2 * PAGE_ROWS  # a page that only ends its range holds none
    assert filler.house.look("select sum(rows) from crm.backfill_ranges") == [(sum(filler.stored.values()),)]
    assert filler.fill(workers=WORKERS).done
    assert sum(filler.stored.values()) == 48


def test_a_failure_ends_the_wait_for_what_a_range_leaves(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page after a range's last one waits for that to be committed, which now never happens."""
    filler.begin([0, 1])
    with monkeypatch.context() as patch:
        _break(patch, "not understood", 2)
        with pytest.raises(KilledError):
            filler.fill()
    assert filler.fill().done
    assert sum(filler.stored.values()) == filler.counted == 2


def test_the_next_page_is_read_while_the_last_is_committed(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commit waits for the second read: one after the other, they would wait for ever."""
    filler.begin(list(range(20)))
    read, commit, begun, reads = Reader.read, backfill.commit, threading.Event(), itertools.count(1)

    def counted(reader: Reader, *arguments: Any, **named: Any) -> Any:
        if named["limit"] > 1 and next(reads) > 1:
            begun.set()
        return read(reader, *arguments, **named)

    def waiting(*arguments: Any, **named: Any) -> Any:
        assert begun.wait(20), "the next page is not read before this one is committed"
        return commit(*arguments, **named)

    monkeypatch.setattr(Reader, "read", counted)
    monkeypatch.setattr(backfill, "commit", waiting)
    assert filler.fill().done


def test_failures_of_the_source_are_waited_out_with_smaller_pages(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby conflict costs a page, not the night; what does not pass is told."""
    filler.begin(list(range(20)))
    monkeypatch.setattr(backfill, "backoff", lambda _: 0.0)
    read, calls, desk = Reader.read, itertools.count(1), filler.desks[0]

    def failing(*arguments: Any, **named: Any) -> Page:
        if next(calls) in {3, 4, 7}:
            raise Transient("canceling statement due to conflict with recovery")
        return read(*arguments, **named)

    stream = backfill.open_stream(desk, "deposits")
    job = backfill.prepare(desk, stream, since=None, until=None)
    monkeypatch.setattr(Reader, "read", failing)
    nothing = {"send_to": {}, "report": lambda _: None, "stopped": lambda: False}
    with pytest.raises(Transient):
        backfill.run(desk, stream, job, **nothing, patience=1)
    assert backfill.run(desk, stream, job, **nothing, patience=2).done
    assert sum(filler.stored.values()) == 20


def test_a_page_that_ends_where_it_began_stops_the_job(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing would ever be done; the message says what to look at."""
    filler.begin(list(range(9)))
    desk = filler.desks[0]
    stream = backfill.open_stream(desk, "deposits")
    job = backfill.prepare(desk, stream, since=None, until=None)
    first = desk.reader.read(stream.view, backfill.Window(None, None), limit=3)
    monkeypatch.setattr(Reader, "read", lambda *_, **__: first)
    with pytest.raises(Halted, match="makes no progress"):
        backfill.run(desk, stream, job, send_to={}, report=lambda _: None, stopped=lambda: False)


def test_every_worker_writes_under_the_lease(filler: Filler) -> None:
    """A successor ends all of their backends, and none of them writes any more."""
    filler.begin(list(range(20)))
    backends = {desk.connection.info.backend_pid for desk in filler.desks}
    ((pids,),) = filler.house.look("select pids from crm.leases where name like '%/backfill:%'")
    assert set(pids) == backends
    name = filler.desks[0].lease.name
    filler.house.look(f"update crm.leases set expires_at = '-infinity', pids = '{{}}' where name = '{name}'")
    with psycopg.connect(filler.house.store.url, autocommit=True, application_name="connector") as other:
        assert leases.acquire(other, name, holder="another process") is not None
        for desk in filler.desks:
            stream = backfill.open_stream(desk, "deposits")
            job = backfill.prepare(desk, stream, since=None, until=None)
            with pytest.raises(LeaseLost):
                backfill.run(desk, stream, job, send_to={}, report=lambda _: None, stopped=lambda: False)
    assert filler.stored == Counter()
