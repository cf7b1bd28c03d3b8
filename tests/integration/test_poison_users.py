"""What is wrong with users never costs their status; what is wrong with a view pauses a stream of transactions."""

from __future__ import annotations

from typing import Any, Final

import pytest

from connector.errors import Paused

Casino = Any
LONG_AGO: Final = "2026-01-05 12:00:00"


@pytest.fixture
def casino(casino_of_texts: Casino) -> Casino:
    """Give an operator without views on every dialect, and an empty store."""
    return casino_of_texts


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_what_is_wrong_with_a_user_never_costs_the_status(casino: Casino) -> None:
    """Where brand, id and status can be read the status applies, and every value that could not be lies in the quarantine."""
    casino.create("user_profile")
    bad = {
        "core_registration_date": "0000-00-00",
        "core_user_language": "",
        "core_wallet_currency": "x" * 40,
        "user_birthdate": "infinity",
        "user_email": "@" * 40_000,
        "user_phone": "none",
        "core_affiliate_id": "a" * 1600,
        "tags": '["' + "t" * 40_000 + '"]',
    }
    casino.users(*({"user_ext_id": number, "core_account_status": "ACTIVE"} for number in "1234"))
    assert casino.run(user_profile={}) == {}
    casino.operator.execute("delete from user_profile_rows")
    casino.users(
        {**bad, "user_ext_id": "1", "dt_update": "2026-01-06", "core_account_status": "SELF_EXCLUDED"},
        {**bad, "user_ext_id": "2", "dt_update": None, "core_account_status": "BANNED"},
        {**bad, "user_ext_id": "3", "dt_update": "2026-01-06", "core_account_status": "no such status"},
        {"user_ext_id": "4", "ext_brand_id": None, "core_account_status": "BANNED"},
        {"user_ext_id": "4", "dt_update": "2026-01-06", "ext_brand_id": "", "core_account_status": "BANNED"},
        {"user_ext_id": "4", "dt_update": "2026-01-06", "core_account_status": None},
    )
    assert casino.run(user_profile={}) == {}
    statuses = {
        row["external_id"]: (row["status"], row["marketable"]) for row in casino.rows("select * from crm.players")
    }
    assert statuses == {
        "1": ("self_excluded", False),
        "2": ("banned", False),
        "3": ("banned", False),
        "4": ("active", True),
    }
    assert {field for key, _, field in casino.lost() if key == "kaasino|1"} == set(bad)
    assert casino.refused()["kaasino|4"] == ("missing", "core_account_status")


@pytest.mark.parametrize("operator", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("bad", "good", "paused"), [(100, 900, False), (101, 9_900, True), (101, 10_100, False)])
def test_drift_pauses_a_stream_and_poison_does_not(casino: Casino, bad: int, good: int, paused: bool) -> None:
    """More than 1 % and more than 100 of the last 10,000 rows: the view has changed. What was read is kept."""
    casino.create("deposits")
    total = bad + good
    casino.operator.execute(
        f"insert into deposits_rows select timestamptz '{LONG_AGO}' + n * interval '1 ms', 'kaasino', '7', n, "
        f"'{LONG_AGO}', case when n * {bad} / {total} > (n - 1) * {bad} / {total} then 'none' else '1' end, 'EUR', null, null "
        f"from generate_series(1, {total}) s(n)"
    )
    stopped = casino.run(deposits={}, source={"page_rows": 5000})
    assert [type(error) for error in stopped.values()] == ([Paused] if paused else [])
    assert len(casino.keys()) == good
    assert len(casino.refused()) == bad


@pytest.mark.parametrize("operator", ["postgresql"], indirect=True)
def test_users_never_pause(casino: Casino) -> None:
    """A view of users in which nobody can be told apart is still read for those who can."""
    casino.create("user_profile")
    columns = "dt_update, ext_brand_id, user_ext_id, core_account_status"
    casino.operator.execute(
        f"insert into user_profile_rows ({columns}) select timestamptz '{LONG_AGO}' + n * interval '1 ms', 'kaasino', "
        "n, case n % 100 when 0 then 'ACTIVE' end from generate_series(1, 3000) s(n)"
    )
    assert casino.run(user_profile={}, source={"page_rows": 1000}) == {}
    assert len(casino.rows("select * from crm.players")) == 30
    assert len(casino.refused()) == 2970
