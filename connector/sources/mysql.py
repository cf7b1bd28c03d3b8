"""MySQL (5.7 and later) and MariaDB (10.5 and later), read by a streaming cursor with every value left as text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pymysql
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from connector.sources import mysql_rows
from connector.sources.dialect import Sample, Settings, bytes_of, shut, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

_SAMPLE: Final = sa.text(
    "select cast(unix_timestamp(utc_timestamp(6)) * 1000000 as signed) * 1000, @@read_only, @@version"
)
_IDENTITY: Final = {"mariadb": sa.text("select @@server_id"), "mysql": sa.text("select @@server_uuid")}
_COLUMNS: Final = sa.text("""
    select column_name, column_type, character_set_name, collation_name from information_schema.columns
    where table_schema = coalesce(:schema, database()) and table_name = :name order by ordinal_position
""")
_REPLICATION: Final = sa.text("""
    show global variables where variable_name in ('replica_parallel_workers', 'slave_parallel_workers',
        'replica_preserve_commit_order', 'slave_preserve_commit_order')
""")
#: MySQL and MariaDB differ in some of these.
_TRANSIENT: Final = frozenset(
    {
        *(1152, 1158, 1159, 1160, 1161, 1184, 2002, 2003, 2006, 2013, 2055),  # lost connections
        *(1053, 1317, 1927, 4031),  # shutdowns, sessions that were ended
        *(1021, 1037, 1040, 1041, 1135, 1203, 1226),  # no disk, memory, thread or connection is free
        *(1205, 1213, 1969, 3024),  # lock waits, deadlocks, query time-outs
    }
)
#: Stored zero and invalid dates are compared as what they are: a cast of theirs must not become NULL.
_LENIENT_DATES: Final = sa.text("""
    set sql_mode = concat(replace(replace(replace(@@sql_mode, 'TRADITIONAL', ''), 'NO_ZERO_IN_DATE', ''),
                                  'NO_ZERO_DATE', ''), ',ALLOW_INVALID_DATES')
