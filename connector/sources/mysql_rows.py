"""Rows of MySQL's text protocol, taken apart a page at a time: the driver's own way costs five times as much a row.

The driver still runs the query, reads what is not a plain row (errors, the end, rows that are not there in full yet)
and says in its own words what went wrong with the connection. Of it, this relies on the private names in
`RowCursor`, `enlarge` and `_take`.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pymysql
from pymysql.cursors import SSCursor
from pymysql.protocol import MysqlPacket

from connector.sources.dialect import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: What one look at the socket may bring: each lets other threads run, and waits until they let go again.
_BUFFER: Final = 1 << 20
#: A packet's length in three bytes, its number in the fourth.
_HEADER: Final = struct.Struct("<HBB")
#: A packet that begins with one of these is the end of the rows, an error, or has a value of 16 MB.
_NO_PLAIN_ROW: Final = 0xFE
#: What a value's first byte says: NULL, or the number of bytes after it that hold its length; else it is the length.
_NULL: Final = 251
_WIDTHS: Final = {252: 2, 253: 3, 254: 8}
#: What stands in no text that `text_of` leaves as it is, and the types whose texts need not be searched for it.
_CARRIED: Final = (b"\0", b"\xf4\x8f")
_PLAIN: Final = (
    *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"),
    *("date", "time", "year"),
)


class RowCursor(SSCursor):
    """A streaming cursor whose row is the bytes of its packet: `columns_of` takes them apart."""

    def _do_get_result(self) -> None:
        super()._do_get_result()  # type: ignore[misc]
        result: Any = self._result  # type: ignore[attr-defined]
        result._read_row_from_packet = MysqlPacket.get_all_data  # noqa: SLF001


def enlarge(driver: pymysql.Connection[Any]) -> None:
    """Give a fresh connection a buffer for many rows, between two statements."""
    connection: Any = driver
    connection._rfile = connection._sock.makefile("rb", buffering=_BUFFER)  # noqa: SLF001


def read(cursor: RowCursor, *, columns: int, bytes_limit: int) -> tuple[list[bytes], bool]:
    """Return the rows of an executed query, up to a whole row beyond `bytes_limit`, and whether it stopped there."""
    rows: list[bytes] = []
    size = 0
    while size <= bytes_limit and (packet := cursor.fetchone()) is not None:
        row: Any = packet  # see RowCursor
        rows.append(row)
        size += len(row) - columns
        if size <= bytes_limit:
            size += _take(cursor.connection, rows, columns=columns, bytes_limit=bytes_limit - size)
    return rows, size > bytes_limit


def _take(driver: Any, rows: list[bytes], *, columns: int, bytes_limit: int) -> int:
    """Add the rows that have arrived in full, and return how many bytes their values have.

    The driver is left what is no plain row, and what does not bear the number that it should. Only the last packet of a
    look is judged: a server sends nothing after the end or an error, and a packet of 16 MB never fits into a look.
    """
    try:
        arrived = driver._rfile.peek()  # noqa: SLF001
    except OSError:  # the driver meets it again, and knows what to do
        return 0
    known, number = len(rows), driver._next_seq_id  # noqa: SLF001
    header_of, header, add = _HEADER.unpack_from, _HEADER.size, rows.append  # local names: each row needs them
    at, start, last = 0, 0, min(bytes_limit, len(arrived) - header - 1)
    while at <= last:
        low, high, told = header_of(arrived, at)
        if told != number:
            break
        number = number + 1 & 0xFF
        start = at + header
        at = start + low + (high << 16)
        add(arrived[start:at])
    if at > len(arrived) or (at and arrived[start] >= _NO_PLAIN_ROW):
        rows.pop()
        at, number = start - header, number - 1 & 0xFF
    driver._rfile.read(at)  # noqa: SLF001
    driver._next_seq_id = number  # noqa: SLF001
    return at - (len(rows) - known) * (header + columns)


def columns_of(rows: Sequence[bytes], types: Mapping[str, str]) -> pl.DataFrame:
    """Return rows as texts: names and SQL types of the columns are `types`, in the rows' order."""
    if not rows:  # as mostly: nothing new
        return pl.DataFrame(schema=dict.fromkeys(types, pl.String))
    packets = pl.Series(rows, dtype=pl.Binary)
    carried = [part for part in _CARRIED if packets.bin.contains(part).any()]
    values = zip(types.items(), _values(packets, len(types)), strict=True)
    return pl.DataFrame({name: _texts(value, type_name.lower(), carried) for (name, type_name), value in values})


def _values(packets: pl.Series, columns: int) -> Iterator[pl.Series]:
    """Each column's bytes, from the first to the last."""
    at = pl.zeros(len(packets), dtype=pl.Int64, eager=True)
    for _ in range(columns):
        length = packets.bin.get(at)
        start = at = at + 1
        if (length >= _NULL).any():
            missing = length == _NULL
            at, length = _long(packets, at, length.cast(pl.Int64))
            start, length = at.set(missing, None), length.set(missing, 0)  # what begins nowhere is null
        yield pl.select(pl.lit(packets).bin.slice(pl.lit(start), pl.lit(length))).to_series()
        at += length
    if not (at == packets.bin.size()).all():  # values would stand in other columns
        raise pymysql.err.InternalError(f"a row of the server's does not have {columns} columns")


def _long(packets: pl.Series, at: pl.Series, first: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Where values begin and how long they are: from 251 bytes on the length is in the bytes behind the first."""
    if not (first > _NULL).any():
        return at, first
    width = first.replace_strict(_WIDTHS, default=0, return_dtype=pl.Int64)
    length = first.set(width > 0, 0)
    for place in range(int(width.max())):  # type: ignore[arg-type]
        byte = packets.bin.get(at + place, null_on_oob=True).cast(pl.Int64).fill_null(0)
        length += byte.set(width <= place, 0) * 256**place
    return at + width, length


def _texts(values: pl.Series, lowered: str, carried: Sequence[bytes]) -> pl.Series:
    """A column's texts: BIT is a number, BINARY(n) an id that nobody can read but in hex.

    `carried`: what of `_CARRIED` stands anywhere in the page, lengths of values included.
    """
    if lowered.startswith("binary"):
        return values.bin.encode("hex")
    if lowered.startswith("bit"):
        return pl.Series([None if raw is None else str(int.from_bytes(raw)) for raw in values], dtype=pl.String)
    if lowered.startswith(_PLAIN) or not any(values.bin.contains(part).any() for part in carried):
        with contextlib.suppress(pl.exceptions.ComputeError):  # no UTF-8
            return values.cast(pl.String)
    return pl.Series([None if raw is None else text_of(raw) for raw in values], dtype=pl.String)
