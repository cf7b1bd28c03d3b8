"""`connector quarantine ...`: rows that were refused are counted, shown, tried again by key, and deleted."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from connector import clock, cycle as cycles

if TYPE_CHECKING:
    from collections.abc import Callable

House = Any
Command = Any
LONG_AGO = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a runner of commands through the entry point; returns exit code and what was printed."""
    from connector import cli

    def run(house: House, *words: str) -> tuple[int, str]:
        assert house.settings
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["connector", "quarantine", *words, "--config", str(house.path)])
        monkeypatch.setattr("connector.logs.configure", lambda **_: None)
        monkeypatch.setenv("COLUMNS", "200")
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out + err

    return run


@pytest.fixture
def spoilt(house: House) -> House:
    """Give a house of which three deposits have no readable amount and one bet no type."""
    house.deposits(1, 5)
    house.deposits(11, 13, amount="ten", user="nobody@example.com")
    house.bets(1, 5)
    house.operator.execute("update casino_bets_rows set type = null where id = 3")
    assert house.once() == {}
    return house


@pytest.fixture
def one(house_on: Callable[[str], House]) -> House:
    """Give an empty house on PostgreSQL."""
    house: House = house_on("postgresql")
    return house


def listed(command: Command, house: House, *words: str) -> list[dict[str, Any]]:
    code, told = command(house, "list", "--json", *words)
    assert code == 0
    found: list[dict[str, Any]] = json.loads(told)
    return found


# list, show ---------------------------------------------------------------------------------------------------------


def test_groups_are_counted_without_what_the_rows_hold(spoilt: House, command: Command) -> None:
    """By stream, reason and field; the table for people says the same."""
    groups = {(row["stream"], row["field"]): row["entries"] for row in listed(command, spoilt)}
    assert groups == {("deposits", "deposit_amount"): 3, ("casino_bets", "type"): 1}
    code, told = command(spoilt, "list")
    assert (code, "deposit_amount" in told) == (0, True)
    code, rows = command(spoilt, "list", "--rows")
    assert "d11" in rows
    assert "nobody" not in told + rows
    assert '"ten"' not in told + rows


def test_filters_narrow_what_is_meant(spoilt: House, command: Command) -> None:
    """Each alone and together; what has no entry is an empty list, what does not exist a message."""
    count = lambda *words: sum(row["entries"] for row in listed(command, spoilt, *words))  # noqa: E731
    assert count("--stream", "deposits") == 3
    assert count("--field", "type") == 1
    assert count("--stream", "deposits", "--field", "type") == 0
    assert count("--reason", "missing") == 1
    assert count("--source", "casino", "--stream", "casino.deposits") == 3
    assert count("--since", "1h") == 4
    assert count("--since", "2100-01-01") == 0
    assert count("--kept") == 0
    ids = [row["id"] for row in listed(command, spoilt, "--rows", "--stream", "deposits")]
    assert len(listed(command, spoilt, str(ids[0]))) == 1
    code, told = command(spoilt, "list", "--stream", "depots")
    assert (code, "configured are: casino_bets, deposits" in told) == (2, True)
    code, told = command(spoilt, "list", "--source", "main")
    assert (code, "no source is named 'main'" in told) == (2, True)
    assert command(spoilt, "list", "--since", "yesterday")[0] == 2
    assert "nothing is quarantined" in command(spoilt, "list", "--kept")[1]


def test_one_entry_is_shown_whole(spoilt: House, command: Command) -> None:
    """The row as the source wrote it, contacts masked; in full on demand."""
    entry = listed(command, spoilt, "--rows", "--stream", "deposits")[0]
    code, told = command(spoilt, "show", str(entry["id"]), "--json")
    assert code == 0
    raw = json.loads(told)["raw"]
    assert (raw["deposit_amount"], raw["user_ext_id"]) == ("ten", "n***@e***.com")
    code, told = command(spoilt, "show", str(entry["id"]), "--json", "--personal")
    assert json.loads(told)["raw"] == {**raw, "user_ext_id": "nobody@example.com"}
    code, told = command(spoilt, "show", str(entry["id"]))
    assert (code, '"deposit_amount": "ten"' in told) == (0, True)
    code, told = command(spoilt, "show", "999999")
    assert (code, "no entry 999999" in told) == (2, True)


# retry --------------------------------------------------------------------------------------------------------------


def test_rows_that_were_mended_are_stored_and_leave(spoilt: House, command: Command) -> None:
    """Read by key, counted once; those still bad stay with their reason, and those gone are named."""
    spoilt.operator.execute(
        "update deposits_rows set deposit_amount = '7.50' where transaction_id = 'd11'",
        "delete from deposits_rows where transaction_id = 'd13'",
        "update casino_bets_rows set type = 'BET' where id = 3",
    )
    code, told = command(spoilt, "retry")
    assert code == 1
    assert "deposits: 1 of 3 made it" in told
    assert "deposits: 1 still refused: not a finite number of at most 20 digits: deposit_amount" in told
    assert "deposits: 1 not at the source any more, or without a cursor" in told
    assert "casino_bets: 1 of 1 made it" in told
    assert spoilt.stored("casino_bets") == ["1", "2", "3", "4", "5"]
    assert spoilt.stored("deposits") == ["d1", "d2", "d3", "d4", "d5", "d11"]
    assert spoilt.look("select sum(total_deposited), sum(bet_count) from crm.players") == [(5750, 5)]
    assert spoilt.look("select transaction_id from crm.quarantine order by 1") == [("d12",), ("d13",)]
    spoilt.operator.execute("update deposits_rows set deposit_amount = '1' where transaction_id = 'd12'")
    assert "deposits: 1 of 2 made it" in command(spoilt, "retry", "--stream", "deposits")[1]
    assert spoilt.once() == {}
    assert spoilt.look("select sum(total_deposited), sum(bet_count) from crm.players") == [(5850, 5)]


