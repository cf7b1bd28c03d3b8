"""Frames into PostgreSQL by COPY, written and parsed by compiled code at both ends: no value is a Python object."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, LiteralString

from polars import selectors

if TYPE_CHECKING:
    import polars as pl
    import psycopg

#: Sent at once: the server parses one part while the next is written.
_ROWS: Final = 16_000
#: No text has these often, so that hardly anything is quoted: JSON would be, everywhere.
_SEPARATOR: Final = "\t"
_QUOTE: Final = "\x01"
_INSTANT: Final = "%Y-%m-%d %H:%M:%S%.6f+00"
_FORMAT: Final[LiteralString] = "(format csv, delimiter e'\\t', quote e'\\x01')"


def copy_frame(connection: psycopg.Connection[Any], target: LiteralString, frame: pl.DataFrame) -> None:
    """COPY a frame into `target`, written as `table (column, ...)` in the frame's column order; its times are in UTC.

    Null (nothing) and the empty text (quoted) are kept apart on both sides.
    """
    instants = selectors.datetime(time_zone="*")
    texts = frame.with_columns(instants.dt.replace_time_zone(None).dt.strftime(_INSTANT))
    with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin {_FORMAT}") as copy:
        for part in texts.iter_slices(_ROWS):
            buffer = BytesIO()
            part.write_csv(buffer, include_header=False, separator=_SEPARATOR, quote_char=_QUOTE)
            copy.write(buffer.getbuffer())
