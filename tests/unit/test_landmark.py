"""Rows by which a source is recognised: which are kept, and what they tell."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings, strategies as st

from connector.landmark import MOST, NEWEST, Landmark, State, Verdict, judge, thinned, user_hash

EXAMPLES: Final = settings(max_examples=100, deadline=None)


def landmark(number: int, *, user: str = "u", second: int | None = 1) -> Landmark:
    return Landmark(str(number), (str(number),), number, user, second)


def grown(steps: list[int]) -> tuple[list[int], list[Landmark]]:
    """Remember rows one after another, thinning each time; returns every mark, and what is left."""
    marks: list[int] = []
    kept: list[Landmark] = []
    for step in steps:
        marks.append((marks[-1] if marks else 0) + step)
        kept = thinned([*kept, landmark(marks[-1])])
        assert len(kept) <= MOST
    return marks, kept


@EXAMPLES
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
def test_the_newest_and_the_oldest_are_kept(steps: list[int]) -> None:
    """However many were remembered, in order, newest first, never more than a handful."""
    marks, kept = grown(steps)
    left = [mark.mark for mark in kept]
    assert left == sorted(left, reverse=True)
    assert left[:NEWEST] == sorted(marks, reverse=True)[:NEWEST]
    assert left[-1] == marks[0]


@EXAMPLES
@given(st.lists(st.integers(1, 20), min_size=20, max_size=400), st.data())
def test_what_is_kept_is_spread_over_all_ages(steps: list[int], data: st.DataObject) -> None:
    """Of every age that was remembered there is one at most 64 times older or younger: a server behind has some."""
    marks, kept = grown(steps)
    age = marks[-1] - data.draw(st.sampled_from(marks[:-NEWEST]))
    distances = [marks[-1] - mark.mark for mark in kept[:-1]]
    assert any(age / 64 <= distance <= age * 64 for distance in distances)


@EXAMPLES
@given(st.lists(st.integers(-(2**66), 2**130), max_size=200))
def test_no_mark_is_too_far_away(marks: list[int]) -> None:
    """Unsigned ids, numerics of 38 digits and years before the calendar all find room."""
    assert len(thinned(landmark(mark) for mark in marks)) <= min(MOST, len(set(marks)))


def test_a_row_remembered_again_is_there_once_as_it_is_now() -> None:
    now = landmark(7, user="v")
    assert thinned([landmark(7), now]) == [now]


S, O, G = "same", "other", "gone"  # noqa: E741


@pytest.mark.parametrize(
    ("states", "short", "verdict"),
    [
        ([S, S, S, S], False, "same"),
        ([G, G, G, G], False, "same"),  # the operator purges
        ([O, S, S, S], False, "same"),  # one row was given to another user
        ([O, O, S, O], False, "same"),
        ([O, O, O, S, S, S], False, "other"),  # an older backup came back, and its ids were drawn again
        ([G, O, O, O, S, S], False, "other"),
        ([O], False, "other"),
        ([], False, "same"),
        ([S, S], True, "behind"),
        ([G, S], True, "behind"),
        ([O, O, O, S], True, "other"),
        ([G, G], True, "other"),
        ([], True, "other"),  # nothing that was remembered can be below the end
    ],
)
def test_what_the_rows_tell(states: list[State], short: bool, verdict: Verdict) -> None:
    """The newest three that are still there decide; where none is, only a source that goes on is believed."""
    assert judge(states, short=short) == verdict


def test_a_source_that_says_it_lags_is_believed() -> None:
    """Nothing of what was remembered can be there yet; rows that are there with other content are another matter."""
    assert judge([], short=True, lagging=True) == "behind"
    assert judge(["gone", "gone"], short=True, lagging=True) == "behind"
    assert judge(["other", "other"], short=True, lagging=True) == "other"


def test_rows_that_are_gone_count_where_their_keys_come_again() -> None:
    """Ids restarted below a cursor that is a time: the rows are gone, and new ones take their keys."""
    assert judge(["gone", "gone"], short=False, doubtful=True) == "other"
    assert judge(["gone", "same"], short=False, doubtful=True) == "same"
    assert judge(["gone", "gone"], short=False, doubtful=True, moves=True) == "same"


def test_a_row_is_known_by_its_user_and_its_second() -> None:
    """Another key's row is not asked about; users move, so only their key counts."""
    row = landmark(1, user=user_hash("7"), second=10)
    assert row.state(None, moves=False) == "gone"
    assert row.state(landmark(1, user=user_hash("7"), second=10), moves=False) == "same"
    assert row.state(landmark(1, user=user_hash("8"), second=10), moves=False) == "other"
    assert row.state(landmark(1, user=user_hash("7"), second=11), moves=False) == "other"
    assert row.state(landmark(1, user=user_hash("7"), second=None), moves=True) == "same"
