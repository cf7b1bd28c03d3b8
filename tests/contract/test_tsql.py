"""SQL Server's SQL without a server: what the reader would send parses as T-SQL and keeps data in parameters."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
import sqlalchemy as sa
import sqlglot
from sqlglot import exp

from connector.buckets import AmountColumn
from connector.errors import Misconfigured, Transient
from connector.position import Position, Window
from connector.sources import sqlserver
from connector.sources.dialect import Settings
from connector.sources.reader import Reader, View
from connector.sources.sqlserver import SQLServer

if TYPE_CHECKING:
    from collections.abc import Sequence

pyodbc = pytest.importorskip("pyodbc", exc_type=ImportError)

URL: Final = "mssql+pyodbc://reader:secret@replica.example.com/casino?driver=ODBC+Driver+18"
TYPES: Final = {
    "dt_finalized": "datetime2(7)",
    "ext_brand_id": "varchar(20)",
    "user_ext_id": "nvarchar(40)",
    "deposit_amount": "decimal(19,4)",
    "old stamp": "datetime",
    "cash": "money",
    "odds": "float",
    "flag": "bit",
    "row]id": "uniqueidentifier",
}
#: A cursor of seven digits, and a key that would break out of a literal.
PLACE: Final = Position("2026-01-02 03:04:05.1234567", ("kaasino'; drop table x --", "00'123"), 0)
VIEW: Final = View("crm_export.deposits", "dt_finalized", "time", ("ext_brand_id", "user_ext_id"), tuple(TYPES), TYPES)


_CASTS: Final = re.compile(r"CAST\(\? AS (\w+(?:\([\w, ]+\))?)\)")


class Driver:
    """Stands where the ODBC driver would: notes statements with their parameters and returns no rows."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, list[Any]]] = []

    def cursor(self) -> Driver:
        return self

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self.statements.append((statement, list(parameters)))

    def fetchone(self) -> None:
        pass

    def cancel(self) -> None:
        raise AssertionError("nothing takes that long")

    def close(self) -> None:
        pass


