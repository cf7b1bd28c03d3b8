"""MySQL (5.7 and later) and MariaDB (10.5 and later), read by a streaming cursor with every value left as text."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pymysql
import sqlalchemy as sa
from pymysql.cursors import SSCursor
from sqlalchemy.dialects import mysql

from connector.sources.dialect import Sample, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_SAMPLE: Final = sa.text(
    "select cast(unix_timestamp(utc_timestamp(6)) * 1000000 as signed) * 1000, @@read_only, @@version"
)
_MARIADB_IDENTITY: Final = sa.text("select @@server_id")
_COLUMNS: Final = sa.text("""
    select column_name, column_type from information_schema.columns
    where table_schema = coalesce(:schema, database()) and table_name = :name order by ordinal_position
""")
#: Lost connections, lock waits, deadlocks, shutdowns, query time-outs (MySQL and MariaDB have their own).
_TRANSIENT: Final = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1205, 1213, 1317, 1969, 2002, 2003, 2006, 2013, 2055, 3024}
)
_FETCH_ROWS: Final = 1000
_DECIMAL: Final = re.compile(r"decimal\((\d+),(\d+)\)")
#: Named parameters: the driver takes a mapping only for those.
_DIALECT: Final = mysql.pymysql.dialect(paramstyle="pyformat")


class MySQL:
    """See sources.dialect.Dialect."""

    name = "mysql"

    def engine(self, url: sa.URL, settings: Settings) -> sa.Engine:
        """See Dialect."""
        return sa.create_engine(
            url.set(drivername="mysql+pymysql"),
            poolclass=sa.pool.NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": int(settings.connect_timeout),
                "read_timeout": int(settings.statement_timeout) + 10,
                "charset": "utf8mb4",
                "program_name": "connector",
            },
        )

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """See Dialect. MariaDB and MySQL name their statement time-out differently."""
        connection.execute(sa.text("set session transaction read only"))
        connection.execute(sa.text("set time_zone = '+00:00'"))
        connection.execute(sa.text("set innodb_lock_wait_timeout = :seconds"), {"seconds": int(settings.lock_timeout)})
        maria = "mariadb" in str(connection.execute(sa.text("select @@version")).scalar_one()).lower()
        if maria:
            connection.execute(sa.text("set max_statement_time = :seconds"), {"seconds": settings.statement_timeout})
        else:
            connection.execute(sa.text("set max_execution_time = :ms"), {"ms": int(settings.statement_timeout * 1000)})

    def columns(self, connection: sa.Connection, view: str) -> Mapping[str, str]:
        """See Dialect."""
        schema, _, name = view.rpartition(".")
        return {
            _text(column): _text(type_name)
            for column, type_name in connection.execute(_COLUMNS, {"schema": schema or None, "name": name})
        }

    def sample(self, connection: sa.Connection) -> Sample:
        """See Dialect. A replica can't tell its progress (Seconds_Behind_* reads 0 while the relay log stalls)."""
        clock, read_only, version = connection.execute(_SAMPLE).one()
        identity = None
        with contextlib.suppress(sa.exc.DBAPIError):  # MySQL only
            identity = connection.execute(sa.text("select @@server_uuid")).scalar_one()
        if identity is None:
            identity = connection.execute(_MARIADB_IDENTITY).scalar_one()
        family = "mariadb" if "mariadb" in _text(version).lower() else "mysql"
        return Sample(int(clock), None if int(read_only) else int(clock), f"{family}:{_text(identity)}")

    def bind(self, text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
        """See Dialect. Numbers and times are cast (a bare text compares as a float); texts keep the collation."""
        target = _cast_type(type_name)
        value = sa.bindparam(name, text, type_=sa.String())
        return value if target is None else sa.cast(value, target)

    def as_text(self, column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
        """See Dialect. BIT is read as its number."""
        value = sa.cast(column, mysql.BIGINT(unsigned=True)) if type_name.lower().startswith("bit") else column
        return sa.func.convert(value.op("using")(sa.literal_column("utf8mb4")), type_=sa.Text())

    def digest(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any] | None:
        """See Dialect. CONV gives a text, whose sum would be a float."""
        return sa.cast(sa.func.conv(sa.func.left(sa.func.md5(text), 8), 16, 10), mysql.BIGINT(unsigned=True))

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int
    ) -> pl.DataFrame:
        """See Dialect. The driver's converters are switched off: what arrives is the server's own text."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, pymysql.Connection)
        compiled = _compiled(query)
        readers = [_number if type_name.lower().startswith("bit") else _text for type_name in types.values()]
        decoders, driver.decoders = driver.decoders, {}
        rows: list[tuple[str | None, ...]] = []
        size = 0
        cursor = driver.cursor(SSCursor)
        try:
            cursor.execute(str(compiled), compiled.params)
            while size <= bytes_limit and (batch := cursor.fetchmany(_FETCH_ROWS)):
                for row in batch:
                    texts = tuple(
                        None if value is None else read(value) for read, value in zip(readers, row, strict=True)
                    )
                    size += sum(len(text) for text in texts if text)
                    rows.append(texts)
        finally:
            driver.decoders = decoders
            cursor.close()  # reads what is left of the result: pages are bounded in rows too
        return pl.DataFrame(rows, schema=dict.fromkeys(types, pl.String), orient="row")

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """See Dialect."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, pymysql.Connection)
        compiled = _compiled(query)
        with driver.cursor() as cursor:
            cursor.execute("EXPLAIN " + str(compiled), compiled.params)
            return any("filesort" in str(row) for row in cursor.fetchall())

    def is_transient(self, error: Exception) -> bool:
        """See Dialect."""
        original = getattr(error, "orig", None) or error
        if isinstance(original, pymysql.err.InterfaceError):
            return True
        return isinstance(original, pymysql.err.MySQLError) and bool(original.args) and original.args[0] in _TRANSIENT


def _text(value: object) -> str:
    """Decode what the server sent; NUL and bytes that are no UTF-8 become U+FFFD rather than a lost page."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
    return text.replace("\0", "\ufffd")


def _number(value: object) -> str:
    """Read BIT, the only type that arrives as bytes of a number."""
    return str(int.from_bytes(value)) if isinstance(value, bytes | bytearray) else _text(value)


def _cast_type(type_name: str) -> sa.types.TypeEngine[Any] | None:
    """Return what CAST knows of a column's type: SQLAlchemy leaves a cast to any other out."""
    lowered = type_name.lower()
    if lowered.startswith(("datetime", "timestamp")):
        return mysql.DATETIME(fsp=6)
    if lowered.startswith("date"):
        return sa.Date()
    if "int" in lowered or lowered.startswith("bit"):
        return mysql.BIGINT(unsigned="unsigned" in lowered or lowered.startswith("bit"))
    if match := _DECIMAL.match(lowered):
        return mysql.DECIMAL(int(match[1]), int(match[2]))
    return None


def _compiled(query: sa.Select[Any]) -> sa.Compiled:
    return query.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
