"""Whether a source still holds the data that was read from it: when a stream asks, when it waits, when it goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from structlog.testing import capture_logs

from connector import cycle as cycles
from connector.errors import Halted
from connector.landmark import MOST

if TYPE_CHECKING:
    from collections.abc import Callable

House = Any
LONG_AGO = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the source in every pass instead of every minute."""
    monkeypatch.setattr(cycles, "COUNT_SECONDS", 0.0)
    monkeypatch.setattr(cycles, "RETRY_SECONDS", 0.0)


@pytest.fixture
def settled(house: House) -> House:
    """Give a house whose forty bets and deposits are final and remembered."""
    house.bets(1, 40)
    house.deposits(1, 40)
    house.settle()
    return house


def keys(*ranges: tuple[int, int], prefix: str = "") -> list[str]:
    return [f"{prefix}{number}" for first, last in ranges for number in range(first, last + 1)]


# A question ---------------------------------------------------------------------------------------------------------


def test_another_server_is_asked_about(settled: House) -> None:
    """Each stream stops with the two names and the commands that answer; nothing is read."""
    settled.look("update crm.checkpoints set servers = '{postgresql:4711}'")
    settled.bets(41, 45)
    failed = settled.once()
    assert set(failed) == {"deposits", "casino_bets"}
    told = str(failed["deposits"])
    assert "this is another server" in told
    assert "postgresql:4711" in told
    assert "connector stream accept deposits" in told
    assert settled.state("casino_bets")[0] == "stopped"
    assert settled.stored("casino_bets") == keys((1, 40))


@pytest.mark.parametrize("rows", [0, 3])
def test_a_table_that_was_emptied_is_asked_about(settled: House, rows: int) -> None:
    """Ids restarted below what was final, or nothing is there: polling on would read nothing for ever."""
    settled.operator.execute("delete from casino_bets_rows")
    settled.bets(1, rows, user="8", minutes=90)
    failed = settled.once()
    assert set(failed) == {"casino_bets"}
    assert "though it was complete up to 40" in str(failed["casino_bets"])
    assert "connector stream new-generation casino_bets" in str(failed["casino_bets"])
    assert settled.stored("casino_bets") == keys((1, 40))


def test_an_older_backup_whose_ids_were_drawn_again_is_asked_about(settled: House) -> None:
    """The head is beyond what was final, but the newest final rows are others."""
    settled.operator.execute("delete from casino_bets_rows where id > 30")
    settled.bets(31, 50, user="8", minutes=90)
    failed = settled.once()
    assert "are not those that were read" in str(failed["casino_bets"])
    assert settled.stored("casino_bets") == keys((1, 40))


@pytest.mark.usefixtures("watchful")
def test_ids_that_restart_below_a_cursor_of_time_are_asked_about(settled: House) -> None:
    """The cursor goes on, so only the keys tell: they come again with other content, and what had them is gone."""
    settled.operator.execute("delete from deposits_rows")
    settled.deposits(1, 5, user="8", minutes=90)
    with settled.running() as cycle:
        settled.wait(lambda: (cycle.run_once(), cycle.failures)[1], what="the stream asks")
        assert isinstance(cycle.failures["deposits"], Halted)
        cycle.run_once()
        assert "deposits" in cycle.failures  # and does not forget its doubt
    assert settled.state("deposits")[0] == "stopped"
    assert settled.stored("deposits") == keys((1, 40), prefix="d")


def test_another_cursor_or_key_is_asked_about(house: House) -> None:
    """Rows would be counted again under other keys: the checkpoint remembers what the stream was read by."""
    house.deposits(1, 3)
    assert house.once() == {}
    house.source["streams"]["deposits"] = {"cursor": {"column": "transaction_date", "kind": "time"}}
    assert "was read by dt_finalized with key transaction_id, the configuration now says" in str(
        house.once()["deposits"]
    )
    house.source["streams"]["deposits"] = {"key": ["user_ext_id", "transaction_date"]}
    assert "now says dt_finalized with key user_ext_id, transaction_date" in str(house.once()["deposits"])
    house.source["streams"]["deposits"] = {}
    assert house.once() == {}


