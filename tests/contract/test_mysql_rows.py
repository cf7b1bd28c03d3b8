"""MariaDB's rows wherever the stream of bytes is cut: each arrives whole, or the read fails in the driver's own words."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector.errors import Transient
from connector.position import Window
from connector.sources import mysql_rows
from connector.sources.dialect import Settings
from connector.sources.reader import Reader, View
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

OperatorDatabase = Any
#: More than a packet's number can count to, and more bytes than fit between two ends at once.
ROWS: Final = 2_000
#: A text longer than a short length can say stands in every 50th row, one longer than any buffer here in the last.
FILL: Final = f"""
    insert into told select seq, nullif(concat('é', seq), 'é7'), case when seq = {ROWS} then repeat('x', 70000)
        when seq % 50 = 0 then repeat('y', 251 + seq) when seq % 3 = 0 then '' end from seq_1_to_{ROWS}
"""

pytestmark = pytest.mark.parametrize("operator", ["mysql"], indirect=True)


def written(number: int) -> tuple[str, str | None, str | None]:
    """Return a row as FILL writes it."""
    text = "x" * 70_000 if number == ROWS else "y" * (251 + number)
    return (
        str(number),
        None if number == 7 else f"é{number}",
        text if number % 50 == 0 else "" if number % 3 == 0 else None,
    )


@pytest.fixture
def url(operator: OperatorDatabase) -> str:
    """Give the reading role's URL of a table of texts of all lengths."""
    operator.execute("create table told (id bigint primary key, a varchar(20), b mediumtext)", FILL)
    return str(operator.url)


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    """Give a way to the server that fails on command."""
    with contextlib.closing(Proxy(int(url.rpartition("/")[0].rpartition(":")[2]))) as proxy:
        yield proxy


@contextlib.contextmanager
def reading(url: str, **limits: float) -> Iterator[tuple[Reader, View]]:
    with contextlib.closing(Reader(url, source="casino", settings=Settings(**limits))) as reader:
        types = reader.columns("told")
        yield reader, View("told", "id", "id", ("id",), tuple(types), types)


@pytest.mark.parametrize("size", [1, 5, 64, 999, 1 << 14, 1 << 20])
def test_rows_that_arrive_in_pieces_are_whole(url: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little a look at the socket brings: a header may be cut, and a row lie on both sides."""
    monkeypatch.setattr(mysql_rows, "_BUFFER", size)
    with reading(url) as (reader, view):
        page = reader.read(view, Window(None, None), limit=10_000)
        assert page.frame.rows() == [written(number) for number in range(1, ROWS + 1)]
        assert reader.sample().clock > 0  # nothing of the page is left in the way


@pytest.mark.parametrize("left", [0, 3, 100, 5_000, 16_384, 40_000])
def test_a_connection_that_breaks_in_a_page_is_transient(url: str, proxy: Proxy, left: int) -> None:
    """No page is handed over short; the next read connects again and has all of it."""
    with reading(proxy.through(url)) as (reader, view):
        assert reader.read(view, Window(None, None), limit=10).frame.height == 10
        proxy.cut_after(left)
        with pytest.raises(Transient, match="Lost connection"):
            reader.read(view, Window(None, None), limit=10_000)
        assert reader.read(view, Window(None, None), limit=10_000).frame.height == ROWS


def test_a_connection_that_breaks_between_two_rows_is_transient(
    url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row has 13 bytes here: one of the cuts falls where the next one would begin."""
    monkeypatch.setattr(mysql_rows, "_BUFFER", 1)
    with reading(proxy.through(url)) as (reader, view):
        for left in range(400, 413):
            assert reader.read(view, Window(None, None), limit=10).frame.height == 10
            proxy.cut_after(left)
            with pytest.raises(Transient, match="Lost connection"):
                reader.read(view, Window(None, None), limit=90)


def test_a_server_that_falls_silent_in_a_page_is_transient(url: str, proxy: Proxy) -> None:
    """The wait for more rows ends, though no row was cut."""
    with reading(proxy.through(url), statement_timeout=0.5, connect_timeout=1.0) as (reader, view):
        assert reader.read(view, Window(None, None), limit=10).frame.height == 10
        proxy.stall_after(20_000)
        with pytest.raises(Transient, match="no answer within"):
            reader.read(view, Window(None, None), limit=10_000)
        proxy.restore()
        assert reader.read(view, Window(None, None), limit=10_000).frame.height == ROWS


def test_a_time_out_amid_the_rows_is_transient(operator: OperatorDatabase, url: str) -> None:
    """The server says so where the next row would be: what came before it is no page."""
    operator.execute("create view slow as select * from told where id < 1500 or sleep(0.01) = 0")
    with reading(url, statement_timeout=1.0) as (reader, view):
        slow = View("slow", "id", "id", ("id",), view.columns, view.types)
        with pytest.raises(Transient, match="max_statement_time"):
            reader.read(slow, Window(None, None), limit=10_000)
        assert reader.read(slow, Window(None, None), limit=1_000).frame.height == 1_000