def test_a_row_refused_for_another_reason_is_told_with_that(spoilt: House, command: Command) -> None:
    """The old entry makes room for the new one."""
    spoilt.operator.execute(
        "update deposits_rows set deposit_amount = '1', transaction_date = null where transaction_id = 'd11'"
    )
    ids = {row["transaction_id"]: row["id"] for row in listed(command, spoilt, "--rows", "--stream", "deposits")}
    code, told = command(spoilt, "retry", str(ids["d11"]))
    assert (code, "1 still refused: missing: transaction_date" in told) == (1, True)
    assert spoilt.look("select field, reason from crm.quarantine where transaction_id = 'd11'") == [
        ("transaction_date", "missing")
    ]


def test_thousands_are_tried_in_pages(one: House, command: Command) -> None:
    """Each page is a transaction of its own; each row is stored once."""
    one.operator.execute(
        "insert into casino_bets_rows select g, 'kaasino', '7', null, now() - interval '9 days', 1, null, 'EUR', 'g', 'g'"
        " from generate_series(1, 1203) g"
    )
    one.source["page_rows"] = 2000
    one.once()
    one.operator.execute("update casino_bets_rows set type = 'BET'")
    assert "1,203 of 1,203 made it" in command(one, "retry", "--stream", "casino_bets")[1]
    assert one.look("select bet_count from crm.players") == [(1203,)]
    assert one.look("select count(*) from crm.quarantine") == [(0,)]


def test_an_entry_without_the_row_s_key_is_told_so(one: House, command: Command) -> None:
    """Reason `changed` keeps two versions and no row; a view whose key was renamed has other columns now."""
    one.deposits(1, 3)
    assert one.once() == {}
    one.operator.execute("update deposits_rows set deposit_amount = '99'")
    one.look("update crm.checkpoints set seen_cursor = null, sealed_cursor = null where stream = 'deposits'")
    assert one.once() == {}
    code, told = command(one, "retry")
    assert (code, "deposits: 3 whose key stands not in the entry" in told) == (1, True)
    assert one.look("select count(*) from crm.quarantine where reason = 'changed'") == [(3,)]


def test_a_field_that_was_lost_can_be_tried_too(one: House, command: Command) -> None:
    """With --kept; the event went on without it and stays as it is, a user's profile is brought up to date."""
    one.source["streams"] = {"user_profile": {}}
    one.user("7", LONG_AGO)
    one.operator.execute(
        "alter table user_profile_rows add user_phone text default 'call me', add user_country text default 'SE'",
        "drop view user_profile",
        "create view user_profile as select * from user_profile_rows",
    )
    assert one.once() == {}
    assert [row["field"] for row in listed(command, one, "--kept")] == ["user_phone"]
    one.operator.execute("update user_profile_rows set user_phone = '070 123 45 67'")
    code, told = command(one, "retry", "--kept")
    assert (code, "user_profile: 1 of 1 made it" in told) == (0, True)
    assert one.look("select phone from crm.player_contacts") == [("+46701234567",)]


def test_a_row_still_ahead_of_the_clock_is_not_read_early(
    one: House, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by retry either. When it is stored its entry leaves by itself; a user's row applies at once, whatever its date."""
    monkeypatch.setattr(cycles, "COUNT_SECONDS", 0.0)
    one.source["streams"] = {"deposits": {}, "user_profile": {}}
    one.deposits(1, 2)
    one.user("7", clock.now() + timedelta(days=3))
    ahead = clock.now() + timedelta(days=3)
    one.operator.execute(f"update deposits_rows set dt_finalized = '{ahead}' where transaction_id = 'd2'")
    assert one.once() == {}
    assert one.look("select stream from crm.quarantine order by 1") == [("deposits",)]
    assert one.look("select count(*) from crm.players where not is_stub") == [(1,)]
    code, told = command(one, "retry", "--stream", "deposits")
    assert (code, "1 still refused: dated ahead of the source's clock: dt_finalized" in told) == (1, True)
    assert one.stored("deposits") == ["d1"]
    one.operator.execute(f"update deposits_rows set dt_finalized = '{clock.now()}' where transaction_id = 'd2'")
    assert one.once() == {}
    assert one.stored("deposits") == ["d1", "d2"]
    assert one.look("select stream from crm.quarantine") == []


def test_a_stream_that_asks_is_not_tried(one: House, command: Command) -> None:
    """Which rows the keys would find is just what is not known."""
    one.deposits(1, 2)
    one.deposits(3, 3, amount="ten")
    assert one.once() == {}
    one.look("update crm.checkpoints set servers = '{postgresql:4711}' where stream = 'deposits'")
    code, told = command(one, "retry")
    assert (code, "this is another server" in told) == (1, True)


# drop ---------------------------------------------------------------------------------------------------------------


def test_entries_are_dropped_after_a_question(spoilt: House, command: Command) -> None:
    """Never without a selection, and with nobody to ask only with --yes."""
    assert command(spoilt, "drop")[0] == 2
    code, told = command(spoilt, "drop", "--stream", "deposits")
    assert (code, "add --yes" in told) == (2, True)
    assert spoilt.look("select count(*) from crm.quarantine") == [(4,)]
    assert "3 deleted" in command(spoilt, "drop", "--stream", "deposits", "--yes")[1]
    assert spoilt.look("select stream from crm.quarantine") == [("casino_bets",)]
    assert "nothing was deleted" in command(spoilt, "drop", "--kept", "--yes")[1]
