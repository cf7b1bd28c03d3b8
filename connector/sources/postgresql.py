"""PostgreSQL (10 and later), primary or hot standby, read by COPY: 1.5 us a row where a fetch costs 10."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg
import sqlalchemy as sa
from psycopg import generators

from connector.sources.dialect import Sample, Settings, SourceType, bytes_of, shut, text_of, typed_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

_SAMPLE: Final = sa.text("""
    select (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000,
           case when pg_is_in_recovery()
                then (extract(epoch from pg_last_xact_replay_timestamp()) * 1000000)::bigint * 1000
                else (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000 end,
           txid_snapshot_xmin(txid_current_snapshot()), txid_snapshot_xmax(txid_current_snapshot()),
           (select system_identifier::text from pg_control_system())
""")
_SAMPLE_WITHOUT_CONTROL: Final = sa.text(
    _SAMPLE.text.replace("(select system_identifier::text from pg_control_system())", "current_database()::text")
)
_COLUMNS: Final = sa.text("""
    select attname, format_type(atttypid, atttypmod) from pg_attribute
    where attrelid = to_regclass(:view) and attnum > 0 and not attisdropped
      and has_column_privilege(attrelid, attnum, 'select')
    order by attnum
""")
_STANDBY: Final = sa.text("""
    select pg_is_in_recovery(), current_setting('hot_standby_feedback'),
           (select setting::bigint from pg_settings where name = 'max_standby_streaming_delay')
""")
#: SQLSTATEs that pass, or the classes of them: connection failures, operator intervention (query time-outs too),
#: resources, serialization (standby conflicts), waits for a lock, transactions idle or open for too long.
TRANSIENT: Final = ("08", "57", "53", "40", "55P03", "25P03", "25P04")
#: SQLAlchemy's compiler for psycopg; it needs no connection.
_DIALECT: Final = sa.make_url("postgresql+psycopg://").get_dialect()()
#: A database of this encoding holds any bytes, and the server refuses to send what is no UTF-8 as text.
ANY_BYTES: Final = "SQL_ASCII"


class _PageFullError(Exception):
    """Leaves a COPY early: only an exception makes the driver cancel what is left of it."""


def _rows(pgconn: PGconn, buffer: bytearray, limit: int) -> PQGen[bool]:
    """Add what a COPY sends to `buffer`, row by row as libpq has it; returns whether it has ended within the limit.

    The driver's own `Copy.read` does the same and starts a generator for each row: 1.3 us a row against 0.8.
    """
    while len(buffer) <= limit:
        size, row = pgconn.get_copy_data(1)
        if size > 0:
            buffer += row
        elif size == 0:  # nothing has come yet
            while not (yield generators.WAIT_R):
                continue
            pgconn.consume_input()
        else:
            (result,) = yield from generators.fetch_many(pgconn)
            if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
            return True
    return False


class PostgreSQL:
    """See sources.dialect.Dialect."""

    name = "postgresql"

    def engine(self, url: sa.URL, settings: Settings) -> sa.Engine:
        """See Dialect."""
        return sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=sa.pool.NullPool,
            pool_reset_on_return=None,  # closed, never given back: nothing to roll back where the server is gone
            isolation_level="AUTOCOMMIT",
            connect_args={
                "connect_timeout": int(settings.connect_timeout),
                "application_name": "connector",
                "client_encoding": "UTF8",
                "keepalives_idle": 30,
            },
        )

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """See Dialect."""
        for name, value in (
            ("default_transaction_read_only", "on"),
            ("timezone", "UTC"),
            ("datestyle", "ISO, YMD"),
            ("intervalstyle", "postgres"),
            ("extra_float_digits", "1"),
            ("bytea_output", "hex"),
            ("client_encoding", "UTF8"),
            ("statement_timeout", f"{settings.statement_timeout * 1000:.0f}"),
            ("lock_timeout", f"{settings.lock_timeout * 1000:.0f}"),
            ("idle_in_transaction_session_timeout", f"{settings.answer_timeout * 1000:.0f}"),
            ("max_parallel_workers_per_gather", "0"),  # one connection is one process: the replica is not ours alone
            ("jit", "off"),  # a page ends before compiling its query has paid
        ):
            connection.execute(sa.select(sa.func.set_config(name, value, sa.false())))

    def columns(self, connection: sa.Connection, view: str) -> Mapping[str, str]:
        """See Dialect."""
        quoted = ".".join('"' + part.replace('"', '""') + '"' for part in view.split("."))  # to_regclass folds case
        return {str(name): str(type_name) for name, type_name in connection.execute(_COLUMNS, {"view": quoted})}

    def sample(self, connection: sa.Connection) -> Sample:
        """See Dialect. A role without pg_control_system() is identified by its database alone."""
        try:
            clock, progress, ended, begun, server = connection.execute(_SAMPLE).one()
        except sa.exc.ProgrammingError:
            clock, progress, ended, begun, server = connection.execute(_SAMPLE_WITHOUT_CONTROL).one()
        return Sample(clock, progress, f"postgresql:{server}", (ended, begun))

    def bind(self, text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
        """See Dialect. What is no text travels as its bytes."""
        raw = bytes_of(text)
        if raw == text.encode():
            return typed_value(text, type_name, name)
        said = sa.func.convert_from(sa.func.decode(sa.bindparam(name, raw.hex(), type_=sa.String()), "hex"), ANY_BYTES)
        return sa.cast(said, SourceType(type_name))

    def as_text(self, column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
        """See Dialect. A cast would trim CHAR(n) and spell booleans out; COPY does neither, nor does concat."""
        del type_name
        return sa.func.concat(column, type_=sa.Text())

    def digest(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any] | None:
        """See Dialect."""
        md5 = sa.func.md5(sa.func.convert_to(text, sa.literal_column("'UTF8'")))
        bits = sa.cast(sa.literal_column("'x'").concat(sa.func.substr(md5, 1, 8)), SourceType("bit(32)"))
        return sa.cast(bits, sa.BigInteger())

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int
    ) -> pl.DataFrame:
        """See Dialect. COPY in CSV keeps NULL (nothing) and the empty text (quoted) apart, and so does the parser."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        compiled = query.compile(dialect=_DIALECT)
        text = psycopg.ClientCursor(driver).mogrify(str(compiled), compiled.params)
        untold = driver.info.parameter_status("server_encoding") == ANY_BYTES
        encoding = f", ENCODING '{ANY_BYTES}'" if untold else ""
        statement: Any = f"COPY ({text}) TO STDOUT (FORMAT csv{encoding})".encode()
        buffer = bytearray()
        with contextlib.suppress(_PageFullError), driver.cursor() as cursor, cursor.copy(statement):
            if not driver.wait(_rows(driver.pgconn, buffer, bytes_limit)):
                raise _PageFullError
        if not buffer:  # as mostly: nothing new
            return pl.DataFrame(schema=dict.fromkeys(types, pl.String))
        raw = text_of(bytes(buffer)).encode() if untold or b"\xf4\x8f" in buffer else bytes(buffer)
        return pl.read_csv(raw, has_header=False, schema=dict.fromkeys(types, pl.String), infer_schema=False)

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """See Dialect. Sorting is priced out, so a Sort that is still in the plan has no index to replace it."""
        for way in ("sort", "seqscan"):
            connection.execute(sa.text(f"set enable_{way} = off"))
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        compiled = query.compile(dialect=_DIALECT)
        plan = psycopg.ClientCursor(driver).execute("EXPLAIN " + str(compiled), compiled.params).fetchall()
        for way in ("sort", "seqscan"):  # a session that failed is not used again
            connection.execute(sa.text(f"reset enable_{way}"))
        return any("Sort" in line[0] for line in plan)

    def cautions(self, connection: sa.Connection, settings: Settings) -> Sequence[tuple[str, str]]:
        """See Dialect. A standby cancels reads that are in the way of its replay."""
        standby, feedback, delay = connection.execute(_STANDBY).one()
        if not standby or feedback == "on" or delay < 0 or delay >= settings.statement_timeout * 1000:
            return []
        enough = f"{settings.statement_timeout:g}s"
        remedy = f"set hot_standby_feedback = on there, or max_standby_streaming_delay to at least {enough}"
        return [(f"the standby cancels reads that are in the way of replay after {delay / 1000:g} s", remedy)]

    def cut(self, connection: sa.Connection) -> None:
        """See Dialect."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        shut(driver.fileno())

    def is_transient(self, error: Exception) -> bool:
        """See Dialect."""
        original = getattr(error, "orig", None) or error
        if not isinstance(original, psycopg.Error):
            return False
        state = original.sqlstate
        if state is None:
            return isinstance(original, psycopg.OperationalError)
        return state.startswith(TRANSIENT)
