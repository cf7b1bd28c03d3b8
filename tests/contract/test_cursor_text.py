"""Cursors and keys as the server's own text: whatever their type, zone or collation, pages of any size hold every row once."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock
from connector.position import Kind, Position, Window
from connector.sources import DIALECTS
from connector.sources.reader import Reader, View, position_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

OperatorDatabase = Any


@dataclass(frozen=True)
class Shape:
    """A view's cursor `c` and key in one family of servers: DDL, and rows as SQL literals (nothing: as they are)."""

    kind: Kind
    columns: dict[str, str]
    rows: Sequence[tuple[str, ...]]
    key: tuple[str, ...] = ("k",)
    before: tuple[str, ...] = ()


def ties(cursors: Sequence[str], keys: Sequence[str], *, columns: dict[str, str], kind: Kind = "time") -> Shape:
    """Every key under every cursor: as many ties as there can be."""
    return Shape(kind, columns, [(cursor, key) for cursor in cursors for key in keys])


def quoted(*values: object) -> list[str]:
    return ["'" + str(value).replace("\\", "\\\\").replace("'", "''") + "'" for value in values]


_NUMBERS: Final = ("-3", "0", "9", "10", "101")
_FINE: Final = quoted(*(f"2026-03-01 10:00:00{fraction}" for fraction in ("", ".000001", ".5", ".999999")))
_WHOLE: Final = quoted("1999-12-31 23:59:59", "2026-03-01 10:00:00", "2026-03-01 10:00:01")
_DAYS: Final = quoted("1969-12-31", "2026-03-01", "2026-03-02")
#: Times that no calendar here can hold, and what lies between them.
_ENDLESS: Final = quoted("-infinity", "0044-03-15 12:00:00 BC", "2026-03-01", "9999-12-31", "10000-01-01", "infinity")
_ZERO: Final = quoted("0000-00-00", "0000-11-30", "2026-00-00", "2026-02-31", "2026-03-01", "9999-12-31")
#: Different under every collation, in an order that differs from one to the other.
_WORDS: Final = quoted(
    *("Y-11-3-4", "Y1-01-1-1", "a", "B", "c", "z10", "z9", "Ω", "0010", "010", "_", "~", "a b", "a-b", "漢", "it's"),
    *("x|y", "x\\|y", "\\", "|", "%s", ":a", "🙂", "ü1"),
)
_UUIDS: Final = [f"{value * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for value in range(1, 13)]
_DASHED: Final = quoted(*(f"{u[:8]}-{u[8:12]}-4{u[13:16]}-8{u[17:20]}-{u[20:]}" for u in _UUIDS))
_IDS: Final = (*range(-1001, -995), -100, -99, -10, -9, -1, 0, 1, 9, 10, 11, 99, 100, 999, 1000, 2**53, 2**53 + 1)
_HUGE: Final = tuple(str(value) for value in (0, 9, 10, 2**63 - 1, 2**63, 2**63 + 1, 10**19 - 1, 10**19, 2**64 - 1))
_PARTS: Final = [
    (one, two) for one in quoted("a", "a|", "a\\", "a\\|", "|", "\\") for two in quoted("b", "|b", "\\b", "|")
]


def epochs(unit: int) -> list[str]:
    """Epoch integers around a change of the number of digits."""
    return [str(second * unit + step) for second in (999_999_998, 1_000_000_000, 1_772_359_200) for step in (0, 1)]


def texts(column: str) -> Shape:
    return ties(_DAYS[:2], _WORDS, columns={"c": "date", "k": column})


POSTGRESQL: Final = {
    "timestamptz": ties(_FINE, _NUMBERS, columns={"c": "timestamptz", "k": "bigint"}),
    "timestamp": ties(_FINE, _NUMBERS, columns={"c": "timestamp", "k": "integer"}),
    "timestamptz(3)": ties(_WHOLE, _NUMBERS, columns={"c": "timestamptz(3)", "k": "numeric(6,2)"}),
    "timestamp(0)": ties(_WHOLE, _NUMBERS, columns={"c": "timestamp(0)", "k": "smallint"}),
    "date": ties(_DAYS, _NUMBERS, columns={"c": "date", "k": "bigint"}),
    **{
        f"{name} without end": ties(_ENDLESS, _ENDLESS, columns={"c": name, "k": name})
        for name in ("timestamptz", "date")
    },
    **{
        f"epoch, {10**9 // unit} ns a step": ties(epochs(unit), _NUMBERS, columns={"c": "bigint", "k": "bigint"})
        for unit in (1, 1000, 10**6, 10**9)
    },
    "numeric(20) ids": Shape("id", {"c": "numeric(20)"}, [(number,) for number in (*_HUGE, "-5")], ("c",)),
    "numeric(20) keys": ties(["1", "2"], _HUGE, columns={"c": "integer", "k": "numeric(20)"}, kind="id"),
    "ids of any length": Shape("id", {"c": "bigint"}, [(str(number),) for number in _IDS], ("c",)),
    **{f"text {name}": texts(f'text collate "{name}"') for name in ("C", "C.utf8", "pg_unicode_fast", "ucs_basic")},
    "char(9)": texts("char(9)"),
    "uuid": ties(_DAYS[:2], _DASHED, columns={"c": "date", "k": "uuid"}),
    "bytea": ties(_DAYS[:2], quoted(*(f"\\x{u[:6]}" for u in _UUIDS)), columns={"c": "date", "k": "bytea"}),
    "composite": Shape(
        "time", {"c": "date", "k": "text", "k2": "text"}, [("'2026-03-01'", *p) for p in _PARTS], ("k", "k2")
    ),
    "enum": replace(
        ties(_DAYS, quoted("win", "bet", "it's"), columns={"c": "date", "k": "kind"}),
        before=("create type kind as enum ('win', 'bet', 'it''s')",),
    ),
    "a constant": Shape(
        "id",
        {"c": "bigint", "k": "text"},
        (),
        before=(
            "create view told as select n as c, k from generate_series(1, 9) n, (select 'WIN' k union select 'BET') x",
        ),
    ),
}
MYSQL: Final = {
    "datetime(6)": ties(_FINE, _NUMBERS, columns={"c": "datetime(6)", "k": "bigint"}),
    "datetime": ties(_WHOLE, _NUMBERS, columns={"c": "datetime", "k": "int"}),
    "timestamp(6)": ties(_FINE, _NUMBERS, columns={"c": "timestamp(6) null", "k": "decimal(6,2)"}),
    "timestamp": ties(_WHOLE, _NUMBERS, columns={"c": "timestamp null", "k": "smallint"}),
    "date": ties(_DAYS, _NUMBERS, columns={"c": "date", "k": "bigint"}),
    **{
        f"{name} of zero": replace(
            ties(_ZERO, _ZERO, columns={"c": name, "k": name}), before=("set sql_mode = 'ALLOW_INVALID_DATES'",)
        )
        for name in ("datetime(6)", "date")
    },
    **{
        f"epoch, {10**9 // unit} ns a step": ties(epochs(unit), _NUMBERS, columns={"c": "bigint", "k": "bigint"})
        for unit in (1, 1000, 10**6, 10**9)
    },
    "bigint unsigned ids": Shape("id", {"c": "bigint unsigned"}, [(number,) for number in _HUGE], ("c",)),
    "bigint unsigned keys": ties(["1", "2"], _HUGE, columns={"c": "int", "k": "bigint unsigned"}, kind="id"),
    "ids of any length": Shape("id", {"c": "bigint"}, [(str(number),) for number in _IDS], ("c",)),
    **{
        f"text {name}": texts(f"varchar(20) character set utf8mb4 collate utf8mb4_{name}")
        for name in ("bin", "nopad_bin", "general_ci", "unicode_ci", "unicode_nopad_ci", "unicode_520_ci", "spanish_ci")
    },
    "latin1": ties(
        _DAYS[:2],
        [word for word in _WORDS if word.isascii() or "ü" in word],
        columns={"c": "date", "k": "varchar(20) character set latin1"},
    ),
    "char(9)": texts("char(9)"),
    "text": texts("text"),
    "uuid": ties(_DAYS[:2], _DASHED, columns={"c": "date", "k": "uuid"}),
    "char(36)": ties(_DAYS[:2], _DASHED, columns={"c": "date", "k": "char(36) character set ascii"}),
    "binary(16)": ties(_DAYS[:2], [f"0x{u}" for u in _UUIDS], columns={"c": "date", "k": "binary(16)"}),
    "varbinary(16)": ties(
        _DAYS[:2], [f"0x{u}" for u in (*_UUIDS, "00", "ff", "e9", "61")], columns={"c": "date", "k": "varbinary(16)"}
    ),
    "composite": Shape(
        "time",
        {"c": "date", "k": "varchar(9)", "k2": "varchar(9)"},
        [("'2026-03-01'", *p) for p in _PARTS],
        ("k", "k2"),
    ),
    "enum": ties(
        _DAYS, quoted("win", "bet", "it's", "int"), columns={"c": "date", "k": "enum('win', 'bet', 'it''s', 'int')"}
    ),
    "set": ties(_DAYS, quoted("win", "bet", "bet,win", ""), columns={"c": "date", "k": "set('win', 'bet')"}),
    "a constant": Shape(
        "id",
        {"c": "bigint", "k": "text"},
        (),
        before=(
            "set names utf8mb4 collate utf8mb4_spanish_ci",
            "create view told as select seq as c, 'WIN' as k from seq_1_to_9 union all select seq, 'BET' from seq_1_to_9",
        ),
    ),
}
SHAPES: Final = {"postgresql": POSTGRESQL, "mysql": MYSQL}
#: Literals mean the same in both families.
_SESSION: Final = {
    "postgresql": ("set standard_conforming_strings = off", "set escape_string_warning = off"),
    "mysql": ("set names utf8mb4", "set sql_mode = default"),
}


@pytest.fixture
def reader(operator: OperatorDatabase) -> Iterator[Reader]:
    """Give a reader of a fresh operator's database."""
    made = Reader(operator.url, source="casino")
    yield made
    made.close()


def create(operator: OperatorDatabase, shape: Shape) -> None:
    """Create the view `told` of a shape, in place of the last."""
    operator.execute(
        "drop view if exists told", "drop table if exists told_rows", *_SESSION[operator.family], *shape.before
    )
    if shape.rows:
        columns = ", ".join(f"{name} {ddl}" for name, ddl in shape.columns.items())
        rows = ", ".join(f"({', '.join(row)})" for row in shape.rows)
        operator.execute(f"create table told_rows ({columns})", f"insert into told_rows values {rows}")
        operator.execute("create view told as select * from told_rows")


def view_of(reader: Reader, kind: Kind = "time", key: tuple[str, ...] = ("k",)) -> View:
    """Return the view `told` as a stream sees it."""
    types = reader.columns("told")
    return View("told", "c", kind, key, tuple(types), types)


def walk(reader: Reader, view: View, *, limit: int, after: Position | None = None) -> list[tuple[str, ...]]:
    """Read page by page to the end."""
    rows: list[tuple[str, ...]] = []
    while (page := reader.read(view, Window(after, None), limit=limit)).last is not None:
        assert page.last != after, "the page did not move on"
        rows += page.frame.rows()
        after = page.last
    return rows


def places(frame: pl.DataFrame, view: View) -> list[Position]:
    return [position_at(frame, view, index) for index in range(frame.height)]


# Types, ties, collations --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_a_page_cut_at_every_row_loses_and_doubles_none(
    operator: OperatorDatabase, reader: Reader, subtests: pytest.Subtests
) -> None:
    """Pages of one, two and three rows through ties end among them, and every row finds itself by what was read of it."""
    for name, shape in SHAPES[operator.family].items():
        with subtests.test(name):
            create(operator, shape)
            view = view_of(reader, shape.kind, shape.key)

            whole = reader.read(view, Window(None, None), limit=1000).frame

            assert whole.height == (len(shape.rows) or 18)
            assert whole.unique().height == whole.height
            for limit in (1, 2, 3):
                assert walk(reader, view, limit=limit) == whole.rows(), limit
            assert [place for place in places(whole, view) if not reader.finds(view, place)] == []


