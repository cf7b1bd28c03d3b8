"""The rate of a credential: a bound that holds, exclusions that never wait, and a retreat when the API objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given, settings, strategies as st

from connector.destinations.throttle import Throttle

EXAMPLES: Final = settings(max_examples=80, deadline=None)


@dataclass
class Time:
    """A clock that only sleeping and the test move; a sleep lasts a hair longer than asked, as real ones do."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds + 1e-9


def throttle(rate: float, time: Time) -> Throttle:
    return Throttle(rate, clock=time.clock, sleep=time.sleep)


@EXAMPLES
@given(
    st.sampled_from([0.5, 1.0, 7.0, 100.0, 1000.0]),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 30)), min_size=1, max_size=8),
)
def test_no_window_holds_more_than_rate_and_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    """However requests arrive, any stretch of time holds at most rate x seconds of them and a burst of a tenth."""
    time = Time()
    bucket, taken = throttle(rate, time), []
    for pause, requests in steps:
        time.now += pause
        for _ in range(requests):
            bucket.take()
            taken.append(time.now)
    burst = max(1.0, rate / 10)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= (taken[last] - taken[first]) * rate + burst + 1e-3


@EXAMPLES
@given(st.floats(1, 1000), st.integers(1, 50))
def test_an_urgent_request_never_waits_and_the_others_pay_for_it(rate: float, urgent: int) -> None:
    """Exclusions go at once on credit, and the next ordinary request waits until the debt is paid."""
    time = Time()
    bucket = throttle(rate, time)
    for _ in range(urgent):
        bucket.take(urgent=True)
    assert time.slept == []
    bucket.take()
    assert time.now - 1000 == pytest.approx(urgent / rate, rel=1e-3, abs=1e-3)


def test_an_idle_hour_saves_no_more_than_the_burst() -> None:
    """Tokens do not pile up."""
    time = Time()
    bucket = throttle(100, time)
    time.now += 3600
    for _ in range(10):
        bucket.take()
    assert time.slept == []
    bucket.take()
    assert len(time.slept) >= 1


def test_an_objection_halves_the_rate_and_acceptance_gives_it_back_slowly() -> None:
    """Multiplicative decrease, additive increase, never above what is configured."""
    bucket = throttle(100, Time())
    bucket.objected()
    assert bucket.rate == 50
    bucket.objected()
    assert bucket.rate == 25
    bucket.accepted()
    assert bucket.rate == pytest.approx(27)
    for _ in range(100):
        bucket.accepted()
    assert bucket.rate == 100


@EXAMPLES
@given(st.floats(0.1, 1000), st.lists(st.booleans(), max_size=200))
def test_the_rate_stays_within_its_bounds(rate: float, answers: list[bool]) -> None:
    """Whatever the API says, the rate stays above a hundredth of the configured one and never above it."""
    bucket = throttle(rate, Time())
    for accepted in answers:
        before = bucket.rate
        if accepted:
            bucket.accepted()
        else:
            bucket.objected()
        assert rate * 0.01 <= bucket.rate <= rate
        assert bucket.rate >= before if accepted else bucket.rate <= before


def test_a_lower_rate_spaces_requests_wider() -> None:
    """After an objection the same requests take twice as long."""
    spans = []
    for objections in (0, 1):
        time = Time()
        bucket = throttle(10, time)
        for _ in range(objections):
            bucket.objected()
        for _ in range(21):
            bucket.take()
        spans.append(time.now - 1000)
    assert spans == [pytest.approx(2, abs=0.01), pytest.approx(4, abs=0.01)]
