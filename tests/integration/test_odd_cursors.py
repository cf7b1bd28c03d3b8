"""Odd cursors and repeated readings: what a stream makes of them while it runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from connector import app as application, clock

Casino = Any


@pytest.fixture
def casino(casino_of_texts: Casino) -> Casino:
    return casino_of_texts


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("odd", [0, 7, -1])
def test_an_epoch_of_few_digits_stops_no_stream(casino: Casino, odd: int) -> None:
    """The unit of an epoch cursor is the stream's, not the last row's."""
    casino.create("deposits", dt_finalized="bigint")
    now = int(clock.now().timestamp() * 1000)
    casino.deposits(
        {"transaction_id": "zero", "dt_finalized": odd},
        *({"transaction_id": f"d{n}", "dt_finalized": now - 9000 + n} for n in range(3)),
    )
    assert casino.run(source={"page_rows": 1}, deposits={}) == {}
    assert casino.keys() == {"zero", "d0", "d1", "d2"}


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta(days=30_000)])
def test_a_user_dated_ahead_is_excluded_all_the_same(casino: Casino, ahead: timedelta) -> None:
    """Where brand, id and status can be read the status applies, also of a row that waits for its time."""
    casino.create("user_profile")
    casino.users({"user_ext_id": "1"})
    assert casino.run(user_profile={}) == {}
    casino.operator.execute("delete from user_profile_rows")
    casino.users(
        {
            "user_ext_id": "1",
            "dt_update": (clock.now() + ahead).strftime("%Y-%m-%d %H:%M:%S"),
            "core_account_status": "SELF_EXCLUDED",
        }
    )
    assert casino.run(user_profile={}) == {}
    assert [row["status"] for row in casino.rows("select status from crm.players")] == ["self_excluded"]


@pytest.mark.parametrize("operator", ["postgresql"], indirect=True)
def test_a_bad_row_read_twice_counts_once_towards_drift(casino: Casino, wait: Any) -> None:
    """60 bad rows of 3,000 pause nothing, however often a sweep or a restart reads them again."""
    casino.create("deposits")
    casino.operator.execute(
        "insert into deposits_rows select now() - interval '20 s' + n * interval '1 ms', 'kaasino', '7', n, now(), "
        "case when n % 50 = 0 then 'none' else '1' end, 'EUR', null, null from generate_series(1, 3000) s(n)"
    )
    app = application.build(casino.settings(deposits={}, source={"lateness": "22s", "tolerance": "1s"}))
    try:

        def swept() -> bool:
            app.cycles[0].run_once()
            assert app.cycles[0].failures == {}
            return bool(casino.rows("select 1 from crm.checkpoints where sealed_cursor = seen_cursor"))

        wait(swept, what="the sweep has read it all again")
        assert len(casino.refused()) == 60
    finally:
        app.close()


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_a_date_cursor_of_tomorrow_is_not_more_than_a_day_ahead(casino: Casino) -> None:
    """It waits like any row that is not due."""
    casino.create("deposits", dt_finalized="date")
    casino.deposits({"transaction_id": "d1", "dt_finalized": (clock.now() + timedelta(days=1)).date()})
    assert casino.run(deposits={}) == {}
    assert casino.refused() == {}
