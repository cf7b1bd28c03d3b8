"""Cursor texts, their integer marks, and what can no longer appear late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import polars as pl
import pytest
from hypothesis import example, given, settings, strategies as st

from connector.position import (
    EARLIEST,
    LATEST,
    SECOND,
    cursor_text,
    epoch_unit,
    mark_of,
    tick_of,
)
from connector.streams import instants as parsing

EXAMPLES: Final = settings(max_examples=80, deadline=None)
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Before 1973-03-03 an epoch integer in milliseconds or microseconds has the size of one in a coarser unit.
UNAMBIGUOUS: Final = datetime(1973, 3, 4, tzinfo=UTC)

instants = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
recent = st.datetimes(UNAMBIGUOUS.replace(tzinfo=None), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
offsets = st.integers(-12 * 60, 14 * 60)


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, datetime]:
    """One instant in a writing that a source may use, and the instant itself at that writing's precision."""
    moment = draw(instants)
    style = draw(
        st.sampled_from(
            ["naive", "iso_z", "offset", "short_fraction", "compact_offset", "spaced_offset", "seconds", "date"]
        )
    )
    local = moment.astimezone(timezone(timedelta(minutes=draw(offsets))))
    if style == "naive":
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}", moment
    if style == "iso_z":
        return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z", moment
    if style == "offset":
        return local.isoformat(sep=draw(st.sampled_from(" T")), timespec="microseconds"), moment
    if style == "compact_offset":
        return f"{local:%Y-%m-%d %H:%M:%S.%f%z}", moment
    if style == "spaced_offset":
        return local.isoformat(sep=" ", timespec="microseconds").replace("+", " +"), moment
    if style == "short_fraction":
        return f"{moment:%Y-%m-%d %H:%M:%S.%f}".rstrip("0").rstrip(".") + "+00", moment
    if style == "seconds":
        return f"{moment:%Y-%m-%d %H:%M:%S}", moment.replace(microsecond=0)
    return f"{moment:%Y-%m-%d}", moment.replace(hour=0, minute=0, second=0, microsecond=0)


@st.composite
def epoch(draw: st.DrawFn) -> tuple[str, datetime]:
    """One instant as an epoch integer: seconds at any time, finer units where no coarser one is meant."""
    unit = draw(st.sampled_from([1_000_000, 1_000, 1]))
    moment = draw(instants if unit == 1_000_000 else recent)
    steps = microseconds(moment) // unit
    return str(steps), EPOCH + timedelta(microseconds=steps * unit)


@EXAMPLES
@given(st.lists(written() | epoch(), min_size=1, max_size=20))
def test_a_text_has_one_instant_whoever_reads_it(values: list[tuple[str, datetime]]) -> None:
    """mark_of and the normalisers' parser give the same microsecond, and marks come in the order of instants."""
    texts = [text for text, _ in values]
    parsed = parsing.instants(pl.Series("text", texts)).to_list()
    marks = [mark_of(text, "time") for text in texts]
    assert parsed == [moment for _, moment in values]
    assert marks == [microseconds(moment) * 1000 for _, moment in values]
    assert [moment for _, moment in sorted(zip(marks, parsed, strict=True))] == sorted(parsed)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A writing of an instant, cut off perhaps, some characters of it replaced, left out or added."""
    text, _ = draw(written() | epoch())
    text = text[: draw(st.sampled_from([None, None, 19, 20, 23, 26]))]
    for place in draw(st.lists(st.integers(0, 40), max_size=2)):
        text = text[:place] + draw(st.sampled_from(["", "0", "9", "-", " ", ".", "Z", "+", "é"])) + text[place + 1 :]
    return text + draw(st.sampled_from(["", "", "", "+00", "5", " "]))


@settings(EXAMPLES, max_examples=300)
@given(st.lists(damaged(), min_size=2, max_size=12))
def test_no_text_is_read_otherwise_for_standing_beside_others(texts: list[str]) -> None:
    """Which way is tried first is the first text's to say; what any text means is its own."""
    together = parsing.instants(pl.Series("text", texts)).to_list()
    assert together == [parsing.instants(pl.Series("text", [text])).item() for text in texts]


