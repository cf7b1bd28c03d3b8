"""What every source dialect promises its reader, on the real servers: exact texts, no row lost, failures told apart."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from connector import clock
from connector.errors import ConnectorError, Misconfigured, Transient
from connector.position import Kind, Position, Window
from connector.sources import DIALECTS, reader as reading
from connector.sources.dialect import Settings
from connector.sources.mysql import MySQL
from connector.sources.reader import Page, Reader, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OperatorDatabase = Any

#: (column, DDL, what columns() says, SQL literal, what a page holds); a pair of texts: COPY's and ODBC's.
POSTGRESQL_TYPES: Final = (
    (
        "c_zoned",
        "timestamptz",
        "timestamp with time zone",
        "'2026-01-02 03:04:05.678901+02'",
        "2026-01-02 01:04:05.678901+00",
    ),
    (
        "c_zoned3",
        "timestamptz(3)",
        "timestamp(3) with time zone",
        "'2026-01-02 03:04:05.5+00'",
        "2026-01-02 03:04:05.5+00",
    ),
    (
        "c_plain",
        "timestamp",
        "timestamp without time zone",
        "'2026-01-02 03:04:05.000001'",
        "2026-01-02 03:04:05.000001",
    ),
    ("c_coarse", "timestamp(0)", "timestamp(0) without time zone", "'2026-01-02 03:04:05'", "2026-01-02 03:04:05"),
    ("c_endless", "timestamptz", "timestamp with time zone", "'infinity'", "infinity"),
    ("c_date", "date", "date", "'2026-01-02'", "2026-01-02"),
    ("c_money", "numeric(20,4)", "numeric(20,4)", "12.5", "12.5000"),
    ("c_exact", "numeric", "numeric", "0.100000000000000000000000000001", "0.100000000000000000000000000001"),
    (
        "c_whole",
        "numeric(38,0)",
        "numeric(38,0)",
        "12345678901234567890123456789012345678",
        "12345678901234567890123456789012345678",
    ),
    ("c_big", "bigint", "bigint", "9007199254740993", "9007199254740993"),
    ("c_least", "bigint", "bigint", "-9223372036854775808", "-9223372036854775808"),
    ("c_float", "double precision", "double precision", "0.1", "0.1"),
    ("c_yes", "boolean", "boolean", "true", ("t", "true")),
    ("c_no", "boolean", "boolean", "false", ("f", "false")),
    ("c_short", "varchar(40)", "character varying(40)", "'00123'", "00123"),
    ("c_text", "text", "text", "'a'", "a"),
    ("c_uuid", "uuid", "uuid", "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ("c_list", "text[]", "text[]", "'{00011,\"x,y\"}'", '{00011,"x,y"}'),
    ("c_json", "json", "json", "'[\"00011\", 1.50]'", '["00011", 1.50]'),
)
_GENERAL: Final = " character set utf8mb4 collate utf8mb4_general_ci"
_BINARY: Final = " character set utf8mb4 collate utf8mb4_bin"
MYSQL_TYPES: Final = (
    ("c_fine", "datetime(6)", "datetime(6)", "'2026-01-02 03:04:05.678901'", "2026-01-02 03:04:05.678901"),
    ("c_coarse", "datetime", "datetime", "'2026-01-02 03:04:05'", "2026-01-02 03:04:05"),
    ("c_stamp", "timestamp(6) null", "timestamp(6)", "'2026-01-02 03:04:05.000001'", "2026-01-02 03:04:05.000001"),
    ("c_date", "date", "date", "'2026-01-02'", "2026-01-02"),
    ("c_money", "decimal(20,4)", "decimal(20,4)", "12.5", "12.5000"),
    (
        "c_exact",
        "decimal(38,30)",
        "decimal(38,30)",
        "0.100000000000000000000000000001",
        "0.100000000000000000000000000001",
    ),
    ("c_big", "bigint", "bigint(20)", "9007199254740993", "9007199254740993"),
    ("c_least", "bigint", "bigint(20)", "-9223372036854775808", "-9223372036854775808"),
    ("c_huge", "bigint unsigned", "bigint(20) unsigned", "18446744073709551615", "18446744073709551615"),
    ("c_float", "double", "double", "0.1", "0.1"),
    ("c_yes", "boolean", "tinyint(1)", "true", "1"),
    ("c_no", "boolean", "tinyint(1)", "false", "0"),
    ("c_bit", "bit(1)", "bit(1)", "b'1'", "1"),
    ("c_nobit", "bit(1)", "bit(1)", "b'0'", "0"),
    ("c_bits", "bit(12)", "bit(12)", "b'000000010000'", "16"),
    ("c_short", "varchar(40)", f"varchar(40){_GENERAL}", "'00123'", "00123"),
    ("c_text", "text", f"text{_GENERAL}", "'a'", "a"),
    ("c_kind", "enum('bet','win')", f"enum('bet','win'){_GENERAL}", "'win'", "win"),
    ("c_json", "json", f"longtext{_BINARY}", "'[\"00011\", 1.50]'", '["00011", 1.50]'),
    ("c_old", "varchar(9) character set latin1 collate latin1_spanish_ci", None, "'\u00e9'", "\u00e9"),
    ("c_bytes", "varbinary(9)", "varbinary(9)", "'a\u00e9'", "a\u00e9"),
    ("c_fixed", "binary(4)", "binary(4)", "0x00ff61fe", "00ff61fe"),
)
#: Texts that quoting, escaping, encodings and line breaks have spoilt somewhere.
TEXTS: Final = (
    *(
        None,
        "",
        " ",
        "  padded  ",
        "NULL",
        "\\N",
        "\\.",
        "a,b",
        '"',
        '""',
        '"quoted"',
        "it's",
        "back\\slash",
        "%s %(x)s ?",
        ":name",
    ),
    *(
        "two\nlines",
        "\n",
        "\r\n",
        "trailing\r",
        "tab\t",
        "ünï Łódź",
        "漢字",
        "🙂👩‍👩‍👧",
        "00123",
        "0",
        "1e5",
        "-",
        "true",
        "x" * 20_000,
    ),
    *("\n".join(f'{n},"{n}",line' for n in range(50)), '",\n"', "#comment", "''", "`back`", "{a,b}"),
)


FAMILIES: Final = {"postgresql": "postgresql", "standby": "postgresql", "mysql": "mysql", "odbc": "postgresql"}


@dataclass(frozen=True)
class Walk:
    """One shape of (cursor, key) with many ties: DDL per family, and rows as SQL literals."""

    name: str
    kind: Kind
    key: tuple[str, ...]
    postgresql: dict[str, str]
    mysql: dict[str, str]
    rows: tuple[tuple[str, ...], ...]


_WORDS: Final = (
    "Y-11-3-4",
    "Y1-01-1-1",
    "a",
    "B",
    "c",
    "z10",
    "z9",
    "é",
    "Ω",
    "0010",
    "010",
    "_",
    "~",
    "a b",
    "a-b",
    "漢",
    "ß1",
    "it''s",
    "\\\\x",
)
_FOUR: Final = (
    "'2026-01-01 00:00:00'",
    "'2026-01-01 00:00:00.000001'",
    "'2026-01-01 00:00:00.999999'",
    "'2026-01-02 00:00:00'",
)
WALKS: Final = (
    Walk(
        *("a fine time and a number", "time", ("k",)),
        {"c": "timestamptz", "k": "bigint"},
        {"c": "datetime(6)", "k": "bigint unsigned"},
        tuple((_FOUR[n % 4 if n < 20 else 1], str(9_007_199_254_740_990 + n * 37 % 101)) for n in range(41)),
    ),
    Walk(
        *("one coarse time for all, and a text", "time", ("k",)),
        {"c": "timestamp(0)", "k": 'text collate "C"'},
        {"c": "datetime", "k": "varchar(40) collate utf8mb4_unicode_ci"},
        tuple(("'2026-01-01 00:00:00'", f"'{word}'") for word in _WORDS),
    ),
    Walk(
        *("a date, and brand and player", "time", ("k", "k2")),
        {"c": "date", "k": "varchar(20)", "k2": "numeric(12,2)"},
        {"c": "date", "k": "varchar(20) character set latin1", "k2": "decimal(12,2)"},
        tuple((f"'2026-01-0{1 + n % 2}'", f"'brand{n % 3}'", f"{n % 7 + n / 100:.2f}") for n in range(40)),
    ),
    Walk(
        *("an id of its own", "id", ("c",)),
        {"c": "bigint"},
        {"c": "bigint unsigned"},
        tuple((str(2**53 + n * n),) for n in range(30)),
    ),
    Walk(
        *("an id above 64 signed bits", "id", ("c",)),
        {"c": "numeric(20,0)"},
        {"c": "bigint unsigned"},
        tuple((str(2**64 - 1 - n * 3),) for n in range(30)),
    ),
    Walk(
        *("a repeated id, its type and a time", "id", ("k", "k2")),
        {"c": "integer", "k": "varchar(12)", "k2": "timestamptz"},
        {"c": "int", "k": "varchar(12)", "k2": "timestamp(6) default 0"},
        tuple((str(n % 3), f"'{('bet', 'win')[n % 2]}'", f"'2026-01-01 00:00:00.{n // 2:06}'") for n in range(36)),
    ),
    Walk(
        *("one date, and numbers that no float tells apart", "time", ("k",)),
        {"c": "date", "k": "numeric(38,18)"},
        {"c": "date", "k": "decimal(38,18)"},
        tuple(("'2026-01-01'", f"12345678901234567890.{n * 7 % 31:018}") for n in range(31)),
    ),
)
#: A cursor's type and some of its values: each row must be found again by what was read of it.
CURSORS: Final = {
    "postgresql": {
        "timestamptz": (
            "'2026-01-02 03:04:05.678901+00'",
            "'2026-06-02 03:04:05+02'",
            "'1969-12-31 23:59:59.999999+00'",
            "'infinity'",
        ),
        "timestamp": (
            "'2026-01-02 03:04:05.678901'",
            "'2026-10-25 02:30:00'",
            "'0044-03-15 12:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
        ),
        "timestamp(0)": ("'2026-01-02 03:04:05'", "'1900-01-01'"),
        "timestamp(3)": ("'2026-01-02 03:04:05.003'",),
        "date": ("'2026-01-02'", "'9999-12-31'", "'0001-01-01'"),
        "bigint": ("0", "-5", "9007199254740993", "9223372036854775807"),
        "numeric": ("0.1", "12345678901234567890.000000000000000001", "-1.50"),
        "numeric(20,4)": ("0.1000", "9007199254740993.0001"),
        "varchar(40)": ("'00123'", "''", "'it''s'", "'漢🙂'", "'  '", "'a,b\"c'"),
        "text": ("'x\\y'", "'%s'", "':a'"),
        "double precision": ("0.1", "1e300", "3.3333333333333335"),
        "uuid": ("'6ba7b810-9dad-11d1-80b4-00c04fd430c8'",),
    },
    "mysql": {
        "datetime(6)": ("'2026-01-02 03:04:05.678901'", "'1000-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'"),
        "datetime": ("'2026-01-02 03:04:05'", "'2026-03-29 02:30:00'"),
        "datetime(3)": ("'2026-01-02 03:04:05.003'",),
        "timestamp(6) null": ("'2026-01-02 03:04:05.678901'", "'2026-03-29 02:30:00'", "'1970-01-01 00:00:01.000001'"),
        "timestamp null": ("'2026-01-02 03:04:05'",),
        "date": ("'2026-01-02'", "'9999-12-31'"),
        "bigint": ("0", "-5", "9007199254740993", "9223372036854775807"),
        "bigint unsigned": ("0", "18446744073709551615"),
        "decimal(38,18)": ("0.1", "12345678901234567890.000000000000000001", "-1.5"),
        "varchar(40)": ("'00123'", "''", "'it''s'", "'漢🙂'", "'a,b\"c'", "'x\\\\y'", "'%s'", "':a'"),
        "varchar(20) character set latin1": ("'é'", "'A'"),
        "int(8) zerofill": ("123",),
    },
}


@pytest.fixture
def reader(operator: OperatorDatabase) -> Iterator[Reader]:
    """Give a reader of a fresh operator's database of every dialect."""
    with_limits = Reader(
        operator.url, source="casino", settings=Settings(statement_timeout=10.0, lock_timeout=2.0, connect_timeout=5.0)
    )
    yield with_limits
    with_limits.close()


