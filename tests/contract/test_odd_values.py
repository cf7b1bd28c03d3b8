"""Values that are no text, no date, or far too much: each arrives once, and no page is larger than its limit and a row."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg import sql

from connector.position import Kind, Position, Window
from connector.sources import reader as reading
from connector.sources.dialect import bytes_of
from connector.sources.reader import Reader, View, position_at

if TYPE_CHECKING:
    from collections.abc import Iterator

OperatorDatabase = Any
MEGABYTE: Final = 1 << 20
#: Latin1, halves of characters, text in two encodings, and the characters that carry bytes.
RAWS: Final = (
    *(b"a\xe9", b"a\xe8", b"a", b"\xff\xfe", b"\xc3", b"\xc3\xa9", b"\xe9\x80", b"z\x80\xf0\x9f", b"\xed\xa0\x80"),
    *("🙂".encode(), "\U0010f700".encode(), "\U0010f7ff\ufffd".encode(), b"b", b"\x01\x1f\x7f", b'","\n"'),
)


def view_of(reader: Reader, kind: Kind = "time") -> View:
    """Return the view `told` as a stream sees it."""
    types = reader.columns("told")
    return View("told", "c", kind, ("k",), tuple(types), types)


def walk(reader: Reader, view: View, *, limit: int) -> list[tuple[str, ...]]:
    """Read page by page to the end; every row is found by its own position."""
    rows: list[tuple[str, ...]] = []
    after: Position | None = None
    while (page := reader.read(view, Window(after, None), limit=limit)).last is not None:
        assert page.last != after, "the page did not move on"
        assert all(reader.finds(view, position_at(page.frame, view, n)) for n in range(page.frame.height))
        rows += page.frame.rows()
        after = page.last
    return rows


def over_odbc(request: pytest.FixtureRequest, url: str) -> str:
    return f"{url.replace('postgresql', 'postgresql+pyodbc')}?driver={request.getfixturevalue('odbc')}"


@pytest.fixture(params=["postgresql", "odbc"])
def ascii_url(request: pytest.FixtureRequest, postgres: Any) -> Iterator[str]:
    """Give a database without an encoding, as old ones are."""
    make = "create database any_bytes template template0 encoding 'SQL_ASCII' locale 'C'"
    with psycopg.connect(postgres.server.url(), autocommit=True) as connection:
        connection.execute(make)
    owner = postgres.server.url("any_bytes")
    with psycopg.connect(owner, autocommit=True, client_encoding="utf8") as connection:
        connection.execute("create table told (c timestamptz, k text, v text)")
        connection.execute("grant select on told to reader")
        for raw in RAWS:
            literal = sql.SQL("convert_from({}, 'SQL_ASCII')").format(raw)
            connection.execute(sql.SQL("insert into told values ('2026-03-01', {0}, {0})").format(literal))
    url = postgres.reading(owner)
    yield over_odbc(request, url) if request.param == "odbc" else url
    postgres.drop("any_bytes")


def test_a_database_without_an_encoding_is_read(ascii_url: str) -> None:
    """Broken bytes cost neither the page nor their row: keys that differ in them stay different rows."""
    with contextlib.closing(Reader(ascii_url, source="casino")) as reader:
        view = view_of(reader)
        for limit in (1, 2, 50):
            rows = walk(reader, view, limit=limit)
            assert [bytes_of(key) for _, key, _ in rows] == sorted(RAWS)
            assert [value for *_, value in rows] == [key for _, key, _ in rows]


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
@pytest.mark.parametrize(
    ("key", "raws"),
    [
        ("varbinary(20)", (*RAWS, b"\0", b"a\0", b"a\0b", b"")),
        ("varchar(20) collate utf8mb4_bin", (b"a\0", b"a\0b", b"a\0c", b"a", b"a b", "\U0010f700".encode())),
        ("blob", (*RAWS, b"a\0")),
    ],
)
def test_bytes_of_mysql_are_keys_like_any(operator: OperatorDatabase, key: str, raws: tuple[bytes, ...]) -> None:
    """NUL and broken UTF-8 in a key come once and in the server's order."""
    operator.execute(f"create table told (c datetime, k {key}, v varbinary(20))")
    for raw in raws:
        operator.execute(f"insert into told values ('2026-03-01', x'{raw.hex()}', x'{raw.hex()}')")
    order = [bytes.fromhex(key) for (key,) in operator.rows("select hex(k) from told order by k")]
    with contextlib.closing(Reader(operator.url, source="casino")) as reader:
        view = view_of(reader)
        for limit in (1, 2, 50):
            rows = walk(reader, view, limit=limit)
            assert [bytes_of(key) for _, key, _ in rows] == order
            assert [bytes_of(value) for *_, value in rows] == order


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_characters_that_carry_bytes_are_characters_too(operator: OperatorDatabase) -> None:
    """A source that holds them itself is read like any other."""
    ddl = 'varchar(20) collate "C"' if operator.family == "postgresql" else "varchar(20) collate utf8mb4_bin"
    keys = ["\U0010f700", "\U0010f7e9", "é", "a\U0010f7ffb", "\ufffd"]
    operator.execute(f"create table told (c date, k {ddl}, v text)")
    operator.fill("told", [("2026-03-01", key, key) for key in keys])
    with contextlib.closing(Reader(operator.url, source="casino")) as reader:
        assert [bytes_of(key).decode() for _, key, _ in walk(reader, view_of(reader), limit=1)] == sorted(keys)


