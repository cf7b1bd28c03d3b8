"""Rows of MySQL's protocol: whatever lengths and bytes a page has, each value arrives in its column as what it is."""

from __future__ import annotations

import io
from typing import Any, Final, cast

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


class Driver:
    """What `read` knows of the driver and its cursor, which takes one packet after the other and looks at its number."""

    def __init__(self, sent: bytes, *, look: int, number: int) -> None:
        self._rfile, self._next_seq_id, self.connection = io.BufferedReader(io.BytesIO(sent), look), number, self

    def fetchone(self) -> bytes | None:
        header = self._rfile.read(4)
        if header[3] != self._next_seq_id:
            raise pymysql.err.InternalError("Packet sequence number wrong")
        self._next_seq_id = (self._next_seq_id + 1) & 0xFF
        packet = self._rfile.read(int.from_bytes(header[:3], "little"))
        if packet[0] == 0xFF:
            raise pymysql.err.OperationalError("told by the server")
        return None if packet[0] == 0xFE else packet


def sent(packets: list[bytes], first: int) -> bytes:
    """Return packets as they come over the wire."""
    return b"".join(
        len(packet).to_bytes(3, "little") + bytes([(first + place) & 0xFF]) + packet
        for place, packet in enumerate(packets)
    )


packets_of_rows = st.lists(st.binary(min_size=3, max_size=300).filter(lambda row: row[0] < 0xFE), max_size=40)


@settings(max_examples=300, deadline=None)
@given(packets_of_rows, st.integers(1, 3), st.integers(0, 255), st.integers(1, 4000), st.integers(0, 3000))
def test_rows_are_read_up_to_the_end_or_the_limit(
    rows: list[bytes], columns: int, first: int, look: int, limit: int
) -> None:
    """However much a look brings: what the server says last is the driver's, and what lies beyond stays where it is."""
    driver = Driver(sent([*rows, b"\xfe\0\0\2\0"], first), look=look, number=first)
    sizes = [sum(len(row) - columns for row in rows[: count + 1]) for count in range(len(rows))]
    wanted = next((count + 1 for count, size in enumerate(sizes) if size > limit), len(rows))

    found, stopped = mysql_rows.read(cast("Any", driver), columns=columns, bytes_limit=limit)

    assert (found, stopped) == (rows[:wanted], bool(sizes) and sizes[-1] > limit)
    assert stopped or not driver._rfile.read()
    assert driver._next_seq_id == (first + wanted + (not stopped)) & 0xFF


@settings(max_examples=150, deadline=None)
@given(packets_of_rows.filter(bool), st.data(), st.integers(1, 4000))
def test_no_row_passes_what_is_no_row(rows: list[bytes], data: st.DataObject, look: int) -> None:
    """An error amid the rows, or a packet that bears another's number: the driver says so, in its own words."""
    place = data.draw(st.integers(0, len(rows) - 1))
    wire = bytearray(sent([*rows, b"\xfe\0\0\2\0"], 250))
    at = sum(4 + len(row) for row in rows[:place])
    if data.draw(st.booleans()):
        wire[at + 3] ^= data.draw(st.integers(1, 255))
    else:
        wire[at + 4] = 0xFF
        del wire[at + 4 + len(rows[place]) :]  # nothing comes after an error
    with pytest.raises(pymysql.err.Error):
        mysql_rows.read(cast("Any", Driver(bytes(wire), look=look, number=250)), columns=1, bytes_limit=1 << 20)


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