def view_of(
    reader: Reader, name: str, *, cursor: str = "c", kind: Kind = "time", key: tuple[str, ...] = ("k",)
) -> View:
    """Return a view as a stream would see it: all its columns, the exact types asked of the server."""
    types = reader.columns(name)
    return View(name, cursor, kind, key, tuple(types), types)


def everything(
    reader: Reader, view: View, *, limit: int, after: Position | None = None, until: str | None = None
) -> list[tuple[Any, ...]]:
    """Read a view page by page to its end and return its rows as texts."""
    rows: list[tuple[Any, ...]] = []
    while True:
        page = reader.read(view, Window(after, until), limit=limit)
        rows += page.frame.rows()
        if page.last is None:
            return rows
        assert page.frame.height <= limit
        assert page.last != after, "the page did not move on"
        after = page.last


def positions(page: Page, view: View) -> list[Position]:
    """Return every row's position."""
    return [reading.position_at(page.frame, view, index) for index in range(page.frame.height)]


def table(operator: OperatorDatabase, name: str, columns: dict[str, str], rows: tuple[tuple[str, ...], ...]) -> None:
    """Create a table and a view of the same columns over it, rows given as SQL literals."""
    definition = ", ".join(f"{column} {type_name}" for column, type_name in columns.items())
    operator.execute(
        f"create table {name}_rows ({definition})",
        *([f"insert into {name}_rows values {', '.join('(' + ', '.join(row) + ')' for row in rows)}"] if rows else []),
        f"create view {name} as select * from {name}_rows",
    )


