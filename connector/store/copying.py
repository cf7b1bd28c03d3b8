"""Frames into PostgreSQL by COPY, written and parsed by compiled code at both ends: no value is a Python object."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, LiteralString

import polars as pl
from polars import selectors

if TYPE_CHECKING:
    import psycopg

#: Sent at once: the server parses one part while the next is written.
_ROWS: Final = 16_000
_INSTANT: Final = "%Y-%m-%d %H:%M:%S%.6f+00"
#: COPY's text format, as PostgreSQL's manual has it: null, and what no text has as it is.
_NULL: Final = "\\N"
_ODD: Final = r"[\\\t\n\r]"
_ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def array(texts: pl.Series) -> str:
    """Write texts as PostgreSQL writes an array, null for null: the driver looks at each member three times."""
    escaped = pl.lit(texts).str.replace_many({"\\": "\\\\", '"': '\\"'})
    members = pl.select(pl.concat_str(pl.lit('"'), escaped, pl.lit('"')).fill_null("NULL")).to_series()
    return "{" + str(members.str.join(",").item()) + "}"


def copy_frame(connection: psycopg.Connection[Any], target: LiteralString, frame: pl.DataFrame) -> None:
    """COPY a frame into `target`, written as `table (column, ...)` in the frame's column order.

    Null and the empty text are kept apart; its times are in UTC.
    """
    instants = selectors.datetime(time_zone="*")
    texts = frame.with_columns(instants.dt.replace_time_zone(None).dt.strftime(_INSTANT))
    odd = [found.name for found in frame.select(selectors.string().str.contains(_ODD).any()) if found.item()]
    if odd:  # seldom
        texts = texts.with_columns(pl.col(odd).str.replace_many(_ESCAPES))
    with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin") as copy:
        for part in texts.iter_slices(_ROWS):
            buffer = BytesIO()
            part.write_csv(buffer, include_header=False, separator="\t", quote_style="never", null_value=_NULL)
            copy.write(buffer.getbuffer())