# Zones --------------------------------------------------------------------------------------------------------------

#: What a server or role may say of itself, and its clock changes of 2026 in UTC (Madrid: both; the others: none near).
ZONES: Final = {
    "postgresql": ("America/Chicago", "+04:00", "Europe/Madrid"),
    "mysql": ("-05:00", "+04:00", "Test/Madrid"),
}
CHANGES: Final = (datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC))
#: Every ten minutes around the hour that is left out and the one that comes twice, and the same to the microsecond.
HOURS: Final = [
    (change + timedelta(minutes=10 * step, microseconds=odd)).strftime("%Y-%m-%d %H:%M:%S.%f")
    for change in CHANGES
    for step in range(-9, 10)
    for odd in (0, 1)
]


@contextlib.contextmanager
def living_in(operator: OperatorDatabase, zone: str) -> Iterator[None]:
    """Let the server give this zone to every new session of the reading role."""
    if operator.family == "postgresql":
        base = operator.owner.rpartition("/")[2]
        operator.execute(f"alter role reader in database {base} set timezone = '{zone}'")
        yield
        return
    if zone == "Test/Madrid":
        operator.execute(*_madrid())
    operator.execute(f"set global time_zone = '{zone}'")
    try:
        yield
    finally:
        operator.execute("set global time_zone = 'SYSTEM'")


