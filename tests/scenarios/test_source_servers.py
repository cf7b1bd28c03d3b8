"""The source's server restarts, cancels, refuses or ends its reader; every row still arrives exactly once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pymysql
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

OperatorDatabase = Any
Make = Any
ROWS: Final = 400
#: A view of the deposits that takes as long per row (per query on MariaDB) as the table `pace` says.
SLOW: Final = {
    "postgresql": (
        """
        create function paced(text) returns boolean stable language plpgsql as
        'begin perform pg_sleep(seconds) from pace; return true; end'
        """,
        "create view deposits as select * from deposits_rows where paced(transaction_id)",
    ),
    "mysql": ("create view deposits as select d.* from deposits_rows d, pace p where sleep(p.seconds) = 0",),
}
#: Who reads a page of deposits now, on PostgreSQL; the head is read downwards.
READS: Final = """
    select pid from pg_stat_activity where usename = 'reader' and state = 'active' and pid <> pg_backend_pid()
    and query like '%FROM deposits%LIMIT%' and query not like '% DESC%'
"""


def slow_down(operator: OperatorDatabase, seconds: float) -> None:
    """Make every read of the deposits slow, a small page less than a large one."""
    operator.execute("drop view deposits", "create table pace (seconds double precision)")
    operator.execute(f"insert into pace values ({seconds})", *SLOW[operator.family])
    if operator.family == "postgresql":  # in the order of the index, as a large view is read
        name = operator.owner.rpartition("/")[2]
        operator.execute(
            *(f"alter database {name} set enable_{way} = off" for way in ("sort", "seqscan", "bitmapscan"))
        )


@pytest.mark.parametrize("dialect", ["standby", "mysql"])
def test_a_replica_that_restarts_under_a_load_is_read_to_its_end(
    dialect: str, casino_of: Make, reading: Make, serve: Make, wait: Make
) -> None:
    """Reading fails while the server is away, and goes on from the last committed position."""
    casino = casino_of(dialect, rows=4_000)
    cycle = reading(casino.settings(page_rows=100))
    serve(cycle)
    wait(lambda: casino.stored() >= 300, what="the load is read")
    casino.operator.close()
    casino.operator.restart()
    assert casino.stored() < casino.rows
    casino.operator.settle()
    casino.deposit(300)
    wait(lambda: casino.stored() == casino.rows, what="everything is read")
    casino.assert_whole()


def test_a_page_that_replay_cancels_is_read_again_in_halves(
    casino_of: Make, reading: Make, drive: Make, beside: Make, limit_of: Make, wait: Make
) -> None:
    """A hot standby gives up its readers when the replay of a VACUUM must go on."""
    casino = casino_of("standby", rows=ROWS)
    casino.operator.execute("create table removed as select generate_series(1, 1000) as n")
    slow_down(casino.operator, 0.005)
    cycle = reading(casino.settings(page_rows=ROWS))
    one_pass = beside(cycle)
    with psycopg.connect(casino.operator.url, autocommit=True) as standby:
        wait(lambda: standby.execute(READS).fetchone(), what="the page is read")
        casino.operator.connect().execute("delete from removed")
        casino.operator.connect().execute("vacuum removed")
        one_pass.join()
    assert "conflict with recovery" in str(one_pass.failure)
    assert limit_of(cycle) == ROWS // 2
    casino.operator.execute("update pace set seconds = 0")
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_page_that_takes_the_server_too_long_is_read_in_halves(casino_of: Make, reading: Make, drive: Make) -> None:
    """The server cancels it after its statement time-out; a smaller page gets through, at the same pace."""
    casino = casino_of("postgresql", rows=ROWS)
    slow_down(casino.operator, 0.0015)
    cycle = reading(casino.settings(page_rows=ROWS, statement_timeout="500ms"))
    failures = drive(cycle)
    assert failures
    assert all("statement timeout" in str(failure) for failure in failures)
    casino.assert_whole()


def end_reader(operator: OperatorDatabase, wait: Make) -> None:
    """End the session that reads deposits, once it reads them, as an administrator would."""
    if operator.family == "mysql":
        reads = "select id from information_schema.processlist where user = 'reader' and info like '%deposits%'"
        ((session,),) = wait(lambda: operator.rows(reads), what="the page is read")
        operator.connect().cursor().execute(f"kill {session}")
        return
    ((session,),) = wait(lambda: operator.rows(READS), what="the page is read")
    operator.rows(f"select pg_terminate_backend({session})")


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "odbc"])
def test_a_reader_whose_session_is_ended_connects_again(
    dialect: str, casino_of: Make, reading: Make, drive: Make, beside: Make, wait: Make
) -> None:
    """An administrator's KILL costs the page in hand."""
    casino = casino_of(dialect, rows=ROWS)
    slow_down(casino.operator, 0.005 if casino.operator.family == "postgresql" else 5)
    cycle = reading(casino.settings(page_rows=ROWS))
    one_pass = beside(cycle)
    end_reader(casino.operator, wait)
    one_pass.join()
    assert one_pass.failure is not None
    casino.operator.execute("update pace set seconds = 0")
    assert drive(cycle) == []
    casino.assert_whole()


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "odbc"])
def test_a_server_without_a_free_place_is_tried_again(
    dialect: str, casino_of: Make, reading: Make, drive: Make
) -> None:
    """The operator grants few connections, and one that was lost may hold its place for a while."""
    casino = casino_of(dialect, rows=ROWS)
    cycle = reading(casino.settings())
    with limited(casino.operator):
        assert [len(drive(cycle, passes=1)) for _ in range(2)] == [1, 1]
    assert drive(cycle) == []
    casino.assert_whole()


@contextlib.contextmanager
def limited(operator: OperatorDatabase) -> Iterator[None]:
    """Leave the reading role no connection."""
    if operator.family == "postgresql":
        operator.execute("alter role reader connection limit 0")
        yield
        operator.execute("alter role reader connection limit -1")
        return
    operator.execute("grant usage on *.* to reader@'127.0.0.1' with max_user_connections 1")
    host, port = operator.url.partition("@")[2].partition("/")[0].split(":")
    with contextlib.closing(pymysql.connect(host=host, port=int(port), user="reader", password="reading-only")):
        yield
    operator.execute("grant usage on *.* to reader@'127.0.0.1' with max_user_connections 0")


def test_a_server_that_holds_both_sides_may_restart(
    casino_of: Make, reading: Make, drive: Make, postgres: Make
) -> None:
    """Source and store go away together: that is one failure more to wait out, not one that nobody foresaw."""
    casino = casino_of("postgresql", rows=0)
    cycle = reading(casino.settings())
    drive(cycle)
    casino.operator.close()
    postgres.restart()
    casino.deposit(300)
    drive(cycle)
    casino.assert_whole()