# Impossible dates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
@pytest.mark.parametrize("mode", ["TRADITIONAL", "ANSI_QUOTES"])
@pytest.mark.parametrize("column", ["datetime", "date", "timestamp null"])
def test_dates_that_the_server_refuses_today_are_read_as_they_are_stored(
    operator: OperatorDatabase, mode: str, column: str
) -> None:
    """A zero date may stand first, in the middle or last on a page; a server whose mode forbids it goes on behind it."""
    days = ["0000-00-00", "2026-03-01", *([] if "stamp" in column else ["0000-11-30", "2026-02-31"])]
    operator.execute("set sql_mode = 'ALLOW_INVALID_DATES'", f"create table told (c {column}, k int, f {column})")
    operator.fill("told", [(day, number, "0000-00-00") for day in days for number in range(5)])
    operator.execute(f"set global sql_mode = '{mode}'")
    try:
        with contextlib.closing(Reader(operator.url, source="casino")) as reader:
            for limit in (1, 2, 3, 50):
                rows = walk(reader, view_of(reader), limit=limit)
                assert [(cursor[:10], key, field[:10]) for cursor, key, field in rows] == [
                    (day, str(number), "0000-00-00") for day in sorted(days) for number in range(5)
                ]
            casts = "select cast('0000-00-00' as datetime(6)) is null, cast('2026-02-31' as date) is null"
            nulls = reader.ask(lambda session: session.exec_driver_sql(casts).one())
            assert nulls == (0, 0)  # MySQL compares nothing with a cast that is NULL, and reads nothing
    finally:
        operator.execute("set global sql_mode = default")


# Sizes --------------------------------------------------------------------------------------------------------------


def peak() -> int:
    """Return the most memory that this process has held since the last call, in bytes."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture
def wide(operator: OperatorDatabase) -> OperatorDatabase:
    """Give a view of 600 rows of 200 kB."""
    many = "generate_series(1, 600) s(n)" if operator.family == "postgresql" else "(select seq n from seq_1_to_600) s"
    operator.execute(
        "create table wide (c bigint primary key, v text)"
        if operator.family == "postgresql"
        else "create table wide (c bigint primary key, v mediumtext)"
    )
    operator.execute(
        f"insert into wide select n, repeat('é', 100000) from {many}", "create view told as select * from wide"
    )
    return operator


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_a_page_of_wide_rows_is_bounded_in_bytes_and_memory(
    wide: OperatorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds as many bytes as it may and one row, however many rows were asked for, and so does the process."""
    monkeypatch.setattr(reading, "PAGE_BYTES", 4 * MEGABYTE)
    with contextlib.closing(Reader(wide.url, source="casino")) as reader:
        view = View("told", "c", "id", ("c",), ("c", "v"), reader.columns("told"))
        page = reader.read(view, Window(None, None), limit=10_000)
        before = peak()
        page = reader.read(view, Window(page.last, None), limit=10_000)
        grown = peak() - before
        assert page.full
        assert 20 <= page.frame.height <= 22
        assert page.frame.estimated_size() < 5 * MEGABYTE
        assert grown < 40 * MEGABYTE
        rest = reader.read(view, Window(page.last, None), limit=10)
        assert rest.frame["c"][0] == str(page.last.mark + 1 if page.last else None)


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
def test_what_a_page_leaves_is_not_sent(wide: OperatorDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver can't stop a result, so the session goes: reading 120 MB to throw them away would take as long as all."""
    monkeypatch.setattr(reading, "PAGE_BYTES", 4 * MEGABYTE)

    def sent() -> int:
        ((_, number),) = wide.rows("show global status like 'Bytes_sent'")
        return int(number)

    with contextlib.closing(Reader(wide.url, source="casino")) as reader:
        view = View("told", "c", "id", ("c",), ("c", "v"), reader.columns("told"))
        before = sent()
        reader.read(view, Window(None, None), limit=10_000)
        assert reader.sample().clock > 0
        assert sent() - before < 30 * MEGABYTE


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_one_enormous_value_is_a_page_of_its_own(operator: OperatorDatabase) -> None:
    """40 MB of text with quotes and line breaks arrive whole, and so do the rows around them."""
    text, size = ("text", 40) if operator.family == "postgresql" else ("longtext", 15)
    many = "generate_series(1, 9) s(n)" if operator.family == "postgresql" else "(select seq n from seq_1_to_9) s"
    operator.execute(f"create table told (c bigint primary key, v {text})")
    operator.execute(
        f"insert into told select n, repeat('a\"\n,b', case when n = 4 then {size} * 200000 else n end) from {many}"
    )
    with contextlib.closing(Reader(operator.url, source="casino")) as reader:
        view = View("told", "c", "id", ("c",), ("c", "v"), reader.columns("told"))
        rows: list[tuple[str, str]] = []
        after: Position | None = None
        while (page := reader.read(view, Window(after, None), limit=3)).last is not None:
            rows += page.frame.rows()
            after = page.last
        assert [
            (number, text == 'a"\n,b' * (size * 200_000 if number == "4" else int(number))) for number, text in rows
        ] == [(str(number), True) for number in range(1, 10)]