""")
_DECIMAL: Final = re.compile(r"decimal\((\d+),(\d+)\)")
_COLLATED: Final = re.compile(r" character set (\w+) collate (\w+)$")
_MEMBER: Final = re.compile(r"'((?:[^']|'')*)'")
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
            pool_reset_on_return=None,  # closed, never given back: nothing to roll back where the server is gone
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": int(settings.connect_timeout),
                "read_timeout": int(settings.answer_timeout) + 1,
                "charset": "utf8mb4",
                "program_name": "connector",
            },
        )

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """See Dialect. MariaDB and MySQL name their statement time-out differently."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, pymysql.Connection)
        mysql_rows.enlarge(driver)
        connection.execute(sa.text("set session transaction read only"))
        connection.execute(sa.text("set time_zone = '+00:00'"))
        connection.execute(_LENIENT_DATES)
        connection.execute(sa.text("set innodb_lock_wait_timeout = :seconds"), {"seconds": int(settings.lock_timeout)})
        maria = "mariadb" in str(connection.execute(sa.text("select @@version")).scalar_one()).lower()
        if maria:
            connection.execute(sa.text("set max_statement_time = :seconds"), {"seconds": settings.statement_timeout})
        else:
            connection.execute(sa.text("set max_execution_time = :ms"), {"ms": int(settings.statement_timeout * 1000)})

    def columns(self, connection: sa.Connection, view: str) -> Mapping[str, str]:
        """See Dialect. A text's type ends in character set and collation: a bound has to take them."""
        schema, _, name = view.rpartition(".")
        described = connection.execute(_COLUMNS, {"schema": schema or None, "name": name})
        return {
            _text(column): _text(type_name)
            + (f" character set {_text(charset)} collate {_text(collation)}" if collation and charset else "")
            for column, type_name, charset, collation in described
        }

    def sample(self, connection: sa.Connection) -> Sample:
        """See Dialect. A replica can't tell its progress (Seconds_Behind_* reads 0 while the relay log stalls)."""
        clock, read_only, version = connection.execute(_SAMPLE).one()
        family = "mariadb" if "mariadb" in _text(version).lower() else "mysql"
        identity = connection.execute(_IDENTITY[family]).scalar_one()
        return Sample(int(clock), None if int(read_only) else int(clock), f"{family}:{_text(identity)}")

    def bind(self, text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
        """See Dialect. Numbers and times are cast (a bare text compares as a float), texts take the column's collation.

        ENUM and SET are ordered by number, and compared by it only with a number.
        """
        lowered = type_name.lower()
        if lowered.startswith(("enum(", "set(")):
            return sa.bindparam(name, _member(text, type_name), type_=sa.BigInteger())
        if lowered.startswith("binary"):
            return sa.bindparam(name, bytes.fromhex(text), type_=sa.LargeBinary())
        if "binary" in lowered or "blob" in lowered:
            return sa.bindparam(name, bytes_of(text), type_=sa.LargeBinary())
        value = sa.bindparam(name, bytes_of(text).decode(errors="replace"), type_=sa.String())
        if collated := _COLLATED.search(type_name):
            return sa.collate(sa.cast(value, mysql.CHAR(charset=collated[1])), collated[2])
        target = _cast_type(lowered)
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
        """See Dialect. What arrives is the server's own text: no converter of the driver's touches it."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, pymysql.Connection)
        compiled = _compiled(query)
        cursor = driver.cursor(mysql_rows.RowCursor)
        try:
            cursor.execute(str(compiled), compiled.params)
            rows, stopped = mysql_rows.read(cursor, columns=len(types), bytes_limit=bytes_limit)
            if stopped:  # nothing else stops the server from sending all of it
                _forget(cursor)
                connection.invalidate()
        finally:
            if not driver.open:
                _forget(cursor)
            cursor.close()
        return mysql_rows.columns_of(rows, types)

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """See Dialect."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, pymysql.Connection)
        compiled = _compiled(query)
        with driver.cursor() as cursor:
            cursor.execute("EXPLAIN " + str(compiled), compiled.params)
            return any("filesort" in str(row) for row in cursor.fetchall())

    def cautions(self, connection: sa.Connection, settings: Settings) -> Sequence[tuple[str, str]]:
        """See Dialect. MariaDB's parallel replicas always commit in order; MySQL's do if they are told to."""
        del settings
        values = {_text(name).lower(): _text(value).lower() for name, value in connection.execute(_REPLICATION)}
        parallel = any(value not in {"0", "1"} for name, value in values.items() if name.endswith("_workers"))
        if not parallel or "off" not in values.values():
            return []
        text = "the replica applies transactions in parallel and not in their order: rows may come later than lateness"
        return [(text, "set replica_preserve_commit_order = ON there, or raise lateness")]

    def cut(self, connection: sa.Connection) -> None:
        """See Dialect."""
        driver: Any = connection.connection.driver_connection
        shut(driver._sock.fileno())  # noqa: SLF001 - the driver has no public name for it

    def is_transient(self, error: Exception) -> bool:
        """See Dialect."""
        original = getattr(error, "orig", None) or error
        if isinstance(original, pymysql.err.InterfaceError):
            return True
        return isinstance(original, pymysql.err.MySQLError) and bool(original.args) and original.args[0] in _TRANSIENT


def _forget(cursor: mysql_rows.RowCursor) -> None:
    """Drop the rest of a result that nobody wants: the driver would read it to its end, also when it is collected."""
    if (result := getattr(cursor, "_result", None)) is not None:
        result.unbuffered_active = False


def _text(value: object) -> str:
    """Decode what the server sent."""
    return text_of(bytes(value)) if isinstance(value, bytes | bytearray) else str(value)


def _member(text: str, type_name: str) -> int:
    """Return the number of an ENUM's member, or the bits of a SET's; 0 is the empty text."""
    members = [member.replace("''", "'") for member in _MEMBER.findall(type_name.partition(" character set ")[0])]
    if type_name.lower().startswith("enum("):
        return members.index(text) + 1 if text in members else 0
    return sum(1 << members.index(member) for member in text.split(",") if member in members)


def _cast_type(lowered: str) -> sa.types.TypeEngine[Any] | None:
    """Return what CAST knows of a column's type: SQLAlchemy leaves a cast to any other out."""
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