def _madrid() -> list[str]:
    """Teach MariaDB a zone with clock changes: it is installed with none."""
    times = [(int(change.timestamp()), number % 2) for number, change in enumerate(CHANGES, start=1)]
    return [
        *(
            f"delete from mysql.time_zone{part} where time_zone_id = 77"
            for part in ("", "_transition", "_transition_type")
        ),
        "delete from mysql.time_zone_name where time_zone_id = 77",
        "insert into mysql.time_zone (time_zone_id, use_leap_seconds) values (77, 'N')",
        "insert into mysql.time_zone_name (name, time_zone_id) values ('Test/Madrid', 77)",
        "insert into mysql.time_zone_transition_type values (77, 0, 3600, 0, 'CET'), (77, 1, 7200, 1, 'CEST')",
        f"insert into mysql.time_zone_transition values {', '.join(f'(77, {at}, {kind})' for at, kind in [(0, 0), *times])}",
    ]


#: The columns that each family's zones are tried on.
_ZONED: Final = {"postgresql": ("timestamptz", "timestamp"), "mysql": ("timestamp(6) null", "datetime(6)")}


def test_the_zone_of_server_and_role_changes_no_text_and_no_row(
    operator: OperatorDatabase, subtests: pytest.Subtests
) -> None:
    """The hour that comes twice is read in order and once, the one that is left out in its place; bounds mean UTC."""
    for column in _ZONED[operator.family]:
        utc = "+00" if operator.family == "postgresql" else ""
        shape = ties(quoted(*(f"{hour}{utc}" for hour in HOURS)), ["1", "2"], columns={"c": column, "k": "bigint"})
        create(operator, shape)
        for zone in ZONES[operator.family]:
            with (
                subtests.test(f"{column} in {zone}"),
                living_in(operator, zone),
                contextlib.closing(Reader(operator.url, source="casino")) as reader,
            ):
                assert_utc(reader, "+00" if column == "timestamptz" else "", bare=operator.family == "postgresql")


