"""Frames into PostgreSQL: what is written arrives, whatever is in it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
import pytest
from hypothesis import given, settings, strategies as st

from connector.event import AMOUNT
from connector.store.copying import _FEW, array, copy_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST, _LAST = (datetime(year, 1, 2, tzinfo=UTC).replace(tzinfo=None) for year in (1, 9999))
_TEXT: Final = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)))
_ROW: Final = st.tuples(
    st.none() | _TEXT,
    st.none()
    | st.sampled_from(["", "\\.", "\\N", "a\tb", '"', "\x01", "\x01\x01", "\r\n", "\n", '{"a":"b\\tc"}', " "]),
    st.none() | st.datetimes(_FIRST, _LAST, timezones=st.just(UTC)),
    st.none() | st.datetimes(_FIRST, _LAST, timezones=st.just(UTC)),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.booleans(),
    st.none() | st.decimals(-(10**13), 10**13, places=18),
)
_SCHEMA: Final = {
    "a": pl.String,
    "b": pl.String,
    "at": pl.Datetime("us", "UTC"),
    "till": pl.Datetime("us", "UTC"),
    "n": pl.Int64,
    "told": pl.Boolean,
    "amount": AMOUNT,
}


@pytest.fixture(scope="module")
def scratch(postgres: Any) -> Iterator[psycopg.Connection[Any]]:
    """Give a session with a table of its own."""
    with psycopg.connect(postgres.create("copying"), options="-c timezone=America/New_York") as connection:
        connection.execute(
            "create temporary table target"
            " (a text, b text, at timestamptz, till timestamptz, n bigint, told boolean, amount numeric)"
        )
        yield connection


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_ROW, max_size=5), times=st.sampled_from([1, _FEW + 1]))
def test_every_value_arrives_as_it_was(
    scratch: psycopg.Connection[Any], rows: list[tuple[object, ...]], times: int
) -> None:
    """Separators, quotes, line ends, empty texts and the first and last years go through COPY, of few rows and many."""
    scratch.execute("truncate target")
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    copy_frame(scratch, "target (a, b, at, till, n, told, amount)", pl.concat([frame] * times))
    assert scratch.execute("select * from target order by ctid").fetchall() == rows * times


def test_an_empty_text_alone_in_the_last_row_is_a_row(scratch: psycopg.Connection[Any]) -> None:
    """Nothing but the end of its line tells of it."""
    scratch.execute("truncate target")
    copy_frame(scratch, "target (a)", pl.DataFrame({"a": ["x", ""]}))
    assert scratch.execute("select a from target order by ctid").fetchall() == [("x",), ("",)]


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.none() | st.just("NULL") | _TEXT))
def test_every_text_arrives_in_an_array(scratch: psycopg.Connection[Any], texts: list[str | None]) -> None:
    """In its place: quotes, backslashes, commas, the word NULL, empty texts and nulls are members, and none may be."""
    assert scratch.execute("select %s::text[]", (array(pl.Series(texts, dtype=pl.String)),)).fetchone() == (texts,)