def test_a_stream_that_asked_goes_on_by_itself_when_the_data_is_back(settled: House) -> None:
    """A table that was emptied for a moment, or a wrong address that was put right, needs no answer."""
    settled.operator.execute("delete from casino_bets_rows")
    assert set(settled.once()) == {"casino_bets"}
    settled.bets(1, 45)
    assert settled.once() == {}
    assert settled.state("casino_bets") == ("running", None)
    assert settled.stored("casino_bets") == keys((1, 45))


# No question --------------------------------------------------------------------------------------------------------


def test_a_server_that_is_behind_is_waited_for(settled: House) -> None:
    """Its older rows are as they were. Status says so, nothing stops, and nothing is lost or doubled afterwards."""
    settled.operator.execute("delete from casino_bets_rows where id > 30")
    assert settled.once() == {}
    state, error = settled.state("casino_bets")
    assert state == "running"
    assert error.startswith("waits: the source ends at 30, and rows up to 40")
    settled.bets(31, 45)
    assert settled.once() == {}
    assert settled.state("casino_bets") == ("running", None)
    assert settled.stored("casino_bets") == keys((1, 45))
    assert settled.look("select total_wagered from crm.players") == [(4500,)]


def test_rows_that_are_purged_stop_nothing(settled: House) -> None:
    """Operators keep a view short: what was read is gone, and what comes is read."""
    settled.bets(41, 42)
    settled.deposits(41, 42)
    settled.operator.execute("delete from casino_bets_rows where id <= 40")
    settled.operator.execute("delete from deposits_rows where transaction_id not in ('d41', 'd42')")
    assert settled.once() == {}
    assert settled.stored("casino_bets") == keys((1, 42))
    assert settled.stored("deposits") == keys((1, 42), prefix="d")


def test_the_last_row_may_be_deleted(settled: House) -> None:
    """The source ends a row earlier, visibly; the next row ends that."""
    settled.operator.execute("delete from casino_bets_rows where id = 40")
    settled.operator.execute("delete from deposits_rows where transaction_id = 'd40'")
    assert settled.once() == {}
    assert settled.state("casino_bets")[1].startswith("waits: the source ends at 39")
    settled.bets(41, 41)
    settled.deposits(41, 41)
    assert settled.once() == {}
    assert settled.state("casino_bets") == settled.state("deposits") == ("running", None)
    assert settled.stored("casino_bets") == keys((1, 41))


def test_rows_may_change_what_they_are_not_known_by(settled: House) -> None:
    """Amounts and words of all rows, users of some."""
    settled.operator.execute("update casino_bets_rows set bet_amount = 2, game_name = 'Plums', type = 'ROLLBACK_BET'")
    settled.operator.execute("update casino_bets_rows set user_ext_id = '9' where id in (40, 39, 20)")
    settled.bets(41, 41)
    assert settled.once() == {}
    assert settled.stored("casino_bets") == keys((1, 41))


@pytest.mark.usefixtures("watchful")
def test_rows_that_are_stamped_anew_stop_nothing(settled: House) -> None:
    """All deposits come again, later and with another amount: their keys still name the same rows."""
    settled.operator.execute(
        "update deposits_rows set dt_finalized = dt_finalized + interval '1' hour, deposit_amount = '12'"
    )
    with settled.running() as cycle:
        shown = "select count(*) from crm.quarantine where reason = 'changed'"
        settled.wait(lambda: (cycle.run_once(), settled.look(shown) == [(40,)])[1], what="the rows, read again")
        for _ in range(3):
            cycle.run_once()
            assert cycle.failures == {}
    assert settled.money()[0][:2] == ("7", 40000)


def test_users_that_move_or_are_deleted_stop_nothing(house: House) -> None:
    """A user's row is found by its key wherever it stands; the newest one may go."""
    house.source["streams"] = {"user_profile": {}}
    for number in range(6):
        house.user(str(number), LONG_AGO + timedelta(minutes=number))
    house.settle()
    for number in range(1, 6):
        house.user(str(number), LONG_AGO + timedelta(hours=1, minutes=number))
    assert house.once() == {}
    house.operator.execute("delete from user_profile_rows where user_ext_id in ('5', '2', '1')")
    assert house.once() == {}
    assert house.state("user_profile")[0] == "running"
    house.operator.execute("delete from user_profile_rows")
    assert "is empty, though it was complete up to" in str(house.once()["user_profile"])


