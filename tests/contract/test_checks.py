"""What `connector check` says of a real view: cursors in local time or rounded on the way, keys that a collation folds."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest

from connector import checks, clock, config
from connector.sources import DIALECTS
from connector.streams import STREAMS

if TYPE_CHECKING:
    from connector.checks import Finding

OperatorDatabase = Any
#: How a source may write its cursor: DDL per family, and how an instant of UTC is written there.
STAMPS: Final = {
    "fine": ({"postgresql": "timestamptz", "mysql": "datetime(6)"}, "%Y-%m-%d %H:%M:%S.%f"),
    "naive": ({"postgresql": "timestamp", "mysql": "datetime"}, "%Y-%m-%d %H:%M:%S"),
    "epoch": ({"postgresql": "bigint", "mysql": "bigint"}, "%s"),
}
ACTUAL: Final = "fine"


def deposits(
    operator: OperatorDatabase, rows: list[tuple[str, datetime]], *, stamp: str = ACTUAL, key: str = "varchar(20)"
) -> None:
    """Create a view of deposits: (transaction id, final at)."""
    ddl, style = STAMPS[stamp]
    operator.execute(
        f"create table deposits_rows (dt_finalized {ddl[operator.family]}, ext_brand_id varchar(20), user_ext_id varchar(40), "
        f"transaction_id {key}, transaction_date date, deposit_amount numeric(20,4), currency varchar(3))",
        "create index deposits_by_cursor on deposits_rows (dt_finalized, transaction_id)",
        "create view deposits as select * from deposits_rows",
    )
    written = [(name, str(int(at.timestamp())) if stamp == "epoch" else at.strftime(style)) for name, at in rows]
    operator.fill("deposits_rows", [(at, "kaasino", "7", name, "2026-01-01", 5, "EUR") for name, at in written])


def check(operator: OperatorDatabase) -> list[Finding]:
    """Return what is wrong with the deposits of this database."""
    document = {
        "store": {"url": "postgresql://crm@127.0.0.1/crm"},
        "tenant": "kaasino",
        "base_currency": "EUR",
        "sources": [{"name": "casino", "url": operator.url, "streams": {"deposits": {}}}],
    }
    source = config.parse(document, streams=list(STREAMS)).sources[0]
    return [
        one
        for one in checks._source(source, checks._Money("EUR"))
        if one.level != "ok" and one.subject == "casino.deposits"
    ]


@pytest.mark.parametrize(
    ("operator", "stamp"),
    [
        *((dialect, stamp) for dialect in ("postgresql", "mysql") for stamp in STAMPS),
        ("standby", "naive"),
        ("odbc", "naive"),
    ],
    indirect=["operator"],
)
def test_a_cursor_in_local_time_is_noticed(operator: OperatorDatabase, stamp: str) -> None:
    """The newest row of a zone east of UTC runs hours ahead of the server's clock; the remedy is said."""
    local = clock.now() + timedelta(hours=2)
    deposits(operator, [("d1", local - timedelta(days=3)), ("d2", local)], stamp=stamp)
    (found,) = check(operator)
    assert found.level == "error"
    assert "newest dt_finalized runs 2.0 h ahead of the server's clock" in found.text
    assert "expose it in UTC" in found.remedy


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("stamp", list(STAMPS))
def test_single_rows_of_the_far_future_are_no_zone(operator: OperatorDatabase, stamp: str) -> None:
    """More than a day ahead is a mistake of these rows; the newest of the others is on time."""
    now, far = clock.now(), timedelta(days=20_000)
    deposits(operator, [("d1", now - timedelta(seconds=2)), ("x1", now + far), ("x2", now + far)], stamp=stamp)
    (found,) = check(operator)
    assert (found.level, found.text) == ("warn", "2 row(s) are dated more than a day ahead")
    assert "crm.quarantine" in found.remedy


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
def test_local_time_is_noticed_behind_the_far_future(operator: OperatorDatabase) -> None:
    """One finding does not hide the other."""
    now = clock.now()
    deposits(operator, [("d1", now + timedelta(hours=5.5)), ("x1", now + timedelta(days=20_000))], stamp="naive")
    assert [(one.level, one.text.partition(" ")[0]) for one in check(operator)] == [("warn", "1"), ("error", "the")]


@pytest.mark.parametrize("operator", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("ahead", "said"), [(-3600.0, []), (30.0, []), (300.0, ["warn"])])
def test_a_clock_that_is_a_little_off_is_no_zone(operator: OperatorDatabase, ahead: float, said: list[str]) -> None:
    """Within `tolerance` nothing is said; beyond it the rows wait, and a clock somewhere is wrong."""
    deposits(operator, [("d1", clock.now() + timedelta(seconds=ahead))])
    assert [one.level for one in check(operator)] == said


# Round trips and keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["postgresql", "mysql", "odbc"], indirect=True)
def test_a_cursor_that_is_rounded_on_the_way_fails_loudly(
    operator: OperatorDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that cuts microseconds off would read the same row for ever; one row without any hides nothing."""
    scheme = operator.url.partition(":")[0]

    class Rounding(type(DIALECTS[scheme])):  # type: ignore[misc]
        """Stands for a driver that knows milliseconds only."""

        def fetch(self, *arguments: Any, **options: Any) -> pl.DataFrame:
            whole: pl.DataFrame = super().fetch(*arguments, **options)
            return whole.with_columns(pl.col("dt_finalized").str.slice(0, 23))

    monkeypatch.setitem(DIALECTS, scheme, Rounding())
    at = datetime(2026, 3, 1, 10, tzinfo=clock.now().tzinfo)
    deposits(operator, [("d1", at), ("d2", at.replace(microsecond=678_901)), ("d3", at + timedelta(seconds=1))])
    found = [one for one in check(operator) if "find its own row" in one.text]
    assert [(one.level, one.remedy.partition(":")[0]) for one in found] == [
        ("error", "the cursor's type is rounded on the way")
    ]


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
def test_a_key_that_the_server_rounds_fails_loudly(operator: OperatorDatabase) -> None:
    """MariaDB shows six digits of a FLOAT: no row is found by them."""
    deposits(operator, [("16777217", clock.now() - timedelta(days=1))], key="float")
    assert [one.level for one in check(operator) if "find its own row" in one.text] == ["error"]


@pytest.mark.parametrize("operator", ["mysql"], indirect=True)
@pytest.mark.parametrize(
    ("collation", "said"),
    [("utf8mb4_general_ci", ["error"]), ("utf8mb4_bin", []), ("latin1_general_cs", [])],
)
def test_keys_that_a_collation_folds_are_noticed(operator: OperatorDatabase, collation: str, said: list[str]) -> None:
    """Two ids that differ in case alone are one to such a column: tied rows would be passed by."""
    at = clock.now() - timedelta(days=1)
    deposits(operator, [("aB3x", at), ("Ab3x", at), ("other", at)], key=f"varchar(20) collate {collation}")
    assert [one.level for one in check(operator) if "the same to the database" in one.text] == said