# Columns and texts --------------------------------------------------------------------------------------------------


def test_columns_and_values_arrive_as_the_server_writes_them(operator: OperatorDatabase, reader: Reader) -> None:
    """Types are exact, order is the view's, no value passes through a number, a float or a driver's calendar."""
    known = POSTGRESQL_TYPES if operator.family == "postgresql" else MYSQL_TYPES
    columns = {"id": "bigint", **{name: ddl for name, ddl, *_ in known}}
    nulls = tuple("NULL" for _ in known)
    table(operator, "all_types", columns, (("1", *(literal for *_, literal, _ in known)), ("2", *nulls)))

    view = view_of(reader, "all_types", cursor="id", kind="id", key=("id",))
    frame = reader.read(view, Window(None, None), limit=10).frame

    assert list(view.types) == list(columns)
    assert {name: view.types[name] for name, *_ in known} == {name: told or ddl for name, ddl, told, *_ in known}
    wanted = {name: text[operator.name == "odbc"] if isinstance(text, tuple) else text for name, *_, text in known}
    assert frame.row(0, named=True) == {"id": "1", **wanted}
    assert frame.row(1, named=True) == {"id": "2", **dict.fromkeys(wanted)}


def test_texts_arrive_unchanged(operator: OperatorDatabase, reader: Reader) -> None:
    """NULL and the empty text stay apart; quotes, commas, line breaks, emoji and leading zeros survive."""
    table(operator, "texts", {"id": "bigint", "t": "text", "u": "text"}, ())
    operator.fill("texts_rows", [(number, text, TEXTS[-number]) for number, text in enumerate(TEXTS)])

    view = view_of(reader, "texts", cursor="id", kind="id", key=("id",))
    rows = reader.read(view, Window(None, None), limit=1000).frame.rows()

    assert rows == [(str(number), text, TEXTS[-number]) for number, text in enumerate(TEXTS)]


def test_many_rows_with_line_breaks_stay_whole(operator: OperatorDatabase, reader: Reader) -> None:
    """A text that looks like rows of the page's own format is one value, on pages parsed by several threads too."""
    trap = "\n".join(f'{n},"x","y"' for n in range(20))
    table(operator, "traps", {"id": "bigint", "t": "text", "u": "text"}, ())
    operator.fill("traps_rows", [(number, trap if number % 3 else None, f'{number}\n"') for number in range(3000)])

    view = view_of(reader, "traps", cursor="id", kind="id", key=("id",))
    frame = reader.read(view, Window(None, None), limit=5000).frame

    assert frame.height == 3000
    assert frame["t"].to_list() == [trap if number % 3 else None for number in range(3000)]
    assert frame["u"].to_list() == [f'{number}\n"' for number in range(3000)]


