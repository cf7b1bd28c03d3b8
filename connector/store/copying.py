"""Frames into PostgreSQL by COPY, written and parsed by compiled code at both ends: no value is a Python object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, LiteralString

if TYPE_CHECKING:
    import polars as pl
    import psycopg

_INSTANT: Final = "%Y-%m-%d %H:%M:%S%.6f+00"


def copy_frame(connection: psycopg.Connection[Any], target: LiteralString, frame: pl.DataFrame) -> None:
    """COPY a frame into `target`, written as `table (column, ...)` in the frame's column order.

    CSV keeps null (nothing) and the empty text (quoted) apart on both sides.
    """
    with connection.cursor() as cursor, cursor.copy(f"copy {target} from stdin (format csv)") as copy:
        copy.write(frame.write_csv(include_header=False, datetime_format=_INSTANT).encode())
