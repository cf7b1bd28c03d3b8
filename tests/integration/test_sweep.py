"""Looks back at 5 seconds, 30 seconds and `lateness`, on real servers; only time is the test's own.

What the source says of its clock and its progress is replaced by a clock that a test moves, and so is the monotonic
clock that paces the looks: a window of two minutes passes at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from connector import app as application, clock, config, held, identity, sweeper
from connector.errors import Halted
from connector.position import SECOND
from connector.sources.dialect import Sample
from connector.sources.reader import Reader
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.poller import Stream
    from connector.store.database import Database

Operator = Any
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_STAMPS: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_DEPOSITS: Final = (
    "dt_finalized {stamp}, ext_brand_id varchar(20), user_ext_id varchar(20), transaction_id varchar(40), "
    "transaction_date {stamp}, deposit_amount decimal(20,4), currency varchar(5)"
)
_BETS: Final = (
    "id bigint primary key, ext_brand_id varchar(20), user_ext_id varchar(20), type varchar(10), bet_date {stamp}, "
    "bet_amount decimal(20,4), win_amount decimal(20,4), currency varchar(5), game_id varchar(10), game_name varchar(10)"
)


@dataclass
class Stage:
    """A source with deposits and bets, the application that reads it, and time."""

    operator: Operator
    store: Database
    app: application.App
    nanoseconds: int
    snapshots: bool = False

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self.nanoseconds / SECOND, UTC)

    def stream(self, name: str) -> Stream:
        """Return a running stream."""
        (slot,) = (slot for slot in self.app.cycles[0].slots if slot.name == name)
        assert slot.stream is not None, slot.error
        return slot.stream

    def after(self, seconds: float) -> None:
        """Let time pass, and the daemon work until it has nothing to do."""
        self.nanoseconds += int(seconds * SECOND)
        for _ in range(50):
            if not self.app.cycles[0].run_once().busy:
                return
        pytest.fail("the daemon never rests")

    def deposit(self, *keys: str, at: datetime) -> None:
        """Insert deposits of one stamp, visible at once."""
        self.operator.fill("deposits", [(_text(at), "b", "7", key, _text(at), "1", "EUR") for key in keys])

    def bet(self, *ids: int) -> None:
        """Insert bets, visible at once."""
        at = _text(self.now)
        self.operator.fill("casino_bets", [(i, "b", "7", "BET", at, "1", "0", "EUR", "g", "g") for i in ids])

    def stored(self, stream: str) -> list[str]:
        """Return the keys of a stream's events, doubled ones twice."""
        with psycopg.connect(self.store.url) as connection:
            rows = connection.execute("select key from crm.events where stream = %s order by key", (stream,))
            return [row[0] for row in rows]

    def sealed(self, stream: str) -> int:
        """Return the sealed mark, 0 where there is none."""
        with psycopg.connect(self.store.url) as connection:
            rows = connection.execute("select sealed_mark from crm.checkpoints where stream = %s", (stream,)).fetchall()
        return int(rows[0][0] or 0) if rows else 0


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def mark(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def _build(operator: Operator, store: Database, **source: Any) -> application.App:
    streams = source.pop("streams", {"deposits": {}, "casino_bets": {"start": "beginning", "mode": "single_table"}})
    document = {
        "tenant": "kaasino",
        "store": {"url": store.url},
        "web": None,
        "sources": [{"name": "casino", "url": operator.url, "streams": streams, **source}],
    }
    return application.build(config.parse(document, streams=list(STREAMS)))


@pytest.fixture
def staged(store: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    """Give a maker of stages; time stands at noon."""
    stages: list[Stage] = []
    sample = Reader.sample

    def now(reader: Reader) -> Sample:
        real = sample(reader)
        at = stages[0].nanoseconds
        return Sample(at, at, real.server, real.snapshot if stages[0].snapshots else None)

    def make(operator: Operator, *, deposits: str = _DEPOSITS, **source: Any) -> Stage:
        stamp = _STAMPS[operator.family]
        operator.execute(
            f"create table deposits ({deposits.format(stamp=stamp)})",
            f"create table casino_bets ({_BETS.format(stamp=stamp)})",
        )
        stage = Stage(operator, store, _build(operator, store, **source), mark(NOON))
        stages.append(stage)
        monkeypatch.setattr(Reader, "sample", now)
        monkeypatch.setattr(clock, "monotonic", lambda: stage.nanoseconds / SECOND)
        return stage

    yield make
    monkeypatch.undo()
    for stage in stages:
        stage.app.close()


@pytest.mark.parametrize(("late", "found"), [(3, 8), (20, 46), (100, 140)])
def test_a_late_row_is_found_at_the_look_after_it_appears(
    operator: Operator, staged: Callable[..., Stage], late: int, found: int
) -> None:
    """Stamped and drawn at noon, committed `late` seconds after: in the store once, at the latest `found` after noon."""
    stage = staged(operator)
    stage.deposit("d1", "d3", at=NOON)
    stage.bet(1, 3)
    stage.after(0)
    for _ in range(late):
        stage.after(1)
    stage.deposit("d2", at=NOON - timedelta(seconds=1))
    stage.bet(2)
    for _ in range(found - late):
        stage.after(1)
    assert stage.stored("deposits") == ["d1", "d2", "d3"]
    assert stage.stored("casino_bets") == ["1", "2", "3"]
    if found < 120:
        assert stage.sealed("deposits") < mark(NOON)
        assert stage.sealed("casino_bets") == 0
    for _ in range(200):
        stage.after(1)
    assert stage.sealed("deposits") == mark(NOON)
    assert stage.sealed("casino_bets") == 3


def test_looks_read_key_columns_alone_and_of_ids_only_the_gaps(
    operator_of: Callable[[str], Operator], staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole rows are read once, by the tail; ids without gaps are never asked for again."""
    stage = staged(operator_of("postgresql"))
    stage.deposit(*(f"d{number}" for number in range(20)), at=NOON - timedelta(milliseconds=500))
    stage.bet(*range(1, 20), 25)
    stage.after(1)
    read, ranges = Reader.read, Reader.read_ranges
    seen: list[Any] = []
    monkeypatch.setattr(identity, "check", lambda *_, **__: True)  # it looks up some whole rows each minute

    def reading(reader: Reader, view: Any, window: Any, *, limit: int) -> Any:
        page = read(reader, view, window, limit=limit)
        seen.extend([(view.name, view.columns)] * page.frame.height)
        return page

    def ranging(reader: Reader, view: Any, asked: Any, *, limit: int) -> Any:
        seen.append(("gaps", tuple(asked)))
        return ranges(reader, view, asked, limit=limit)

    monkeypatch.setattr(Reader, "read", reading)
    monkeypatch.setattr(Reader, "read_ranges", ranging)
    for _ in range(200):
        stage.after(1)
    assert set(seen) == {
        ("deposits", ("dt_finalized", "transaction_id")),
        ("gaps", ((None, "0"), ("20", "24"))),
    }
    assert seen.count(("deposits", ("dt_finalized", "transaction_id"))) == 3 * 20
    assert seen.count(("gaps", ((None, "0"), ("20", "24")))) == 3
    assert stage.sealed("casino_bets") == 25


def test_the_window_widens_with_the_latest_row_and_narrows_a_day_later(
    operator_of: Callable[[str], Operator], staged: Callable[..., Stage]
) -> None:
    """A row that needed the whole window doubles it, up to lateness_max; a day without such rows takes it back."""
    stage = staged(operator_of("mysql"), lateness="60s", lateness_max="3m")
    for number in range(6):
        stage.deposit(f"on{number}", at=stage.now)
        stage.after(50)
        stage.deposit(f"late{number}", at=stage.now - timedelta(seconds=stage.stream("deposits").lateness - 1))
        for _ in range(60):
            stage.after(5)
    assert stage.stored("deposits") == sorted([*(f"on{i}" for i in range(6)), *(f"late{i}" for i in range(6))])
    assert stage.stream("deposits").lateness == 180
    assert sweeper.ages(60, 180) == [5, 30, 60, 120]
    with psycopg.connect(stage.store.url, autocommit=True) as connection:
        row = connection.execute("select lateness, late_rows from crm.checkpoints where stream = 'deposits'").fetchone()
        assert row == (180, 6)
        connection.execute("update crm.checkpoints set widened_at = widened_at - interval '1 day'")
    stage.after(61)
    assert stage.stream("deposits").lateness == 60


def test_an_open_transaction_holds_the_seal_until_it_ends(
    operator_of: Callable[[str], Operator], staged: Callable[..., Stage]
) -> None:
    """However old its rows are by then: they are below the seal's reach, and found by the look that seals."""
    stage = staged(operator_of("postgresql"))
    stage.snapshots = True
    with psycopg.connect(stage.operator.owner) as writer:
        row = (_text(NOON), "b", "7", "d0", _text(NOON), "1", "EUR")
        writer.execute("insert into deposits values (%s, %s, %s, %s, %s, %s, %s)", row)
        stage.deposit("d1", at=NOON)
        for _ in range(30):
            stage.after(10)
        assert stage.sealed("deposits") < mark(NOON)
        assert stage.stored("deposits") == ["d1"]
    for _ in range(4):
        stage.after(10)
    assert stage.stored("deposits") == ["d0", "d1"]
    assert stage.sealed("deposits") == mark(NOON)


def test_a_transaction_that_never_ends_holds_the_seal_for_lateness_max(
    operator_of: Callable[[str], Operator], staged: Callable[..., Stage], capsys: pytest.CaptureFixture[str]
) -> None:
    """An idle writer in any database of the server must not stop the sealing for ever; it is named once."""
    stage = staged(operator_of("postgresql"))
    stage.snapshots = True
    with psycopg.connect(stage.operator.owner) as writer:
        writer.execute("select pg_current_xact_id()")
        stage.deposit("d1", at=NOON)
        for _ in range(91):
            stage.after(10)
    assert stage.sealed("deposits") == mark(NOON)
    assert capsys.readouterr().out.count("seal.held") == 1


def test_rows_that_come_into_the_day_of_a_date_cursor_are_found_the_same_day(
    operator: Operator, staged: Callable[..., Stage]
) -> None:
    """With keys in any order: everything of today has the same cursor."""
    stage = staged(operator, deposits=_DEPOSITS.replace("dt_finalized {stamp}", "dt_finalized date"), tolerance="0s")
    stage.deposit("m", at=NOON)
    stage.after(1)
    stage.deposit("a", "z", at=NOON)
    for _ in range(12):
        stage.after(10)
    assert stage.stored("deposits") == ["a", "m", "z"]
    assert stage.sealed("deposits") == 0
    stage.after(86_400)
    assert stage.sealed("deposits") == mark(NOON.replace(hour=0))


@pytest.mark.parametrize("room", [10, 2_000_000])
def test_late_rows_in_any_number_and_rows_forgotten_for_room_are_stored_once(
    operator_of: Callable[[str], Operator],
    staged: Callable[..., Stage],
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    """A job that commits thousands of rows at once, all behind the tail; small pages make the looks take many."""
    monkeypatch.setattr(held, "MOST_KEYS", room)
    stage = staged(operator_of("postgresql"), page_rows=300)
    for number in range(20):
        stage.deposit(f"on{number}", at=NOON + timedelta(milliseconds=number))
        stage.after(0)
    stage.after(2)
    stage.deposit(*(f"late{number:04}" for number in range(1500)), at=NOON + timedelta(milliseconds=3))
    stage.bet(5000)
    stage.after(1)
    stage.bet(*range(1, 5000, 3))
    for _ in range(16):
        stage.after(10)
    assert stage.stored("deposits") == sorted([*(f"on{i}" for i in range(20)), *(f"late{i:04}" for i in range(1500))])
    assert sorted(map(int, stage.stored("casino_bets"))) == [*range(1, 5000, 3), 5000]
    assert stage.sealed("deposits") == mark(NOON + timedelta(milliseconds=19))


def test_a_source_that_stands_still_seals_nothing(operator: Operator, staged: Callable[..., Stage]) -> None:
    """A replica that does not replay: whatever the clocks of this machine say."""
    stage = staged(operator)
    stage.deposit("d1", at=NOON - timedelta(seconds=60))
    stage.bet(1)
    for _ in range(20):
        stage.after(0)
    assert (stage.sealed("deposits"), stage.sealed("casino_bets")) == (0, 0)


def test_a_page_that_ends_where_it_began_stops_the_stream(
    operator_of: Callable[[str], Operator], staged: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not compare a value as it writes it would be read for ever."""
    stage = staged(operator_of("postgresql"))
    stage.deposit("d1", at=NOON)
    stage.after(0)
    read = Reader.read

    def again(reader: Reader, view: Any, window: Any, *, limit: int) -> Any:
        return read(reader, view, window if window.after is None else type(window)(None, window.until), limit=limit)

    monkeypatch.setattr(Reader, "read", again)
    monkeypatch.setattr(Reader, "news", lambda _, windows: [True] * len(windows))
    stage.after(1)
    assert isinstance(stage.app.cycles[0].failures["deposits"], Halted)
    assert "makes no progress" in str(stage.app.cycles[0].failures["deposits"])
