"""Streams in which nothing happens are asked one question together, and read as soon as there is something."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from connector import clock
from connector.sources.reader import Reader

House = Any


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the reader's questions, by name."""
    counts: Counter[str] = Counter()
    for name in ("read", "news"):
        real = getattr(Reader, name)

        def counted(*arguments: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            counts[_name] += 1
            return _real(*arguments, **named)

        monkeypatch.setattr(Reader, name, counted)
    return counts


def test_quiet_streams_cost_one_question_a_pass(house: House, asked: Counter[str]) -> None:
    """None of their pages is read, until one has a row: the same pass reads it, and the other still is not."""
    house.bets(1, 5)
    house.deposits(1, 5)
    house.settle()
    with house.running() as cycle:
        for _ in range(3):  # open, find nothing, be quiet
            cycle.run_once()
        asked.clear()
        for _ in range(5):
            assert not cycle.run_once().busy
        assert asked == {"news": 5}

        house.bets(6, 6)
        assert cycle.run_once().rows == 1
        assert asked["read"] == 1
        assert house.stored("casino_bets") == [str(number) for number in range(1, 7)]


def test_a_view_that_can_no_longer_be_asked_stops_its_own_stream_alone(house: House, asked: Counter[str]) -> None:
    """The question fails for all of them; each is read then."""
    house.settle()
    with house.running() as cycle:
        for _ in range(3):
            cycle.run_once()
        house.operator.execute("drop view casino_bets")
        house.deposits(1, 3)
        asked.clear()
        house.wait(lambda: (cycle.run_once(), len(house.stored("deposits")) == 3)[1], what="deposits are stored")
        assert asked["news"] == 1
        assert list(cycle.failures) == ["casino_bets"]


def test_a_stream_out_of_its_hours_is_not_asked_either(house: House, asked: Counter[str]) -> None:
    """Hours keep the replica's load away, and a question is load."""
    house.settle()
    at = clock.now()
    within = {"hours": f"{at - timedelta(hours=2):%H:%M}-{at + timedelta(hours=2):%H:%M}"}
    outside = {"hours": f"{at + timedelta(hours=4):%H:%M}-{at + timedelta(hours=6):%H:%M}"}
    house.source["streams"] = {"deposits": within}
    with house.running() as cycle:
        (slot,) = cycle.slots
        for _ in range(3):
            cycle.run_once()
        assert slot.quiet
        asked.clear()
        cycle.run_once()
        assert asked == {"news": 1}
        house.source["streams"] = {"deposits": outside}
        slot.settings = house.settings.sources[0].streams["deposits"]
        asked.clear()
        cycle.run_once()
        assert asked == {}
