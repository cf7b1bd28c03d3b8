"""The next page is read while the last one is committed: no row lost or doubled by it, whatever fails in between."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from connector import cycle, poller
from connector.errors import Transient
from connector.sources.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

House = Any
FIRST, LAST = 1, 60


@pytest.fixture
def house(house_on: Callable[[str], House]) -> House:
    """Give a house with eight full pages of bets and one that is not."""
    made = house_on("postgresql")
    made.bets(FIRST, LAST)
    return made


def _keys() -> list[str]:
    return sorted(str(number) for number in range(FIRST, LAST + 1))


def test_a_page_is_read_while_the_one_before_is_committed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commit waits for the second read: one after the other, they would wait for ever."""
    read, commit = Reader.read, poller.commit
    begun, reads = threading.Event(), 0

    def counted(reader: Reader, *arguments: Any, **named: Any) -> Any:
        nonlocal reads
        reads += named["limit"] > 1
        if reads > 1:
            begun.set()
        return read(reader, *arguments, **named)

    def waiting(connection: Any, batch: Any, **named: Any) -> Any:
        if batch.rows:
            assert begun.wait(20), "the next page is not read before this one is committed"
        return commit(connection, batch, **named)

    monkeypatch.setattr(Reader, "read", counted)
    monkeypatch.setattr(poller, "commit", waiting)
    house.source["streams"] = {"casino_bets": {"start": "beginning"}}
    assert house.once() == {}
    assert sorted(house.stored("casino_bets")) == _keys()


@pytest.mark.parametrize("fails_at", range(1, 6))
@pytest.mark.parametrize("side", ["read", "commit"])
def test_a_failure_of_either_side_costs_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, side: str, fails_at: int
) -> None:
    """What was read ahead of a commit that failed is not written; what failed to be read is read again."""
    target: Any = Reader if side == "read" else poller
    real, calls = getattr(target, side), 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise Transient("a cut")
        return real(*arguments, **named)

    monkeypatch.setattr(target, side, failing)
    house.source["streams"] = {"casino_bets": {"start": "beginning"}}
    assert house.once() == {}
    assert sorted(house.stored("casino_bets")) == _keys()
    assert house.look("select bet_count, total_wagered from crm.players") == [(LAST, LAST * 100)]


@pytest.mark.parametrize("others", [(), ("deposits",)])
def test_a_stream_alone_at_its_source_makes_way_for_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    """It has the whole pass, where one beside others has its turn."""
    given: list[float] = []
    real = poller.ticks

    def noting(*arguments: Any, seconds: float, **named: Any) -> Any:
        given.append(seconds)
        return real(*arguments, seconds=seconds, **named)

    monkeypatch.setattr(poller, "ticks", noting)
    house.source["streams"] = {name: {"start": "beginning"} for name in ("casino_bets", *others)}
    assert house.once() == {}
    assert {turn > cycle.STREAM_SECONDS for turn in given} == {not others}
    assert sorted(house.stored("casino_bets")) == _keys()


def test_no_page_is_read_for_nothing_when_a_pass_has_taken_too_long(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of its time ends the reading, not the writing: what was read ahead is not read again."""
    read, rows = Reader.read, 0

    def counted(reader: Reader, *arguments: Any, **named: Any) -> Any:
        nonlocal rows
        page = read(reader, *arguments, **named)
        rows += page.frame.height if named["limit"] > 1 else 0
        return page

    monkeypatch.setattr(Reader, "read", counted)
    monkeypatch.setattr(cycle, "PASS_SECONDS", 0.0)
    house.source["streams"] = {"casino_bets": {"start": "beginning"}}
    assert house.once() == {}
    assert rows == LAST
