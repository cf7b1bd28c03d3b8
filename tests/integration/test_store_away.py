"""The daemon starts while its store is away: it is ready, waits, and goes on by itself."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from connector import app as application, config
from connector.errors import Transient
from connector.store import embedded
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from connector.cycle import Cycle

USERS = """
    create view user_profile as select timestamptz '2026-01-01' as dt_update, 'kaasino' as ext_brand_id, user_ext_id,
        'ACTIVE' as core_account_status, timestamptz '2025-01-01' as core_registration_date, 'EN' as core_user_language,
        'EUR' as core_wallet_currency from generate_series(1, 3) as user_ext_id
"""


def test_a_store_that_comes_later_is_prepared_and_filled(directory: Path, operator_of: Callable[[str], Any]) -> None:
    """Loops fail and are tried again; the first connection brings the schema."""
    operator = operator_of("postgresql")
    operator.execute(USERS)
    server = embedded.start(directory / "later", settings={"fsync": "off"})
    url, port = server.create_database("crm"), server.port
    server.stop()
    source = {"name": "casino", "url": operator.url, "streams": {"user_profile": {}}}
    settings = config.parse({"store": {"url": url}, "sources": [source], "web": None}, streams=list(STREAMS))
    with pytest.raises(Transient, match="the store is not available"):
        application.build(settings)
    app = application.build(settings, waits=True)
    server = embedded.start(directory / "later", port=port, settings={"fsync": "off"})
    try:
        app.cycles[0].run_once()
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from crm.players").fetchone() == (3,)
    finally:
        app.close()
        server.stop()


BETS = """
    create table casino_bets as select n as id, 'kaasino' as ext_brand_id, 1 + n % 7 as user_ext_id, 'bet' as type,
        n as bet_id, timestamptz '2026-01-01' + n * interval '1 second' as bet_date, 1.00 as bet_amount,
        null::numeric as win_amount, 'EUR' as currency, 'g' as game_id, 'Game' as game_name from generate_series(1, 4000) n
"""
STORED = "select count(*), count(distinct key), coalesce(sum(amount), 0) from crm.event_rows"
ADDED = "select coalesce(sum(wagered), 0) from crm.player_money"
BEHIND = "select coalesce(max(seen_mark), 0) from crm.checkpoints where stream = 'casino_bets'"


def test_a_store_that_crashes_between_pages_keeps_rows_and_position_together(
    directory: Path, operator_of: Callable[[str], Any], wait: Callable[..., Any]
) -> None:
    """Pages that another follows do not wait for the disk: what a crash takes of them is read again, once."""
    operator = operator_of("postgresql")
    operator.execute(BETS)
    server = embedded.start(directory / "crashing", settings={"wal_writer_delay": "10s"})
    streams = {"casino_bets": {"start": "beginning"}}
    source = {"name": "casino", "url": operator.url, "streams": streams, "page_rows": 50}
    given = {"store": {"url": server.create_database("crm")}, "sources": [source], "web": None}
    settings = config.parse(given, streams=list(STREAMS))
    app = application.build(settings, waits=True)
    try:
        for _ in range(3):
            wait(lambda: passed(app.cycles[0]) > 0, what="a pass that reads")
            server = crashed(server)
            with psycopg.connect(settings.store.url.get_secret_value()) as connection:
                rows, keys, amount = connection.execute(STORED).fetchone() or ()
                assert (keys, amount) == (rows, rows)
                assert connection.execute(ADDED).fetchone() == (rows,)
                assert connection.execute(BEHIND).fetchone() == (rows,)
        with psycopg.connect(settings.store.url.get_secret_value(), autocommit=True) as connection:

            def whole() -> bool:
                passed(app.cycles[0])
                return connection.execute(STORED).fetchone() == (4000, 4000, 4000)

            wait(whole, what="everything is stored")
            assert connection.execute(ADDED).fetchone() == (4000,)
    finally:
        app.close()
        server.stop()


def passed(cycle: Cycle) -> int:
    """Do a pass; returns its rows, also -1 where the store is not back yet."""
    try:
        return cycle.run_once().rows
    except Transient:
        return -1


def crashed(server: embedded.Server) -> embedded.Server:
    """Stop a server without its last words to the disk, and start it again."""
    assert server.process is not None
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait()
    return embedded.start(server.directory, port=server.port)