def test_a_single_column_keeps_nulls_and_empty_texts_as_rows(operator: OperatorDatabase, reader: Reader) -> None:
    """A page of one column has a row for every row."""
    table(operator, "single", {"c": "bigint"}, (("1",), ("2",), ("3",)))
    view = view_of(reader, "single", cursor="c", kind="id", key=("c",))
    assert reader.read(view, Window(None, None), limit=10).frame.rows() == [("1",), ("2",), ("3",)]


def test_a_view_that_is_not_there_has_no_columns(operator: OperatorDatabase, reader: Reader) -> None:
    """Neither one that nobody made, nor one that the role may not read."""
    assert dict(reader.columns("nothing_here")) == {}
    if operator.family == "postgresql":
        operator.execute("create table secrets (c timestamptz, k bigint)", "revoke all on secrets from reader")
        assert dict(reader.columns("secrets")) == {}


def test_a_view_in_another_schema_is_read_by_its_full_name(operator: OperatorDatabase, reader: Reader) -> None:
    """`schema.view` works like a plain name."""
    if operator.family == "postgresql":
        operator.execute(
            "create schema export",
            "create table export.things (c timestamptz, k bigint)",
            "grant usage on schema export to reader",
        )
        operator.execute("insert into export.things values (now(), 7)", "grant select on export.things to reader")
        name = "export.things"
    else:
        table(operator, "things", {"c": "datetime(6)", "k": "bigint"}, (("now(6)", "7"),))
        name = f"{operator.url.rpartition('/')[2]}.things"
    view = view_of(reader, name)
    assert list(view.types) == ["c", "k"]
    assert reader.read(view, Window(None, None), limit=10).frame["k"].to_list() == ["7"]


def test_names_that_need_quoting_are_quoted(operator: OperatorDatabase, reader: Reader) -> None:
    """A column named like a keyword, in mixed case or with a per cent sign is read like any other."""
    quote = '"' if operator.family == "postgresql" else "`"
    fine = "timestamptz" if operator.family == "postgresql" else "datetime(6)"
    operator.execute(
        f"create table odd_names (c {fine}, k bigint, {quote}Order{quote} int, {quote}win %{quote} int, {quote}a:b{quote} int)",
        "insert into odd_names values ('2026-01-01', 1, 2, 3, 4)",
    )
    view = view_of(reader, "odd_names")
    assert list(view.types) == ["c", "k", "Order", "win %", "a:b"]
    assert reader.read(view, Window(None, None), limit=10).frame.row(0)[1:] == ("1", "2", "3", "4")


# Paging -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_pages_of_any_size_hold_every_row_once_in_order(operator: OperatorDatabase, reader: Reader, walk: Walk) -> None:
    """However many rows share a cursor, and wherever a page ends among them."""
    columns = walk.postgresql if operator.family == "postgresql" else walk.mysql
    table(operator, "walked", columns, walk.rows)
    view = view_of(reader, "walked", kind=walk.kind, key=walk.key)

    whole = reader.read(view, Window(None, None), limit=len(walk.rows) + 1)

    ordered = operator.rows(
        f"select {', '.join(columns)} from walked_rows order by {', '.join(dict.fromkeys(('c', *walk.key)))}"
    )
    assert whole.frame.height == len(walk.rows) == len(set(whole.frame.rows()))
    assert [row[-1] for row in whole.frame.rows()] == [_as_text(row[-1]) for row in ordered]
    assert not whole.full
    for limit in (*range(1, 8), 11, len(walk.rows) - 1, len(walk.rows)):
        assert everything(reader, view, limit=limit) == whole.frame.rows(), limit


def _as_text(value: Any) -> str:
    """Write a driver's value as both servers do: a fraction without trailing zeros (PostgreSQL) is never compared here."""
    if isinstance(value, dt.datetime):
        text = (
            value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            if value.tzinfo
            else value.strftime("%Y-%m-%d %H:%M:%S.%f")
        )
        return text.rstrip("0").rstrip(".") + "+00" if value.tzinfo else text
    return str(value)


@pytest.mark.parametrize("walk", WALKS[:1] + WALKS[3:4], ids=lambda walk: walk.name)
def test_the_upper_bound_is_inclusive(operator: OperatorDatabase, reader: Reader, walk: Walk) -> None:
    """Every row at the bound belongs to the window, none beyond it does, from any position."""
    table(operator, "bounded", walk.postgresql if operator.family == "postgresql" else walk.mysql, walk.rows)
    view = view_of(reader, "bounded", kind=walk.kind, key=walk.key)
    page = reader.read(view, Window(None, None), limit=1000)
    places = positions(page, view)
    for bound in {place.cursor for place in places}:
        marks = {place.mark for place in places if place.cursor == bound}
        expected = [row for row, place in zip(page.frame.rows(), places, strict=True) if place.mark <= min(marks)]
        assert everything(reader, view, limit=5, until=bound) == expected
        assert everything(reader, view, limit=5, after=places[3], until=bound) == expected[4:]


