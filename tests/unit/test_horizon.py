"""How far a stream may be sealed: never beyond what a transaction that is still open could write."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings, strategies as st

from connector.horizon import Horizon
from connector.position import SECOND

EXAMPLES: Final = settings(max_examples=150, deadline=None)
LATENESS: Final = 20 * SECOND
LONGEST: Final = 60 * SECOND
NOBODY: Final = (7, 7)

seconds = st.integers(0, 40).map(lambda tenths: tenths * SECOND // 10)


@EXAMPLES
@given(st.lists(st.tuples(st.integers(0, 50), seconds), min_size=1, max_size=60), seconds)
def test_a_head_is_final_only_after_its_lateness_and_what_is_final_never_shrinks(
    steps: list[tuple[int, int]], lateness: int
) -> None:
    """Without snapshots: the greatest head that was seen at least `lateness` ago, or an older one."""
    horizon, head, progress, samples, finals = Horizon("id"), 0, 0, [], []
    for ids, nanoseconds in steps:
        head, progress = head + ids, progress + nanoseconds
        horizon.observe(head=head, progress=progress)
        samples.append((head, progress))
        final = horizon.final(progress=progress, lateness=lateness, longest=LONGEST)
        old_enough = [seen for seen, at in samples if at + lateness <= progress]
        assert final is None or final <= max(old_enough, default=-1)
        finals.append(-1 if final is None else final)
    assert finals == sorted(finals)


@EXAMPLES
@given(st.integers(1, 10 * SECOND), st.integers(SECOND // 20, SECOND))
def test_a_head_that_stands_still_becomes_final(lateness: int, interval: int) -> None:
    """However often it is looked at, the newest head is final within lateness and a second more."""
    horizon, progress, final = Horizon("id"), 0, None
    horizon.observe(head=1, progress=0)
    while progress < lateness + 2 * SECOND + interval:
        progress += interval
        horizon.observe(head=9, progress=progress)
        final = horizon.final(progress=progress, lateness=lateness, longest=LONGEST)
    assert final == 9


@EXAMPLES
@given(st.integers(0, 2**61), seconds, st.sampled_from([1, 1000, SECOND, 86_400 * SECOND]))
def test_a_time_is_final_when_its_whole_tick_is_lateness_old(progress: int, lateness: int, tick: int) -> None:
    """The last final mark has its tick's end exactly `lateness` behind progress."""
    horizon = Horizon("time", tick)
    horizon.observe(progress=progress)
    assert horizon.final(progress=progress, lateness=lateness, longest=LONGEST) == progress - lateness - tick


@EXAMPLES
@given(st.sampled_from(["time", "id"]), st.data())
def test_no_row_of_an_open_transaction_lies_below_the_horizon_until_it_times_out(
    kind: str, data: st.DataObject
) -> None:
    """Transactions begin and end at random; each could write a stamp, or holds an id, of the moment it began."""
    horizon = Horizon(kind)  # type: ignore[arg-type]
    progress, number, head = 0, 1, 0
    running: dict[int, tuple[int, int]] = {}
    for _ in range(data.draw(st.integers(1, 60))):
        progress += data.draw(seconds)
        if data.draw(st.booleans()):
            head += 1
            running[number] = (progress, head)  # its own id lies above every head seen before
            number += 1
        elif running:
            del running[data.draw(st.sampled_from(sorted(running)))]
        head += 1  # somebody else's row, visible at once
        horizon.observe(progress=progress, head=head, snapshot=(min(running, default=number), number))
        final = horizon.final(progress=progress, lateness=LATENESS, longest=LONGEST)
        for began, its_id in running.values():
            if progress - began < LONGEST:
                assert final is None or final < (began if kind == "time" else its_id) + (kind == "time")


def test_an_open_transaction_holds_the_horizon_says_so_and_lets_go_in_the_end() -> None:
    """It is held at the moment the transaction was first seen open, for `longest`; when it ends, lateness alone counts."""
    horizon = Horizon("time")
    for at in range(100):
        horizon.observe(progress=at * SECOND, snapshot=(7 if at < 10 else 10, at))
    at_30 = Horizon("time")
    for at in range(31):
        at_30.observe(progress=at * SECOND, snapshot=(8, 8 + at))
    assert at_30.final(progress=30 * SECOND, lateness=20 * SECOND, longest=25 * SECOND) == 5 * SECOND
    assert at_30.held
    at_30.observe(progress=31 * SECOND, snapshot=(60, 60))
    assert at_30.final(progress=31 * SECOND, lateness=20 * SECOND, longest=25 * SECOND) == 11 * SECOND
    assert not at_30.held


def test_a_first_look_at_a_quiet_server_needs_no_waiting() -> None:
    """Where nothing is open, everything older than lateness is final at once: a first load reads nothing twice."""
    horizon = Horizon("time")
    horizon.observe(progress=1000 * SECOND, snapshot=NOBODY)
    assert horizon.final(progress=1000 * SECOND, lateness=LATENESS, longest=LONGEST) == 980 * SECOND


def test_a_source_that_stands_still_makes_nothing_final() -> None:
    """A replica that does not replay has no progress, whatever its clock says."""
    horizon = Horizon("id")
    for _ in range(500):
        horizon.observe(progress=5 * SECOND, head=12, snapshot=NOBODY)
        assert horizon.final(progress=5 * SECOND, lateness=SECOND, longest=LONGEST) is None


@EXAMPLES
@given(st.lists(seconds, max_size=300))
def test_what_is_remembered_is_bounded(steps: list[int]) -> None:
    """One look a second at most, and none that is older than the longest window but one."""
    horizon, progress = Horizon("time"), 0
    for step in steps:
        progress += step
        horizon.observe(progress=progress, snapshot=(1, progress))
        horizon.final(progress=progress, lateness=LATENESS, longest=LONGEST)
        assert len(horizon.observations) <= LONGEST // SECOND + 2
