"""PostgreSQL through psqlodbc (`postgresql+pyodbc://`): for networks where only the ODBC driver is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.connectors.pyodbc import PyODBCConnector
from sqlalchemy.dialects.postgresql.base import PGDialect

from connector.sources import odbc
from connector.sources.postgresql import ANY_BYTES, TRANSIENT, PostgreSQL

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl
    from sqlalchemy.engine.interfaces import ConnectArgsType

    from connector.sources.dialect import Settings


#: The server ends a statement by itself; the driver is asked only when it did not.
_GRACE: Final = 2.0
#: Values that may hold any character; psqlodbc takes braces off these alone.
_BRACED: Final = frozenset({"DRIVER", "PWD"})


class _Dialect(PyODBCConnector, PGDialect):
    """SQLAlchemy's PostgreSQL SQL over its pyodbc connector: `?` parameters."""

    supports_statement_cache = True
    default_paramstyle = "qmark"
    use_setinputsizes = False

    def create_connect_args(self, url: sa.URL) -> ConnectArgsType:
        """Build the ODBC connection string; `driver` in the URL's query names the driver."""
        options = dict(url.query)
        parts = {
            "DRIVER": str(options.pop("driver", "PostgreSQL Unicode")),
            "SERVER": url.host or "127.0.0.1",
            "PORT": str(url.port or 5432),
            "DATABASE": url.database or "",
            "UID": url.username or "",
            "PWD": str(url.password or ""),
            "BoolsAsChar": "0",
            "MaxLongVarcharSize": "8190",
            "UseDeclareFetch": "1",
            "Fetch": "100",
        }
        return [";".join(f"{name}={_braced(value) if name in _BRACED else value}" for name, value in parts.items())], {}


class PostgreSQLOverODBC(PostgreSQL):
    """PostgreSQL's SQL, ODBC's way of fetching. See sources.dialect.Dialect."""

    name = "postgresql+pyodbc"

    def engine(self, url: sa.URL, settings: Settings) -> sa.Engine:
        """See Dialect."""
        sa.dialects.registry.register("postgresql.pyodbc", __name__, "_Dialect")
        return sa.create_engine(
            url.set(drivername="postgresql+pyodbc"),
            poolclass=sa.pool.NullPool,
            pool_reset_on_return=None,  # closed, never given back: nothing to roll back where the server is gone
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": int(settings.connect_timeout)},
        )

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """See Dialect."""
        super().prepare(connection, settings)
        connection.info["seconds"] = settings.statement_timeout + _GRACE  # two at once confuse the driver
        connection.info["encoding"] = connection.execute(sa.text("show server_encoding")).scalar_one()

    def as_text(self, column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
        """See Dialect."""
        del type_name
        return sa.cast(column, sa.Text())

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int
    ) -> pl.DataFrame:
        """See Dialect. Every column is cast to text by the server, so the driver can round nothing.

        The labels differ from the columns' names, or ORDER BY would sort by the texts.
        """
        texts = [self.as_text(column, "") for column in query.selected_columns]
        if untold := connection.info["encoding"] == ANY_BYTES:
            texts = [sa.func.encode(sa.func.convert_to(text, ANY_BYTES), "hex") for text in texts]
        labelled = [text.label(f"t{index}") for index, text in enumerate(texts)]
        return odbc.fetch(
            connection,
            query.with_only_columns(*labelled, maintain_column_froms=True),
            types,
            bytes_limit=bytes_limit,
            read=bytes.fromhex if untold else str.encode,
        )

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """See Dialect. Not asked over ODBC."""
        del connection, query
        return None

    def cut(self, connection: sa.Connection) -> None:
        """See Dialect."""

    def is_transient(self, error: Exception) -> bool:
        """See Dialect."""
        return odbc.is_transient(error, TRANSIENT)


def _braced(value: str) -> str:
    return "{" + value.replace("}", "}}") + "}"