class Session:
    """What the reader uses of a SQLAlchemy connection."""

    dialect = sa.create_engine(URL).dialect
    invalidated = False

    def __init__(self, driver: Driver) -> None:
        self.driver_connection = driver
        self.info = {"seconds": 5.0}

    @property
    def connection(self) -> Session:
        return self

    def execute(self, query: Any, _: object = None) -> Any:
        compiled = query.compile(dialect=self.dialect, compile_kwargs={"render_postcompile": True})
        parameters = [compiled.params[name] for name in compiled.positiontup or ()]
        self.driver_connection.execute(str(compiled), parameters)
        return self

    def scalar_one(self) -> int:
        return 0

    def invalidate(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def reader(driver: Driver) -> Reader:
    made = Reader(URL, source="casino")
    made._connection = Session(driver)  # type: ignore[assignment]
    return made


def parsed(driver: Driver) -> tuple[exp.Expression, str, list[Any]]:
    """Return the only statement, parsed as T-SQL, and its parameters; nothing of the data stands in its text."""
    ((statement, parameters),) = driver.statements
    for part in (PLACE.cursor, *PLACE.key, "drop table"):
        assert part not in statement
    assert statement.count("?") == len(parameters)
    (tree,) = sqlglot.parse(statement, dialect="tsql")
    assert isinstance(tree, exp.Select)
    assert " LIMIT " not in f" {statement.upper()} "
    assert "NOLOCK" not in statement.upper()
    return tree, statement, parameters


def casts_of_parameters(tree: exp.Expression, statement: str) -> list[str]:
    """Return the type that each parameter in the conditions is cast to, as they stand; none may be bare."""
    for placeholder in tree.args["where"].find_all(exp.Placeholder):
        assert isinstance(placeholder.parent, exp.Cast), placeholder.parent
    return _CASTS.findall(statement)


def top_of(tree: exp.Expression) -> str:
    """Return what TOP says."""
    limit = tree.args["limit"]
    assert isinstance(limit, exp.Limit | exp.Fetch)
    return str(limit.expression.sql("tsql"))


def order_of(tree: exp.Expression) -> list[tuple[str, bool]]:
    """Return the columns that order the rows, and whether downwards."""
    return [(ordered.this.name, bool(ordered.args.get("desc"))) for ordered in tree.args["order"].expressions]


def test_the_first_page_takes_the_top_in_keyset_order(reader: Reader, driver: Driver) -> None:
    """TOP instead of LIMIT; ordered by the columns themselves, not by their texts."""
    reader.read(VIEW, Window(None, None), limit=500)
    tree, statement, parameters = parsed(driver)
    assert "TOP" in statement
    assert top_of(tree).strip("()") in {"500", "?"}
    assert parameters in ([], [500])
    assert order_of(tree) == [("dt_finalized", False), ("ext_brand_id", False), ("user_ext_id", False)]
    aliases = {select.alias for select in tree.expressions}
    assert not aliases & set(TYPES)


def test_a_page_goes_on_behind_a_position(reader: Reader, driver: Driver) -> None:
    """`cursor >= c` alone stands first; ties go on by the key; every text is cast to its column's exact type."""
    reader.read(VIEW, Window(PLACE, None), limit=500)
    tree, statement, parameters = parsed(driver)
    assert [value for value in parameters if isinstance(value, str)] == [
        *(PLACE.cursor, PLACE.cursor, PLACE.cursor),
        *(PLACE.key[0], PLACE.key[0], PLACE.key[1]),
    ]
    assert casts_of_parameters(tree, statement) == ["datetime2(7)"] * 3 + ["varchar(20)"] * 2 + ["nvarchar(40)"]
    first = next(tree.args["where"].find_all(exp.GTE))
    assert first.this.name == "dt_finalized"
    assert isinstance(first.parent, exp.And)


def test_a_page_ends_at_its_bound(reader: Reader, driver: Driver) -> None:
    """`until` is inclusive and cast like the cursor."""
    reader.read(VIEW, Window(None, "2026-01-02 03:04:05.1234567"), limit=500)
    tree, statement, parameters = parsed(driver)
    assert "2026-01-02 03:04:05.1234567" in parameters
    assert casts_of_parameters(tree, statement) == ["datetime2(7)"]
    (bound,) = tree.args["where"].find_all(exp.LTE)
    assert bound.this.name == "dt_finalized"


@pytest.mark.parametrize(
    ("key", "cast"),
    [("old stamp", "datetime"), ("cash", "money"), ("row]id", "uniqueidentifier"), ("deposit_amount", "decimal(19,4)")],
)
def test_keys_of_any_type_are_cast_to_it(reader: Reader, driver: Driver, key: str, cast: str) -> None:
    """Datetime is not compared as datetime2, nor a guid as a text; odd names are quoted."""
    view = View("deposits", "dt_finalized", "time", (key,), tuple(TYPES), TYPES)
    reader.read(view, Window(Position(PLACE.cursor, PLACE.key[:1], 0), None), limit=5)
    tree, statement, _ = parsed(driver)
    assert casts_of_parameters(tree, statement)[-1] == cast
    assert order_of(tree)[-1] == (key, False)


def test_an_id_that_is_its_own_key_is_asked_for_once(reader: Reader, driver: Driver) -> None:
    """One comparison and one order column."""
    types = {"id": "bigint"}
    reader.read(View("bets", "id", "id", ("id",), ("id",), types), Window(Position("9", ("9",), 9), None), limit=5)
    tree, statement, parameters = parsed(driver)
    assert set(casts_of_parameters(tree, statement)) == {"bigint"}
    assert order_of(tree) == [("id", False)]
    assert {value for value in parameters if isinstance(value, str)} == {"9"}


def test_head_and_round_trip_parse(reader: Reader, driver: Driver) -> None:
    """The last row is the top of the descending order; a written-back position is compared with `=` alone."""
    reader.head(VIEW, column="deposit_amount", until="100.0000")
    tree, statement, _ = parsed(driver)
    assert order_of(tree) == [("dt_finalized", True), ("ext_brand_id", True), ("user_ext_id", True)]
    assert casts_of_parameters(tree, statement) == ["decimal(19,4)"]
    driver.statements.clear()
    reader.finds(VIEW, PLACE)
    tree, statement, _ = parsed(driver)
    assert casts_of_parameters(tree, statement) == ["datetime2(7)", "varchar(20)", "nvarchar(40)"]
    assert len(list(tree.args["where"].find_all(exp.EQ))) == 3


def test_counts_parse(reader: Reader, driver: Driver) -> None:
    """Rows without a place in the order, and those beyond a cursor."""
    reader.count(VIEW)
    tree, statement, parameters = parsed(driver)
    assert parameters == []
    assert {test.this.name for test in tree.args["where"].find_all(exp.Is)} >= {"dt_finalized"}
    driver.statements.clear()
    reader.count(VIEW, after="2026-01-02 03:04:05.1234567")
    tree, statement, parameters = parsed(driver)
    assert casts_of_parameters(tree, statement) == ["datetime2(7)"]
    assert parameters == ["2026-01-02 03:04:05.1234567"]


def test_every_column_is_turned_to_text_without_loss(reader: Reader, driver: Driver) -> None:
    """Times in style 121 (all fractions), floats in style 3 (17 digits), money in style 2 (4 decimals)."""
    reader.read(VIEW, Window(None, None), limit=5)
    _, statement, _ = parsed(driver)
    flat = " ".join(statement.split()).lower()
    for column, style in (("dt_finalized", 121), ("[old stamp]", 121), ("odds", 3), ("cash", 2)):
        assert f"{column}, {style})" in flat, column
    for column in ("ext_brand_id", "user_ext_id", "deposit_amount", "flag", "[row]]id]"):
        assert f"{column})" in flat, column
    assert flat.count("convert(nvarchar(") == len(TYPES)


def test_the_statements_of_a_session_parse() -> None:
    """Setting it up writes no data and reads no dirty rows."""
    driver = Driver()

    class Recorded(Session):
        def execute(self, query: Any, parameters: Any = None) -> Any:
            self.driver_connection.execute(str(query), list(parameters or ()))
            return iter(())

    session: Any = Recorded(driver)
    SQLServer().prepare(session, Settings())
    SQLServer().columns(session, "crm_export.odd]name")
    for statement, _ in driver.statements:
        (tree,) = sqlglot.parse(statement.replace(":query", "@query"), dialect="tsql")
        assert tree is not None
        assert "uncommitted" not in statement
        assert "odd" not in statement


def test_failures_are_told_apart() -> None:
    """Connection, deadlock, time-out and cancel pass; a missing object does not."""
    dialect = sqlserver.SQLServer()
    for state in ("08S01", "40001", "HYT00", "HY008"):
        assert dialect.is_transient(pyodbc.Error(state, "[Microsoft] it broke")), state
    for state in ("42S02", "42000", "28000"):
        assert not dialect.is_transient(pyodbc.Error(state, "[Microsoft] it broke")), state
    reader = Reader(URL, source="casino")
    login = reader._classify(pyodbc.InterfaceError("28000", "[28000] Login failed for user 'r'. (18456)"))
    assert isinstance(login, Misconfigured)
    assert "refused the login" in str(login)
    assert isinstance(reader._classify(pyodbc.OperationalError("08S01", "[08S01] TCP Provider: reset")), Transient)


def test_a_statement_that_takes_too_long_is_cancelled(reader: Reader, wait: Any) -> None:
    """Drivers ignore their own time-out: another thread cancels, and ends."""
    cancelled = threading.Event()

    class Slow(Driver):
        def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
            del statement, parameters
            assert cancelled.wait(20)
            raise pyodbc.Error("HY008", "[HY008] Operation canceled")

        def cancel(self) -> None:
            cancelled.set()

    session = Session(Slow())
    session.info["seconds"] = 0.05
    reader._connection = session  # type: ignore[assignment]
    before = threading.active_count()
    with pytest.raises(Transient):
        reader.read(VIEW, Window(None, None), limit=5)
    wait(lambda: threading.active_count() == before, what="a thread is left")


def test_sums_parse(reader: Reader, driver: Driver) -> None:
    """One index range with both bounds cast to the cursor's type; no digest: keys are compared themselves."""
    types = {**TYPES, "type": "varchar(20)", "win_amount": "decimal(19,4)"}
    amounts = (AmountColumn("deposit_amount", "type", ("BET",)), AmountColumn("win_amount", "type", ("WIN", "3")))
    view = View(VIEW.name, "dt_finalized", "time", ("ext_brand_id", "user_ext_id"), tuple(types), types)
    with pytest.raises(pl.exceptions.OutOfBoundsError):  # the driver that stands in has no rows
        reader.sums(view, PLACE.cursor, "2026-01-03 00:00:00", amounts=amounts)
    tree, statement, parameters = parsed(driver)
    assert casts_of_parameters(tree, statement)[-2:] == ["datetime2(7)", "datetime2(7)"]
    assert [test.this.name for kind in (exp.GTE, exp.LT) for test in tree.args["where"].find_all(kind)] == [
        "dt_finalized"
    ] * 2
    assert {"BET", "WIN", "3"} <= set(parameters)
    assert "md5" not in statement.lower()
    assert len(list(tree.find_all(exp.Sum))) == 1
