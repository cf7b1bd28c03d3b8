"""The store's server restarts, fills its disk, is demoted, or contends with others; totals stay right to the cent."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from connector import app as application
from connector.errors import Transient
from connector.store import database, embedded, lease as leases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Make = Any
ROWS: Final = 300
WAITING: Final = """
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'connector' and wait_event_type = 'Lock'
"""


def test_a_store_that_restarts_under_a_load_gets_every_row(
    casino_of: Make, reading: Make, serve: Make, wait: Make, postgres: Any
) -> None:
    """Writing fails while it is away, and goes on from the last committed position."""
    casino = casino_of("mysql", rows=4_000)
    serve(reading(casino.settings(page_rows=100)))
    wait(lambda: casino.stored() >= 300, what="the load is read")
    postgres.restart()
    assert casino.stored() < casino.rows
    wait(lambda: casino.stored() == casino.rows, what="everything is read")
    casino.assert_whole()


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """Give a file system of its own, as small as a store's can be."""
    place = directory / "small"
    place.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=112m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"mounting a small file system is not permitted here: {mount.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_store(small_disk: Path) -> Iterator[database.Database]:
    """Give a store on the small disk."""
    server = embedded.start(small_disk / "store", settings={"fsync": "off", "shared_buffers": "16MB"})
    try:
        made = database.Database(server.create_database("crm"))
        database.migrate(made)
        yield made
    finally:
        server.stop()


def fill(disk: Path) -> Path:
    """Write a file over all that is free."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return ballast


def test_a_full_disk_is_told_and_costs_nothing(
    small_disk: Path, small_store: database.Database, casino_of: Make, reading: Make, drive: Make
) -> None:
    """Pages fail with the remedy as long as there is no space, and go on by themselves when there is."""
    casino = casino_of("postgresql", into=small_store)
    cycle = reading(casino.settings(page_rows=500))
    drive(cycle, passes=1)
    casino.deposit(1_000)
    ballast = fill(small_disk)
    failures = [failure for _ in range(3) for failure in drive(cycle, passes=1)]
    assert len(failures) == 3
    for failure in failures:
        assert "the store's disk is full" in str(failure)
        assert "free space" in str(failure)
    ballast.unlink()
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_store_that_became_read_only_is_asked_anew(casino_of: Make, reading: Make, drive: Make) -> None:
    """After a failover a session may have ended up at a standby: the next one may lead to the new primary."""
    casino = casino_of("postgresql", rows=0)
    settings = casino.settings()
    cycle = reading(settings)
    drive(cycle)
    casino.deposit(ROWS)
    name = casino.store.url.rpartition("/")[2]
    casino.look(f"alter database {name} set default_transaction_read_only = on")
    casino.look(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    )
    failures = [failure for _ in range(3) for failure in drive(cycle, passes=1)]
    assert len(failures) == 3
    assert all("the store can't be written" in str(failure) for failure in failures[1:])
    with pytest.raises(Transient, match="the store can't be written"):
        application.build(settings)
    with psycopg.connect(casino.store.url, autocommit=True, options="-c default_transaction_read_only=off") as owner:
        owner.execute(f"alter database {name} reset default_transaction_read_only")
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_transaction_that_the_store_gave_up_is_made_again(casino_of: Make, reading: Make, drive: Make) -> None:
    """A server may bound how long one is open: every page that takes longer fails, and none is lost."""
    casino = casino_of("postgresql", rows=0)
    name = casino.store.url.rpartition("/")[2]
    cycle = reading(casino.settings())
    drive(cycle)
    casino.deposit(ROWS)
    casino.look(f"alter database {name} set transaction_timeout = '100ms'")
    casino.look(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
    )
    with psycopg.connect(casino.store.url, options="-c transaction_timeout=0") as rival:
        database.ordered(rival)
        failures = [failure for _ in range(3) for failure in drive(cycle, passes=1)]
    assert len(failures) == 3
    assert all("terminating connection due to transaction timeout" in str(failure) for failure in failures[1:])
    casino.look(f"alter database {name} reset transaction_timeout")
    assert len(drive(cycle)) <= 1
    casino.assert_whole()


def test_a_session_that_was_frozen_in_its_transaction_is_replaced(store: database.Database, wait: Make) -> None:
    """The server gave it up meanwhile: what it says next fails as something that passes, and it is closed."""
    frozen = store.connect()
    frozen.execute("set idle_in_transaction_session_timeout = '50ms'")
    frozen.execute("begin")
    with psycopg.connect(store.url, autocommit=True) as watcher:
        gone = "select not exists (select from pg_stat_activity where pid = %s)"
        wait(lambda: watcher.execute(gone, (frozen.info.backend_pid,)).fetchone() == (True,), what="it is given up")
    with pytest.raises(psycopg.OperationalError, match="idle-in-transaction"):
        frozen.execute("select 1")
    assert frozen.closed


@pytest.mark.parametrize("expired", [True, False])
def test_a_start_is_not_held_up_by_a_frozen_predecessor(
    casino_of: Make, reading: Make, drive: Make, *, expired: bool
) -> None:
    """Its open transaction holds what every writer needs: it is ended, or as long as it may live waited for briefly."""
    casino = casino_of("postgresql", rows=ROWS)
    reading(casino.settings())
    frozen = casino.store.connect()
    assert leases.acquire(frozen, "kaasino/source:casino", holder="frozen")
    frozen.execute("begin")
    database.ordered(frozen)
    if not expired:
        with pytest.raises(Transient, match="lock timeout"):
            application.build(casino.settings())
    casino.look("update crm.leases set expires_at = '-infinity'")
    assert drive(reading(casino.settings())) == []
    with pytest.raises(psycopg.OperationalError):
        frozen.execute("commit")
    frozen.close()
    casino.assert_whole()


def test_a_deadlock_repeats_the_page(casino_of: Make, reading: Make, drive: Make, beside: Make, wait: Make) -> None:
    """Somebody else locks players in the reverse order, and the page is the victim: it is written again at once."""
    casino = casino_of("postgresql", rows=ROWS)
    cycle = reading(casino.settings())
    drive(cycle)
    casino.deposit(ROWS)
    with psycopg.connect(casino.store.url, options="-c deadlock_timeout=1min") as rival:
        rival.execute("select from crm.players where external_id = '00007' for update")
        one_pass = beside(cycle)
        wait(lambda: casino.look(WAITING), what="the page waits for the player")
        rival.execute("select from crm.player_money for update")
        rival.commit()
    one_pass.join()
    assert one_pass.failure is None
    (seen,) = casino.look("select deadlocks from pg_stat_database where datname = current_database()")
    assert seen["deadlocks"] == 1
    assert drive(cycle) == []
    casino.assert_whole()


def test_a_serialization_failure_repeats_the_page(
    casino_of: Make, reading: Make, drive: Make, beside: Make, wait: Make
) -> None:
    """Where the store's default isolation is stricter, a player that changed meanwhile costs an attempt."""
    casino = casino_of("postgresql", rows=ROWS)
    name = casino.store.url.rpartition("/")[2]
    casino.look(f"alter database {name} set default_transaction_isolation = 'repeatable read'")
    cycle = reading(casino.settings())
    drive(cycle)
    casino.deposit(ROWS)
    with psycopg.connect(casino.store.url) as rival:
        rival.execute("update crm.players set language = 'SV' where external_id = '00007'")
        one_pass = beside(cycle)
        wait(lambda: casino.look(WAITING), what="the page waits for the player")
    one_pass.join()
    assert one_pass.failure is None
    assert drive(cycle) == []
    casino.assert_whole()