@pytest.mark.parametrize("walk", WALKS, ids=lambda walk: walk.name)
def test_there_is_news_where_a_page_would_have_rows(operator: OperatorDatabase, reader: Reader, walk: Walk) -> None:
    """From every position, with and without a bound, all asked at once, planned anew or not."""
    table(operator, "told", walk.postgresql if operator.family == "postgresql" else walk.mysql, walk.rows)
    view = view_of(reader, "told", kind=walk.kind, key=walk.key)
    places = positions(reader.read(view, Window(None, None), limit=1000), view)
    windows = [Window(after, until) for after in (None, *places) for until in (None, places[2].cursor)]
    there = [reader.read(view, window, limit=1).last is not None for window in windows]
    assert {True, False} == set(there)
    for _ in range(8):
        assert reader.news([(view, window) for window in windows]) == there


def test_rows_without_a_cursor_are_never_read(operator: OperatorDatabase, reader: Reader) -> None:
    """A NULL cursor means not final yet: such rows are counted, and stand in no page and at no head."""
    fine = "timestamptz" if operator.family == "postgresql" else "datetime(6)"
    rows = tuple(("NULL" if n % 2 else f"'2026-01-01 00:00:0{n}'", str(n)) for n in range(8))
    table(operator, "unfinished", {"c": fine, "k": "bigint"}, rows)
    view = view_of(reader, "unfinished")

    assert [row[1] for row in everything(reader, view, limit=3)] == ["0", "2", "4", "6"]
    head = reader.head(view)
    assert head is not None
    assert head.key == ("6",)
    assert reader.count(view) == 4
    assert reader.count(view, after="2026-01-01 00:00:02") == 2
    assert reader.count(view, after="2026-01-01 00:00:01.999999") == 3
    assert reader.count(view, after="2030-01-01 00:00:00") == 0


def test_the_head_is_the_last_row(operator: OperatorDatabase, reader: Reader) -> None:
    """The last in (cursor, key), or the last whose business time is at or below a bound; none in an empty view."""
    fine = "timestamptz" if operator.family == "postgresql" else "datetime(6)"
    rows = tuple((str(n), f"'2026-01-01 00:00:{n // 2:02}'") for n in range(20))
    table(operator, "heads", {"id": "bigint", "at": fine}, rows)
    view = view_of(reader, "heads", cursor="id", kind="id", key=("id",))

    assert reader.head(view) == Position("19", ("19",), 19)
    assert reader.head(view, column="at", until="2026-01-01 00:00:04") == Position("9", ("9",), 9)
    assert reader.head(view, column="at", until="2025-01-01 00:00:00") is None
    table(operator, "nobody", {"id": "bigint", "at": fine}, ())
    empty = replace(view, name="nobody")
    assert reader.head(empty) is None
    assert reader.read(empty, Window(None, None), limit=10).last is None


@pytest.mark.parametrize("names", [("c", "k"), ("k",)])
def test_rows_are_found_by_name_wherever_they_lie(
    operator: OperatorDatabase, reader: Reader, names: tuple[str, ...]
) -> None:
    """Asked for in any order, by cursor and key or by key alone, in more than one query; those gone are left out."""
    fine = "timestamptz" if operator.family == "postgresql" else "datetime(6)"
    rows = tuple((f"'2026-01-{1 + n % 28:02} 00:00:00.{n:06}'", str(n)) for n in range(500))
    table(operator, "scattered", {"c": fine, "k": "bigint"}, rows)
    view = view_of(reader, "scattered")
    everywhere = reader.read(view, Window(None, None), limit=1000).frame
    wanted = everywhere.sample(450, seed=7, shuffle=True).select(names)
    operator.execute("delete from scattered where k < 20")
    gone = {str(number) for number in range(20)}
    found = reader.read_named(view, wanted)
    assert sorted(found["k"]) == sorted(set(wanted["k"]) - gone)
    assert found.columns == ["c", "k"]


@pytest.mark.parametrize(
    ("operator", "shape"),
    [(name, shape) for name, family in FAMILIES.items() for shape in CURSORS[family]],
    indirect=["operator"],
)
def test_a_position_written_back_finds_its_row(operator: OperatorDatabase, reader: Reader, shape: str) -> None:
    """The round trip of every row of every cursor type is exact, as cursor and as key."""
    values = CURSORS[operator.family][shape]
    table(operator, "round_trip", {"c": shape, "k": shape}, tuple((value, value) for value in values))
    view = view_of(reader, "round_trip")
    page = reader.read(view, Window(None, None), limit=100)

    assert page.frame.height == len(values)
    for place in positions(page, view):
        assert reader.finds(view, place), place
    wrong = replace(positions(page, view)[0], key=positions(page, view)[-1].key)
    assert reader.finds(view, wrong) is (len(values) == 1)