@pytest.mark.usefixtures("watchful")
def test_a_view_made_anew_is_bound_anew(settled: House) -> None:
    """A column more is a warning, and the column is there from then on."""
    with settled.running() as cycle:
        cycle.run_once()
        settled.operator.execute(
            "drop view casino_bets",
            "create view casino_bets as select casino_bets_rows.*, 'slots' as game_category from casino_bets_rows",
        )
        with capture_logs() as logs:
            for _ in range(3):
                cycle.run_once()
        assert [entry["event"] for entry in logs if entry.get("stream") == "casino_bets"].count("view.changed") == 1
        settled.bets(41, 41)
        settled.wait(lambda: (cycle.run_once(), len(settled.stored("casino_bets")) == 41)[1], what="the new bet")
        assert cycle.failures == {}
    (properties,) = settled.look("select properties ->> 'game_category' from crm.events where key = '41'")[0]
    assert properties == "slots"


# Failover -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("watchful")
def test_ids_that_a_failover_gave_away_again_are_read_again(house: House) -> None:
    """Above what is final rows were read that the new primary has never had; others stand under their ids now."""
    house.source["lateness"] = "10m"
    house.source["streams"] = {"casino_bets": {"start": "beginning"}}
    house.bets(1, 40)
    with house.running() as cycle:
        house.wait(lambda: (cycle.run_once(), len(house.stored("casino_bets")) == 40)[1], what="the bets")
        house.operator.execute("delete from casino_bets_rows where id > 35")
        house.bets(36, 38, user="8", minutes=90)
        house.bets(41, 41, user="8", minutes=90)
        shown = "select row_key from crm.quarantine where reason = 'changed' order by 1"
        house.wait(lambda: (cycle.run_once(), len(house.look(shown)) == 3)[1], what="the other rows")
        assert cycle.failures == {}
    assert house.look(shown) == [("36",), ("37",), ("38",)]
    assert house.stored("casino_bets") == keys((1, 41))


def test_a_standby_whose_replay_is_paused_is_waited_for(
    house_on: Callable[[str], House], request: pytest.FixtureRequest
) -> None:
    """It holds nothing of what was final, since it stands before that; nobody is asked, and it catches up."""
    house = house_on("standby")
    pair = request.getfixturevalue("standby")
    url, house.source["url"] = house.source["url"], pair.primary.reading(house.operator.owner)
    with psycopg.connect(pair.standby.url(), autocommit=True) as admin:
        admin.execute("select pg_wal_replay_pause()")
        settle, house.operator.settle = house.operator.settle, lambda: None
        try:
            house.bets(1, 40)
            house.deposits(1, 40)
            house.settle()
            house.source["url"] = url
            assert house.once() == {}
            state, error = house.state("casino_bets")
            assert state == "running"
            assert error.startswith("waits: the source shows nothing, and rows up to 40")
        finally:
            admin.execute("select pg_wal_replay_resume()")
    house.operator.settle = settle
    house.bets(41, 42)
    assert house.once() == {}
    assert house.state("casino_bets") == ("running", None)
    assert house.stored("casino_bets") == keys((1, 42))


@pytest.mark.usefixtures("watchful")
def test_a_cut_connection_has_the_source_looked_at(house_on: Callable[[str], House], monkeypatch: Any) -> None:
    """Whoever answers after it may be another server's data under the same name."""
    house = house_on("postgresql")
    house.bets(1, 40)
    house.deposits(1, 40)
    house.settle()
    with house.running() as cycle:
        monkeypatch.setattr(cycles, "COUNT_SECONDS", 600.0)
        cycle.run_once()
        house.operator.execute("delete from casino_bets_rows")
        cycle.run_once()
        assert cycle.failures == {}
        assert cycle.desk is not None
        cycle.desk.reader.close()
        cycle.run_once()
        assert set(cycle.failures) == {"casino_bets"}


# What is remembered -------------------------------------------------------------------------------------------------


def test_what_is_remembered_is_little_and_names_nobody(settled: House) -> None:
    """A few rows of all ages, the first one too; of a user no more than a hash."""
    for last in range(50, 100, 10):
        settled.bets(last - 9, last, user="nobody@example.com")
        settled.settle()
    ((samples,),) = settled.look("select samples from crm.checkpoints where stream = 'casino_bets'")
    marks = [sample["mark"] for sample in samples]
    assert marks[:3] == [90, 89, 88]
    assert marks[-1] == 1
    assert 9 < len(marks) <= MOST
    assert "nobody" not in str(samples)
