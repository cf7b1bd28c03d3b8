"""How gently history is read: nothing is asked before its turn, and nothing while the replica is behind."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import given, strategies as st

from connector import app as application, backfill, gate
from connector.budget import Terms
from connector.gate import Gate, StoppedError
from connector.position import SECOND
from connector.sources import lag
from connector.sources.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

House = Any
NOON: Final = 12 * 3600 * SECOND


class FakeClock:
    """A clock that moves when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@contextlib.contextmanager
def fake_clock() -> Iterator[FakeClock]:
    """Give the gate a clock of its own."""
    made = FakeClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "clock", made)
        yield made


@given(
    st.floats(0.05, 1.0),
    st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=2, max_size=15),
    st.floats(0.0, 0.05),
)
def test_looks_and_queries_together_keep_the_budget(
    busy: float, queries: list[tuple[float, float]], look: float
) -> None:
    """From the start of any query to the start of a later one; looking at the lag is query time, too."""
    asked: list[tuple[float, float]] = []
    with fake_clock() as clock:
        gated = Gate(Terms(busy))

        def looked() -> tuple[int, float | None]:
            asked.append((clock.now, look))
            clock.now += look
            return NOON, None

        for took, idle in queries:
            clock.now += idle
            with gated.turn(looked):
                asked.append((clock.now, took))
                clock.now += took
    for first in range(len(asked)):
        for last in range(first + 1, len(asked)):
            spent = sum(took for _, took in asked[first:last])
            assert spent <= busy * (asked[last][0] - asked[first][0]) + 1e-6


def test_rows_are_held_to_their_rate() -> None:
    with fake_clock() as clock:
        gated, began = Gate(Terms(rate=100.0)), clock.now
        for _ in range(11):
            with gated.turn(lambda: (NOON, 0.0)):
                gated.read(50)
        assert clock.now - began >= 10 * 50 / 100.0


def test_nothing_is_asked_while_the_replica_lags_or_falls_behind() -> None:
    """Too far behind, then further than before; it goes on when it catches up, and says why it waits."""
    lags, told = iter([0.0, 31.0, 33.0, 29.0, 29.5, 29.4]), []
    with fake_clock():
        gated = Gate(Terms(max_lag=30.0))
        used = list[float]()

        def look() -> tuple[int, float | None]:
            told.append(gated.waits)
            used.append(next(lags))
            return NOON, used[-1]

        with gated.turn(look):
            assert used == [0.0]
        gate.clock.sleep(2.0)
        with gated.turn(look):
            assert used == [0.0, 31.0, 33.0, 29.0]
        gate.clock.sleep(2.0)
        with gated.turn(look):
            assert used[4:] == [29.5, 29.4]
    assert told == [
        None,
        None,
        "the replica lags by 31 s",
        "the replica lags by 33 s",
        None,
        "the replica lags by 30 s",
    ]


def test_nothing_is_asked_outside_of_the_hours() -> None:
    """By the source's own clock."""
    with fake_clock() as clock:
        gated, began = Gate(Terms(hours=(12 * 60 + 30, 13 * 60))), clock.now

        def look() -> tuple[int, float | None]:
            return NOON + int((clock.now - began) * SECOND), None

        with gated.turn(look):
            assert 1800 <= clock.now - began < 1800 + 61
            assert gated.waits is None


def test_a_stop_ends_every_wait_and_gives_the_turn_back() -> None:
    """A command that waits for its hours, for the replica or for its share ends as soon as any other."""
    with fake_clock():
        calls = itertools.count()
        gated = Gate(Terms(max_lag=30.0), stopped=lambda: next(calls) > 3)
        with pytest.raises(StoppedError), gated.turn(lambda: (NOON, 99.0)):
            pytest.fail("the replica is behind")
        gated.stopped = lambda: False
        gate.clock.sleep(2.0)
        with gated.turn(lambda: (NOON, 0.0)):
            pass


def test_as_many_sessions_are_at_work_as_the_budget_has_room_for() -> None:
    """One more waits for a turn."""
    gated = Gate(Terms(busy=2.0))

    def look() -> tuple[int, float | None]:
        return NOON, 0.0

    with gated.turn(look), gated.turn(look):
        calls = itertools.count()
        gated.stopped = lambda: next(calls) > 0
        with pytest.raises(StoppedError), gated.turn(look):
            pytest.fail("there is no third turn")


def test_history_is_loaded_when_the_replica_has_caught_up(
    house_on: Callable[[str], House], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is read before, and the rate bounds the first page already."""
    house, lags, limits = house_on("postgresql"), iter([90.0, 80.0, 0.0]), list[int]()
    house.deposits(1, 20)
    monkeypatch.setattr(gate, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lag, "told", lambda *_: next(lags, 0.0))
    read = Reader.read

    def watched(*arguments: Any, **named: Any) -> Any:
        assert next(lags, None) is None, "a page is read while the replica lags"
        limits.append(named["limit"])
        return read(*arguments, **named)

    gated = Gate(Terms(rate=4.0, max_lag=30.0))
    gated.flow.rate = 4000.0  # nobody has the time
    with application.desks(house.settings, source=None, stream="deposits", gate=gated) as (desk,):
        stream = backfill.open_stream(desk, "deposits")
        monkeypatch.setattr(desk.reader, "read", lambda *args, **named: watched(desk.reader, *args, **named))
        job = backfill.prepare(desk, stream, since=None, until=None)
        done = backfill.run(desk, stream, job, send_to={}, report=lambda _: None, stopped=lambda: False)
    assert (done.done, len(house.stored("deposits"))) == (True, 20)
    assert max(limits) == 4


def test_a_server_says_how_far_it_is_behind(operator: Any) -> None:
    """One that follows nobody is not behind; a standby that has replayed everything is not either."""
    reader = Reader(operator.url, source="casino")
    operator.settle()
    try:
        assert reader.ask(lambda connection: lag.told(connection, reader.dialect.name)) in {0.0, None}
        assert reader.connections == 1
    finally:
        reader.close()


@pytest.mark.parametrize("operator", ["standby"], indirect=True)
def test_a_standby_whose_replay_stands_is_behind(operator: Any, wait: Callable[..., Any]) -> None:
    """Until it goes on."""
    standby = f"{operator.owner.rpartition('@')[0]}@{operator.url.rpartition('@')[2]}"
    operator.execute("create table written (c bigint)")
    reader = Reader(operator.url, source="casino")

    def behind() -> float:
        return reader.ask(lambda connection: lag.told(connection, reader.dialect.name)) or 0.0

    with psycopg.connect(standby, autocommit=True) as replay:
        assert behind() == 0.0
        replay.execute("select pg_wal_replay_pause()")
        try:
            operator.connect().execute("insert into written values (1)")
            wait(lambda: behind() > 0.2, what="the lag grows")
        finally:
            replay.execute("select pg_wal_replay_resume()")
    operator.settle()
    wait(lambda: behind() == 0.0, what="it has caught up")
    reader.close()