@pytest.mark.parametrize("text", ["-63158400000", "63072000000", "18446400000"])
def test_epoch_milliseconds_around_1970_are_not_taken_for_seconds(text: str) -> None:
    """The guide writes birth dates as epoch milliseconds: players born around 1970 have eleven digits."""
    born = parsing.instants(pl.Series("text", [text])).item()
    assert born == EPOCH + timedelta(milliseconds=int(text))
    assert mark_of(text, "time") == int(text) * 1_000_000


@pytest.mark.parametrize("suffix", [" UTC", "Z", "z", "+00", "+0000", "+00:00", " +00:00"])
def test_every_spelling_of_utc_is_read(suffix: str) -> None:
    """A zone written as UTC, Z or a zero offset is UTC for the normalisers."""
    parsed = parsing.instants(pl.Series("text", [f"2026-03-01 10:00:00{suffix}"])).item()
    assert parsed == datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-02-30", "2026-13-01 00:00:00", "infinity", "1e9", "2026-03-01 25:00:00", "12.5"]
)
def test_what_is_no_instant_is_null(text: str) -> None:
    """A text that names no instant parses to nothing, never to a guess."""
    assert parsing.instants(pl.Series("text", [text])).item() is None


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("infinity", LATEST),
        ("10000-01-01 00:00:00", LATEST),
        ("-infinity", EARLIEST),
        ("0044-03-15 00:00:00 BC", EARLIEST),
    ],
)
def test_a_time_beyond_the_calendar_is_earliest_or_latest(text: str, mark: int) -> None:
    """Times that no calendar here can hold still have a side."""
    assert mark_of(text, "time") == mark


@pytest.mark.parametrize(
    ("text", "mark"), [("0", 0), ("42", 42), ("-7", -7), ("9223372036854775808", 2**63), ("12.000", 12)]
)
def test_the_mark_of_an_id_is_the_id(text: str, mark: int) -> None:
    """Ids count as themselves, beyond 64 bits too."""
    assert mark_of(text, "id") == mark


@EXAMPLES
@given(
    recent,
    st.sampled_from(
        ["2026-01-01 00:00:00", "2026-01-01 00:00:00.5+00", "2026-01-01", "1700000000", "1700000000000", "1" * 16]
    ),
)
@example(datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "2026-01-01T00:00:00Z")
def test_an_instant_is_written_the_way_the_source_writes(moment: datetime, like: str) -> None:
    """cursor_text gives back the mark it was made from, at the precision of the source's own writing."""
    mark = microseconds(moment) * 1000
    unit = epoch_unit(int(like)) if like.isdigit() else 1000
    text = cursor_text(mark, like=like)
    assert mark_of(text, "time") == mark // unit * unit
    assert text.isdigit() == like.isdigit()
    assert text.endswith("+00") == like.endswith(("+00", "Z"))


@pytest.mark.parametrize(
    ("sql_type", "nanoseconds"),
    [
        ("date", 86_400 * SECOND),
        ("DATE", 86_400 * SECOND),
        ("datetime", SECOND),
        ("datetime(0)", SECOND),
        ("timestamp(0) without time zone", SECOND),
        ("timestamp(3) with time zone", 10**6),
        ("datetime(6)", 1000),
        ("timestamp with time zone", 1000),
        ("timestamp without time zone", 1000),
        ("datetime2(7)", 100),
        ("smalldatetime", 60 * SECOND),
    ],
)
def test_a_stamp_covers_its_columns_tick(sql_type: str, nanoseconds: int) -> None:
    """A stamp counts as the end of its tick: a second for DATETIME(0), a day for DATE."""
    assert tick_of(sql_type) == nanoseconds
