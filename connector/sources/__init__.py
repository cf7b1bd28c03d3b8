"""Databases that views are read from: one file per dialect. To add one: write its file, list its URL scheme here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector.sources.mysql import MySQL
from connector.sources.postgresql import PostgreSQL
from connector.sources.postgresql_odbc import PostgreSQLOverODBC
from connector.sources.sqlserver import SQLServer

if TYPE_CHECKING:
    from connector.sources.dialect import Dialect

#: Scheme of sources[].url -> dialect.
DIALECTS: Final[dict[str, Dialect]] = {
    "postgresql": PostgreSQL(),
    "postgresql+psycopg": PostgreSQL(),
    "postgresql+pyodbc": PostgreSQLOverODBC(),
    "mysql": MySQL(),
    "mysql+pymysql": MySQL(),
    "mariadb": MySQL(),
    "mssql": SQLServer(),
    "mssql+pyodbc": SQLServer(),
}