def assert_utc(reader: Reader, zone: str, *, bare: bool) -> None:
    """Check pages, positions, counts and heads of HOURS; `bare`: the server writes no zeros behind a fraction."""
    view = view_of(reader)
    rows = walk(reader, view, limit=3)
    told = [cursor for cursor, key in rows if key == "1"]
    assert [key for _, key in rows] == ["1", "2"] * len(HOURS)
    assert told == [(hour.rstrip("0").rstrip(".") if bare else hour) + zone for hour in HOURS]
    at = places(reader.read(view, Window(None, None), limit=61).frame, view)
    assert all(reader.finds(view, at[number]) for number in (0, 20, 21, 60))
    assert reader.count(view, after=HOURS[20] + zone) == 2 * len(HOURS) - 42
    head = reader.head(view, column="c", until=HOURS[21] + zone)
    assert head is not None
    assert (head.cursor, head.key) == (told[21], ("2",))
    assert abs(reader.sample().clock / 1e9 - clock.now().timestamp()) < 60


# Crashes ------------------------------------------------------------------------------------------------------------

_KEYS: Final = {"postgresql": 'varchar(4) collate "C"', "mysql": "varchar(4) collate utf8mb4_nopad_bin"}
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
tied = st.lists(
    st.tuples(st.integers(0, 2), st.text(alphabet="aB|\\é🙂 '%", min_size=1, max_size=3)), max_size=24, unique=True
)


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tied, limit=st.integers(1, 9), crashes=st.sets(st.integers(0, 24), max_size=4))
def test_after_a_crash_at_any_page_every_row_comes_once(
    operator: OperatorDatabase, rows: list[tuple[int, str]], limit: int, crashes: set[int]
) -> None:
    """A reader that goes on from the last committed position reads the rest: no row twice, none left out, and ends."""
    operator.execute("drop view if exists told", "drop table if exists told_rows")
    operator.execute(f"create table told_rows (c {_STAMP[operator.family]}, k {_KEYS[operator.family]})")
    operator.execute("create view told as select * from told_rows")
    operator.fill("told_rows", [(f"2026-03-01 10:00:00.00000{second}", key) for second, key in rows])
    reader, committed, read = Reader(operator.url, source="casino"), None, Counter[tuple[str, str]]()
    view = view_of(reader)
    for number in range(len(rows) // limit + 2):
        page = reader.read(view, Window(committed, None), limit=limit)
        if page.last is None:
            break
        read.update(page.frame.rows())
        committed = Position(page.last.cursor, page.last.key, page.last.mark)
        if number in crashes:
            reader.close()
            reader = Reader(operator.url, source="casino")
    else:
        pytest.fail("more pages than the rows need")
    reader.close()
    assert sum(read.values()) == len(read) == len(rows)
    assert Counter(key for _, key in read) == Counter(key for _, key in rows)


# What travels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", sorted(DIALECTS))
@pytest.mark.parametrize(
    "type_name", ["datetime(6)", "timestamp with time zone", "date", "bigint", "decimal(12,2)", "text"]
)
def test_bounds_travel_as_texts(scheme: str, type_name: str) -> None:
    """No driver gets a date or a number to convert: the MariaDB ODBC driver cuts microseconds off, floats cut ids."""
    bound = DIALECTS[scheme].bind("2026-01-02 03:04:05.678901", type_name, "p")
    assert list(bound.compile().params.values()) == ["2026-01-02 03:04:05.678901"]


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
def test_text_keys_are_read_from_their_index(operator: OperatorDatabase, reader: Reader) -> None:
    """A bound that takes the column's own collation needs no sort, whatever the session's collation."""
    create(operator, ties(_DAYS, quoted("a", "b"), columns={"c": "date", "k": "varchar(9) collate latin1_spanish_ci"}))
    operator.execute("create index told_by_cursor on told_rows (c, k)")
    assert reader.needs_sort(view_of(reader), Position("2026-03-01", ("a",), 0)) is False
