"""SQL Server (2017 and later) through pyodbc. Cursors and keys travel as the server's own text at full precision."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from connector.sources import odbc
from connector.sources.dialect import Sample, Settings, SourceType, typed_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

_SAMPLE: Final = sa.text("""
    select datediff_big(nanosecond, '1970-01-01', sysutcdatetime()),
           case when databasepropertyex(db_name(), 'Updateability') = 'READ_ONLY' then 1 else 0 end,
           cast(serverproperty('ServerName') as nvarchar(256)) + ':' + db_name()
""")
_COLUMNS: Final = sa.text(
    "select name, system_type_name from sys.dm_exec_describe_first_result_set(:query, null, 0) order by column_ordinal"
)
#: CONVERT styles that lose nothing: ODBC canonical with all fractions for times, 17 digits for floats, plain for money.
_STYLES: Final = {"date": 121, "float": 3, "real": 3, "money": 2, "smallmoney": 2}

_MICROSECONDS: Final = re.compile(r"(\.\d{3})\d+")
#: SQLAlchemy's compiler for T-SQL; it needs no driver.
_DIALECT: Final = sa.make_url("mssql+pyodbc://").get_dialect()()


class SQLServer:
    """See sources.dialect.Dialect."""

    name = "mssql"

    def engine(self, url: sa.URL, settings: Settings) -> sa.Engine:
        """See Dialect."""
        return sa.create_engine(
            url.set(drivername="mssql+pyodbc"),
            poolclass=sa.pool.NullPool,
            pool_reset_on_return=None,  # closed, never given back: nothing to roll back where the server is gone
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": int(settings.connect_timeout)},
        )

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """See Dialect. Never NOLOCK: a dirty read would become an event about money."""
        connection.execute(sa.text("set transaction isolation level read committed"))
        connection.execute(sa.text(f"set lock_timeout {settings.lock_timeout * 1000:.0f}"))
        connection.execute(sa.text("set language us_english"))
        connection.info["seconds"] = settings.statement_timeout

    def columns(self, connection: sa.Connection, view: str) -> Mapping[str, str]:
        """See Dialect. Asks the server to describe the result, so that no catalogue permission is needed."""
        quoted = ".".join(f"[{part.replace(']', ']]')}]" for part in view.split("."))
        return {
            name: type_name
            for name, type_name in connection.execute(_COLUMNS, {"query": f"select * from {quoted}"})
            if name
        }

    def sample(self, connection: sa.Connection) -> Sample:
        """See Dialect. A readable secondary can't tell its progress to a reader without server-state permission."""
        clock, read_only, server = connection.execute(_SAMPLE).one()
        return Sample(int(clock), None if int(read_only) else int(clock), f"mssql:{server}")

    def bind(self, text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
        """See Dialect. Uncast, varchar columns would be compared as nvarchar (a full scan), datetime as datetime2."""
        if type_name.lower() in {"datetime", "smalldatetime"}:  # neither can be cast from more than three digits
            text = _MICROSECONDS.sub(r"\1", text)
        return typed_value(text, type_name, name)

    def as_text(self, column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
        """See Dialect."""
        return _converted(column, type_name)

    def digest(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any] | None:
        """See Dialect. HASHBYTES works on UTF-16 or a code page: keys are compared themselves."""
        del text
        return None

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int
    ) -> pl.DataFrame:
        """See Dialect."""
        columns: list[sa.ColumnElement[Any]] = [  # no label is a column's name, or ORDER BY would sort by the text
            _converted(column, types[column.name]).label(f"t{index}")
            for index, column in enumerate(query.selected_columns)
        ]
        texts = query.with_only_columns(*columns, maintain_column_froms=True)
        return odbc.fetch(connection, texts, types, bytes_limit=bytes_limit)

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """See Dialect. Plans need SHOWPLAN permission, which a least-privilege role has not."""
        del connection, query
        return None

    def cautions(self, connection: sa.Connection, settings: Settings) -> Sequence[tuple[str, str]]:
        """See Dialect. Nothing that a least-privilege role can see."""
        del connection, settings
        return []

    def cut(self, connection: sa.Connection) -> None:
        """See Dialect."""

    def is_transient(self, error: Exception) -> bool:
        """See Dialect."""
        return odbc.is_transient(error)


def _converted(column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
    """The column converted to text by the server, nothing rounded."""
    lowered = type_name.lower()
    style = next((style for prefix, style in _STYLES.items() if lowered.startswith(prefix)), None)
    target = SourceType("nvarchar(max)" if style is None else "nvarchar(64)")
    arguments: list[sa.ColumnElement[Any]] = [] if style is None else [sa.literal_column(str(style))]
    return sa.func.convert(sa.literal_column(target.text), column, *arguments, type_=sa.UnicodeText())
