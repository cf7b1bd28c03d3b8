"""Rows of MySQL's protocol: whatever lengths and bytes a page has, each value arrives in its column as what it is."""

from __future__ import annotations

from typing import Final

import pymysql
import pytest
from hypothesis import given, settings, strategies as st

from connector.sources import mysql_rows
from connector.sources.dialect import text_of

TYPES: Final = {"a": "varchar(9)", "b": "BLOB", "c": "binary(16)", "d": "bit(64)", "e": "enum('x')"}
#: The lengths at which the way changes how a length is written, and those around them.
LENGTHS: Final = (0, 1, 249, 250, 251, 252, 253, 255, 256, 65_535, 65_536)
ODD: Final = (b"\xe9", b"\0", b"\xf4\x8f\x9c\x80", b"\xf4", "🙂é".encode(), b"x")

values = st.none() | st.tuples(st.sampled_from(LENGTHS) | st.integers(0, 20), st.sampled_from(ODD)).map(
    lambda drawn: (b"a" * drawn[0])[len(drawn[1]) :] + drawn[1][: drawn[0]]
)
bits = st.none() | st.binary(min_size=1, max_size=8)
rows_of_values = st.lists(st.tuples(values, values, values, bits, values), max_size=8)


def packet_of(row: tuple[bytes | None, ...]) -> bytes:
    """Return a row as a server writes it."""
    return b"".join(b"\xfb" if value is None else length_of(value) + value for value in row)


def length_of(value: bytes) -> bytes:
    number = len(value)
    if number < 251:
        return bytes([number])
    return b"\xfc" + number.to_bytes(2, "little") if number < 1 << 16 else b"\xfd" + number.to_bytes(3, "little")


@settings(max_examples=150, deadline=None)
@given(rows_of_values)
def test_every_value_arrives_in_its_column(rows: list[tuple[bytes | None, ...]]) -> None:
    """NULL and the empty text stay apart; bytes that are no text are carried; BINARY is hex and BIT a number."""
    ways = (text_of, text_of, bytes.hex, lambda raw: str(int.from_bytes(raw)), text_of)

    frame = mysql_rows.columns_of([packet_of(row) for row in rows], TYPES)

    assert frame.columns == list(TYPES)
    assert frame.rows() == [
        tuple(None if raw is None else way(raw) for way, raw in zip(ways, row, strict=True)) for row in rows
    ]


def test_a_value_of_many_megabytes_has_a_length_of_eight_bytes() -> None:
    value = b"a" * (17 << 20)
    packet = b"\x011\xfe" + len(value).to_bytes(8, "little") + value + b"\xfb"
    frame = mysql_rows.columns_of([b"\x010\x00\xfb", packet], {"a": "int", "b": "longtext", "c": "int"})
    assert frame.rows() == [("0", "", None), ("1", value.decode(), None)]


@pytest.mark.parametrize("columns", [1, 2])
def test_a_row_of_another_number_of_columns_is_refused(columns: int) -> None:
    """Nothing is read from the wrong column."""
    types = dict.fromkeys("abc"[:columns], "int")
    with pytest.raises(pymysql.err.InternalError, match=f"{columns} columns"):
        mysql_rows.columns_of([packet_of((b"1", None, b"3"))], types)
