"""Frames into PostgreSQL by COPY, written and parsed by compiled code at both ends; a few rows Python writes faster."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, LiteralString

import polars as pl
from polars import selectors

if TYPE_CHECKING:
    import psycopg

#: So many rows Python writes faster: compiled code takes as long for one.
_FEW: Final = 80
#: Sent at once: the server parses one part while the next is written.
_ROWS: Final = 16_000
_INSTANT: Final = "%Y-%m-%d %H:%M:%S%.6f+00"
#: COPY's text format, as PostgreSQL's manual has it: null, and what no text has as it is.
_NULL: Final = "\\N"
_ODD: Final = r"[\\\t\n\r]"
_ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_FIELD: Final = str.maketrans(_ESCAPES)


def array(texts: pl.Series) -> str:
    """Write texts as PostgreSQL writes an array, null for null: the driver looks at each member three times."""
    return "{" + ",".join(["NULL" if text is None else _member(text) for text in texts.to_list()]) + "}"


def _member(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def copy_frame(connection: psycopg.Connection[Any], target: LiteralString, frame: pl.DataFrame) -> None:
    """COPY a frame into `target`, written as `table (column, ...)` in the frame's column order.

    Null and the empty text are kept apart; its times are in UTC.
    """
    if frame.height <= _FEW:
        lines = [_line(row) for row in frame.rows()]
        with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin") as copy:
            copy.write("".join(lines))
        return
    instants = selectors.datetime(time_zone="*")
    texts = frame.with_columns_seq(instants.dt.replace_time_zone(None).dt.strftime(_INSTANT))
    odd = [found.name for found in frame.select_seq(selectors.string().str.contains(_ODD).any()) if found.item()]
    if odd:  # seldom
        texts = texts.with_columns_seq(pl.col(odd).str.replace_many(_ESCAPES))
    with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin") as copy:
        for part in texts.iter_slices(_ROWS):
            buffer = BytesIO()
            part.write_csv(buffer, include_header=False, separator="\t", quote_style="never", null_value=_NULL)
            copy.write(buffer.getbuffer())


def _line(row: tuple[Any, ...]) -> str:
    return "\t".join([_NULL if value is None else str(value).translate(_FIELD) for value in row]) + "\n"