def test_a_page_bounded_in_bytes_loses_nothing(
    operator: OperatorDatabase, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at a whole row, says that there may be more, and the next one goes on behind it."""
    monkeypatch.setattr(reading, "PAGE_BYTES", 200_000)
    table(operator, "wide", {"id": "bigint", "t": "text"}, ())
    operator.fill("wide_rows", [(number, f"{number:05}" * 50) for number in range(2500)])
    view = view_of(reader, "wide", cursor="id", kind="id", key=("id",))

    first = reader.read(view, Window(None, None), limit=5000)

    assert 0 < first.frame.height < 2500
    assert first.full
    assert everything(reader, view, limit=5000) == [(str(number), f"{number:05}" * 50) for number in range(2500)]


@pytest.mark.parametrize(
    ("type_name", "cast"),
    [
        ("datetime(6)", "DATETIME(6)"),
        ("timestamp", "DATETIME(6)"),
        ("date", "DATE"),
        ("bigint(20)", "SIGNED INTEGER"),
        ("int(10) unsigned zerofill", "UNSIGNED INTEGER"),
        ("bit(1)", "UNSIGNED INTEGER"),
        ("decimal(38,18)", "DECIMAL(38, 18)"),
        ("decimal(10,2) unsigned", "DECIMAL(10, 2)"),
    ],
)
def test_mysql_compares_numbers_and_times_as_what_they_are(type_name: str, cast: str) -> None:
    """A bare text would be compared as a float by some versions."""
    compiled = str(MySQL().bind("1", type_name, "p").compile(dialect=sa.make_url("mysql+pymysql://").get_dialect()()))
    assert compiled == f"CAST(%s AS {cast})"
    assert str(MySQL().bind("1", "time", "p").compile()) == ":p"


# Plans --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "fine"),
    [
        ("postgresql", "timestamptz"),
        ("postgresql", "timestamp(0)"),
        ("mysql", "datetime(6)"),
        ("mysql", "timestamp(6) null"),
    ],
    indirect=["operator"],
)
def test_a_missing_index_is_seen(operator: OperatorDatabase, reader: Reader, fine: str) -> None:
    """A keyset query needs a sort without the index on (cursor, key), and none with it."""
    table(operator, "planned", {"c": fine, "k": "bigint", "t": "varchar(80)"}, ())
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    operator.fill("planned_rows", [(start + dt.timedelta(seconds=n // 3), n, "x" * 40) for n in range(6000)])
    view = view_of(reader, "planned")
    place = Position("2026-01-01 00:20:00", ("3600",), 0)

    assert reader.needs_sort(view, place) is True
    operator.execute("create index planned_by_cursor on planned_rows (c, k)", _analyze(operator))
    assert reader.needs_sort(view, place) is False


def _analyze(operator: OperatorDatabase) -> str:
    return "analyze planned_rows" if operator.family == "postgresql" else "analyze table planned_rows"


# Failures -----------------------------------------------------------------------------------------------------------


def told(error: ConnectorError) -> str:
    """Return an error's text, checked to be one line for people."""
    text = str(error)
    assert "\n" not in text
    assert "\\n" not in text
    assert "Traceback" not in text
    assert "casino" in text  # the source's name
    assert error.hint
    return text


def test_a_session_can_only_read(operator: OperatorDatabase) -> None:
    """Even with a login that might write, the session refuses to."""
    table(operator, "guarded", {"c": "bigint"}, ())
    owner = (
        operator.owner.replace("postgresql://", "postgresql+pyodbc://") if operator.name == "odbc" else operator.owner
    )
    url = operator.url if operator.name == "standby" else owner
    writing = Reader(url, source="casino")
    try:
        with pytest.raises(Misconfigured, match=r"(?i)read.only"):
            writing.ask(lambda connection: connection.exec_driver_sql("insert into guarded_rows values (1)"))
    finally:
        writing.close()
    assert operator.rows("select count(*) from guarded_rows") == [(0,)]


def test_a_read_that_takes_too_long_is_transient(operator: OperatorDatabase) -> None:
    """The server cancels it after the statement time-out, and the reader works again."""
    table(operator, "quick", {"c": "bigint"}, (("1",),))
    sleeping = "pg_sleep(30) is null" if operator.family == "postgresql" else "sleep(30)"
    operator.execute(f"create view slow as select c, {sleeping} as slept from quick_rows")
    hasty = Reader(operator.url, source="casino", settings=Settings(statement_timeout=0.4))
    try:
        view = view_of(hasty, "slow", kind="id", key=("c",))
        began = clock.monotonic()
        with pytest.raises(Transient) as caught:
            hasty.read(view, Window(None, None), limit=10)
        assert clock.monotonic() - began < 15
        told(caught.value)
        assert hasty.read(
            view_of(hasty, "quick", kind="id", key=("c",)), Window(None, None), limit=10
        ).frame.rows() == [("1",)]
    finally:
        hasty.close()


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_a_read_behind_a_lock_is_transient(operator: OperatorDatabase) -> None:
    """It waits no longer than it may, and reads once the lock is gone."""
    table(operator, "locked", {"c": "bigint"}, (("1",),))
    hasty = Reader(operator.url, source="casino", settings=Settings(statement_timeout=2.0, lock_timeout=0.1))
    view = view_of(hasty, "locked", kind="id", key=("c",))
    rival = operator.connect()
    locking = (
        ("begin", "lock table locked_rows") if operator.family == "postgresql" else ("lock tables locked_rows write",)
    )
    try:
        with rival.cursor() as cursor:
            for statement in locking:
                cursor.execute(statement)
        with pytest.raises(Transient) as caught:
            hasty.read(view, Window(None, None), limit=10)
        told(caught.value)
        rival.close()
        assert hasty.read(view, Window(None, None), limit=10).frame.rows() == [("1",)]
    finally:
        hasty.close()


@pytest.mark.parametrize("operator", ["postgresql", "odbc"], indirect=True)
def test_no_server_ends_a_transaction_that_is_still_waited_for(operator: OperatorDatabase) -> None:
    """ODBC fetches a page in pieces: a slow network or a busy host of ours may lie between two for as long as we wait."""
    settings = Settings(statement_timeout=2.0, connect_timeout=3.0)
    patient = Reader(operator.url, source="casino", settings=settings)
    limit = sa.text("select setting from pg_settings where name = 'idle_in_transaction_session_timeout'")
    try:
        allowed = patient.ask(lambda connection: int(connection.execute(limit).scalar_one()))
    finally:
        patient.close()
    assert allowed >= settings.answer_timeout * 1000


@pytest.mark.parametrize("operator", ["postgresql", "odbc"], indirect=True)
@pytest.mark.parametrize("limit", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_transaction_that_the_server_gave_up_is_transient(
    operator: OperatorDatabase, reader: Reader, limit: str, wait: Callable[..., Any]
) -> None:
    """Between two fetches of a page the server waits for us, and a role may have its own limits for that."""

    def dawdle(connection: sa.Connection) -> None:
        backend = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
        for statement in (f"set {limit} = '50ms'", "begin"):
            connection.exec_driver_sql(statement)
        gone = f"select not exists (select from pg_stat_activity where pid = {backend})"
        wait(lambda: operator.rows(gone) == [(True,)], what="the server gives the transaction up")
        connection.exec_driver_sql("select 1")

    with pytest.raises(Transient) as caught:
        reader.ask(dawdle)
    told(caught.value)
    assert reader.sample().clock > 0


@pytest.mark.parametrize("number", [1021, 1037, 1041, 1135, 1152, 1184, 1927, 4031])
def test_what_a_server_of_mysql_says_in_need_is_transient(number: int) -> None:
    """Its disk, memory or threads are used up, or it ended a session: none of these can be had on demand."""
    assert MySQL().is_transient(pymysql.OperationalError(number, "it broke"))
    assert not MySQL().is_transient(pymysql.OperationalError(1146, "no such table"))


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
@pytest.mark.parametrize("asleep", [True, False])
def test_a_session_that_a_person_ended_is_transient(
    operator: OperatorDatabase, reader: Reader, wait: Callable[..., Any], *, asleep: bool
) -> None:
    """Between two reads or amid one: the DBA's word for it costs a read, and the next one connects again."""
    table(operator, "ended", {"c": "bigint"}, (("1",),))
    view = view_of(reader, "ended", kind="id", key=("c",))
    own, sleep, sessions, number, words, end = (
        ("pg_backend_pid", "pg_sleep", "pg_stat_activity", "pid", "query", "select pg_terminate_backend({0})")
        if operator.family == "postgresql"
        else ("connection_id", "sleep", "information_schema.processlist", "id", "info", "kill {0}")
    )
    backend = reader.ask(lambda connection: connection.exec_driver_sql(f"select {own}()").scalar_one())
    there = f"select count(*) from {sessions} where {number} = {backend}"

    def ended() -> None:
        if not asleep:
            wait(lambda: operator.rows(f"{there} and {words} like '%sleep(%'") == [(1,)], what="the read runs")
        operator.execute(end.format(backend))
        wait(lambda: operator.rows(there) == [(0,)], what="the session is gone")

    ender = threading.Thread(target=ended)
    ender.start()
    if asleep:
        ender.join()
    with pytest.raises(Transient) as caught:
        reader.ask(lambda connection: connection.exec_driver_sql(f"select {sleep}(8)").scalar_one())
    ender.join()
    told(caught.value)
    assert reader.read(view, Window(None, None), limit=10).frame.rows() == [("1",)]


def test_a_wrong_password_is_a_mistake_of_the_configuration(operator: OperatorDatabase) -> None:
    """The message says that the login was refused, and does not say the password."""
    with pytest.raises(Misconfigured) as caught:
        Reader(operator.url.replace("reading-only", "wrong-word"), source="casino").sample()
    assert "refused the login" in told(caught.value)
    assert "wrong-word" not in told(caught.value)


def test_a_password_of_odd_characters_is_taken(operator: OperatorDatabase) -> None:
    """What has a meaning in URLs, connection strings and quotes has none in a password."""
    word = "a;b}c{d e@f/g:h%i=j?k&l"
    role = f"odd_{operator.name}"
    host = "" if operator.family == "postgresql" else "@'127.0.0.1'"
    login = f"login password '{word}'" if operator.family == "postgresql" else f"identified by '{word}'"
    operator.execute(f"create {'role' if operator.family == 'postgresql' else 'user'} {role}{host} {login}")
    try:
        reader = Reader(operator.url.replace("reader:reading-only", f"{role}:{quote(word, safe='')}"), source="casino")
        if operator.family == "mysql":
            operator.execute(f"grant select on {operator.url.rpartition('/')[2]}.* to {role}{host}")
        assert reader.sample().clock > 0
        reader.close()
    finally:
        operator.execute(f"drop {'role' if operator.family == 'postgresql' else 'user'} {role}{host}")


def test_a_wrong_database_is_a_mistake_of_the_configuration(operator: OperatorDatabase) -> None:
    """The message names the database."""
    name = operator.url.rpartition("/")[2].partition("?")[0]
    with pytest.raises(Misconfigured) as caught:
        Reader(operator.url.replace(f"/{name}", "/no_such_casino"), source="casino").sample()
    told(caught.value)


def test_a_server_that_does_not_answer_is_transient(operator: OperatorDatabase, request: pytest.FixtureRequest) -> None:
    """A refused connection may be a restart: it is tried again."""
    port = operator.url.rpartition("/")[0].rpartition(":")[2]
    closed = request.getfixturevalue("closed_port")
    with pytest.raises(Transient) as caught:
        Reader(
            operator.url.replace(f":{port}/", f":{closed}/"), source="casino", settings=Settings(connect_timeout=2)
        ).sample()
    told(caught.value)


def test_a_view_or_column_that_vanished_is_a_mistake_of_the_configuration(
    operator: OperatorDatabase, reader: Reader
) -> None:
    """The message repeats the server's words and does not blame the login."""
    table(operator, "vanishing", {"c": "bigint", "k": "bigint"}, (("1", "1"),))
    view = view_of(reader, "vanishing", kind="id")
    operator.execute("drop view vanishing", "create view vanishing as select c from vanishing_rows")
    with pytest.raises(Misconfigured) as caught:
        reader.read(view, Window(None, None), limit=10)
    assert "login" not in told(caught.value)
    operator.execute("drop view vanishing")
    with pytest.raises(Misconfigured) as caught:
        reader.read(view, Window(None, None), limit=10)
    assert "vanishing" in told(caught.value)
    assert "login" not in told(caught.value)


def test_an_unusable_url_is_a_mistake_of_the_configuration() -> None:
    """Neither a text that is no URL nor an unknown database opens anything."""
    with pytest.raises(Misconfigured, match="not a database URL"):
        Reader("no url", source="casino")
    with pytest.raises(Misconfigured, match="unknown database 'sqlite'") as caught:
        Reader("sqlite:///file", source="casino")
    assert all(name in caught.value.hint for name in DIALECTS)


def test_a_restarted_server_is_transient_once(operator: OperatorDatabase, reader: Reader) -> None:
    """The session that it cut fails, the next read goes on where the last one ended."""
    table(operator, "lasting", {"c": "bigint"}, tuple((str(n),) for n in range(10)))
    view = view_of(reader, "lasting", kind="id", key=("c",))
    page = reader.read(view, Window(None, None), limit=4)
    operator.close()
    operator.restart()
    with pytest.raises(Transient) as caught:
        reader.read(view, Window(page.last, None), limit=4)
    told(caught.value)
    assert everything(reader, view, limit=4, after=page.last) == [(str(n),) for n in range(4, 10)]


# What a server says of itself ---------------------------------------------------------------------------------------


def test_a_sample_tells_clock_progress_and_server(operator: OperatorDatabase, reader: Reader) -> None:
    """The clock is the server's UTC in nanoseconds; two samples name the same server."""
    operator.execute("create table written (c bigint)", "insert into written values (1)")
    first, second = reader.sample(), reader.sample()
    now = clock.now().timestamp() * 1e9
    assert abs(first.clock - now) < 30e9
    assert first.clock <= second.clock
    assert first.server == second.server
    assert second.progress is not None
    assert abs(second.progress - now) < 30e9


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
def test_a_replica_of_mysql_cannot_tell_its_progress(operator: OperatorDatabase, reader: Reader) -> None:
    """Its clock goes on while its relay log stalls: where the server is read-only, progress is unknown."""
    assert reader.sample().progress is not None
    operator.execute("set global read_only = 1")
    try:
        assert reader.sample().progress is None
    finally:
        operator.execute("set global read_only = 0")


@pytest.mark.parametrize("operator", ["standby"], indirect=True)
def test_the_progress_of_a_standby_is_its_replay(
    operator: OperatorDatabase, reader: Reader, wait: Callable[..., Any]
) -> None:
    """It stands still while replay is paused, though the clock and the primary move on."""
    owner = operator.owner.rpartition("@")[0]
    standby = f"{owner}@{operator.url.rpartition('@')[2]}"
    table(operator, "replayed", {"c": "bigint"}, (("1",),))
    view = view_of(reader, "replayed", kind="id", key=("c",))
    with psycopg.connect(standby, autocommit=True) as replay:
        replay.execute("select pg_wal_replay_pause()")
        wait(
            lambda: (replay.execute("select pg_get_wal_replay_pause_state()").fetchone() or ("",))[0] == "paused",
            what="replay pauses",
        )
        try:
            before = reader.sample()
            operator.connect().execute("insert into replayed_rows values (2)")
            after = wait(
                lambda: (s := reader.sample()).clock > before.clock + 100_000_000 and s, what="the clock moves"
            )
            assert after.progress == before.progress
            assert reader.read(view, Window(None, None), limit=10).frame.rows() == [("1",)]
        finally:
            replay.execute("select pg_wal_replay_resume()")
    operator.settle()
    assert reader.read(view, Window(None, None), limit=10).frame.rows() == [("1",), ("2",)]
    assert (reader.sample().progress or 0) > (before.progress or 0)


@pytest.mark.parametrize("operator", ["standby"], indirect=True)
def test_a_read_that_replay_cancels_is_transient(
    operator: OperatorDatabase, reader: Reader, wait: Callable[..., Any]
) -> None:
    """A recovery conflict (40001) costs the page, and the reader works again."""
    table(operator, "contested", {"c": "bigint"}, tuple((str(n),) for n in range(100)))
    operator.execute("create view lingering as select c, pg_sleep(0.1) is null as slept from contested_rows")
    view = view_of(reader, "lingering", kind="id", key=("c",))
    failures: list[Exception] = []

    def read() -> None:
        try:
            reader.read(view, Window(None, None), limit=100)
        except Exception as error:  # noqa: BLE001 - judged below
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with psycopg.connect(operator.url, autocommit=True) as standby:
        running = "select count(*) from pg_stat_activity where query like 'COPY%' and state = 'active' and application_name = 'connector'"
        wait(lambda: (standby.execute(running).fetchone() or (0,))[0], what="the read runs")
    operator.connect().execute("alter table contested_rows add column extra int")
    thread.join(20)

    assert not thread.is_alive()
    assert isinstance(failures[0], Transient)
    assert getattr(failures[0].__cause__, "sqlstate", None) == "40001"
    told(failures[0])
    operator.settle()
    assert reader.count(view_of(reader, "contested", kind="id", key=("c",)), after="0") == 99
