"""Reads a view of MariaDB to its end and throws it away: what the driver can do at all. A process of its own.

As a program reads it that wants its texts: one connection, a streaming cursor, values left as the server's text.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import pymysql
from pymysql.cursors import SSCursor

_PORT: Final = int(os.environ.get("PORT", "3306"))


def main() -> None:
    """Read the view VIEW, print how many rows there were."""
    user, _, password = os.environ["LOGIN"].partition(":")
    connection = pymysql.connect(host="127.0.0.1", port=_PORT, user=user, password=password, charset="utf8mb4")
    schema, _, view = os.environ["VIEW"].partition(".")
    with connection.cursor() as cursor:
        cursor.execute(
            "select column_name from information_schema.columns where table_schema = %s and table_name = %s"
            " order by ordinal_position",
            (schema, view),
        )
        columns = ", ".join(name for (name,) in cursor.fetchall())
    connection.decoders, connection.use_unicode = {}, False
    rows = 0
    with connection.cursor(SSCursor) as streaming:
        streaming.execute(f"select {columns} from {schema}.{view} order by id")
        while streaming.fetchone():
            rows += 1
    sys.stdout.write(f"{rows}\n")


if __name__ == "__main__":
    main()
