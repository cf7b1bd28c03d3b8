"""An operator's own totals win over ours, whatever comes before or after them, and the difference is kept."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from hypothesis import HealthCheck, example, given, settings, strategies as st

from connector import app as application
from connector.money import Rates
from connector.normalised import RATES, REPORTED, Normalised
from connector.store import pending, reported
from connector.store.commit import Batch

if TYPE_CHECKING:
    import pytest

Writer = Any
Look = Any
House = Any
DAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
TABLE: Final = Rates("EUR", {"GBP": Decimal("1.17")})
ETH: Final = Decimal(2500)
TOTALS: Final = {
    **{name: f"total_{name}" for name in ("deposited", "withdrawn", "wagered", "won")},
    **{name: name for name in ("deposit_count", "withdrawal_count", "bet_count")},
}
_RUNS: Final = itertools.count(1)


def at(hour: float) -> datetime:
    """Return an instant of the day."""
    return DAY + timedelta(hours=hour)


def tell(writer: Writer, *rows: dict[str, Any]) -> None:
    """Commit a page of the stream player_totals."""
    usual = {**dict.fromkeys(REPORTED), "brand_id": "kaasino", "external_id": "7", "as_of": at(12)}
    frame = pl.DataFrame([{**usual, **row} for row in rows], schema=REPORTED)
    stream = replace(writer.checkpoint, stream="player_totals", key_columns=("brand", "player"))
    writer.commit(Batch(stream, Normalised(reported=frame), rows=len(rows)))


def bring(writer: Writer, currency: str, rate: Decimal) -> None:
    """Commit a rate that holds all day."""
    frame = pl.DataFrame([(None, currency, DAY, rate)], schema=RATES, orient="row")
    writer.commit(Batch(replace(writer.checkpoint, stream="fx_rates"), Normalised(rates=frame), rows=1))


def drain(writer: Writer) -> None:
    """Settle everything that can be settled."""
    while pending.settle_due(writer.connection, writer.checkpoint.tenant, writer.rates, writer.lease):
        pass


def deposit(key: str, amount: str, hour: float, **changes: Any) -> dict[str, Any]:
    """Return a deposit of player 7."""
    return {"key": key, "external_id": "7", "amount": Decimal(amount), "occurred_at": at(hour), **changes}


def totals(look: Look) -> dict[str, int]:
    """Return what the only player's totals are, zeros left out."""
    (player,) = look("select * from crm.players")
    return {name: player[column] for name, column in TOTALS.items() if player[column]}


# Any order ----------------------------------------------------------------------------------------------------------

_KINDS: Final = (
    ("deposit_confirmed", "deposited", 1, None),
    ("withdrawal_confirmed", "withdrawn", 1, None),
    ("bet_placed", "wagered", 1, None),
    ("bet_settled", "won", 1, Decimal("2.5")),
    ("custom_deposit_reversed", "deposited", -1, None),
    ("login", "session", 1, None),
    ("bet_settled", "won", 1, None),
)
_CURRENCIES: Final = ("EUR", "GBP", "ETH", "FUN", None)
_COUNTS: Final = {"deposited": "deposit_count", "withdrawn": "withdrawal_count", "wagered": "bet_count"}


def _event(run: int, key: int) -> dict[str, Any]:
    """Return the event that this key always is."""
    name, effect, sign, stake = _KINDS[key % len(_KINDS)]
    amount = None if effect == "session" else Decimal(key * 13 % 101)
    who = {"key": f"{run}.{key}", "external_id": f"{run}.{key % 2}", "occurred_at": at(key * 5 % 24)}
    currency = _CURRENCIES[key * 3 % len(_CURRENCIES)]
    return {**who, "name": name, "effect": effect, "sign": sign, "stake": stake, "amount": amount, "currency": currency}


def _adds(event: dict[str, Any], known: dict[str, Decimal], own: str | None) -> dict[str, int]:
    """Return what an event adds to its player: plain arithmetic over the row."""
    currency, sign = event["currency"] or own, event["sign"]
    if event["amount"] is None or currency in {None, "FUN"}:
        return {}
    rate, stake = known.get(currency), event["stake"] or Decimal(0)
    added = dict.fromkeys(TOTALS, 0)
    if rate is not None:
        added[event["effect"]] += sign * int(event["amount"] * rate * 100)
        added["wagered"] += sign * int(stake * rate * 100)
    if count := _COUNTS.get(event["effect"]) or ("bet_count" if stake else None):
        added[count] += sign
    return added


_TOLD: Final = st.fixed_dictionaries(
    {"user": st.integers(0, 1), "hour": st.integers(0, 23)},
    optional={
        **{name: st.integers(0, 10**6).map(lambda n: Decimal(n) / 100) for name in ("deposited", "wagered", "won")},
        **dict.fromkeys(("deposit_count", "bet_count"), st.integers(0, 1000)),
    },
)
_STEP: Final = st.one_of(
    st.tuples(st.just("events"), st.lists(st.integers(0, 69), min_size=1, max_size=15)),
    st.tuples(st.just("events"), st.lists(st.integers(0, 69), min_size=1, max_size=15)),
    st.tuples(st.just("told"), st.lists(_TOLD, min_size=1, max_size=3)),
    st.tuples(st.just("profile"), st.integers(0, 1)),
    st.tuples(st.sampled_from(["rate", "settle"]), st.none()),
)
_ALL: Final = ("events", list(range(70)))
_ONE: Final = ("told", [{"user": 0, "hour": 12, "deposited": Decimal(500), "bet_count": 7, "wagered": Decimal(9)}])
_AGAIN: Final = ("told", [{"user": user, "hour": 23, "deposited": Decimal(600), "deposit_count": 9} for user in (0, 1)])
_REST: Final = [("profile", 0), ("rate", None), ("settle", None)]


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(_STEP, min_size=1, max_size=12))
@example([_ALL, _ONE, *_REST])
@example([_ALL, _ONE, _AGAIN, *_REST, _AGAIN, _ONE])
@example([_ALL, _AGAIN, *_REST, ("told", [{"user": 0, "hour": 23, "deposited": Decimal(1), "deposit_count": 1}])])
@example([_ONE, _ALL, *_REST])
@example(
    [_ALL, _ONE, ("told", [{"user": 0, "hour": 5, "won": Decimal(1)}, {"user": 0, "hour": 15, "won": Decimal(2)}])]
)
def test_a_total_is_the_operators_and_what_happened_after_it(
    writer: Writer, look: Look, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[str, Any]]
) -> None:
    """Whatever the order of events, late rates, currencies and numbers told: theirs at as_of plus ours after it."""
    monkeypatch.setattr(pending, "PIECE", 4)
    run, seen, known, owns = next(_RUNS), set[int](), dict(TABLE.constant), dict[int, str]()
    newest: dict[int, dict[str, Any]] = {}
    writer.rates, writer.checkpoint = TABLE, replace(writer.checkpoint, tenant=f"t{run}")
    for kind, given_ in [*steps, ("settle", None)]:
        if kind == "events":
            writer.events(*(_event(run, key) for key in given_), fresh=len(given_) % 2 == 0)
            seen.update(given_)
        elif kind == "told":
            rows = [{**row, "external_id": f"{run}.{row['user']}", "as_of": at(row["hour"])} for row in given_]
            tell(writer, *({k: v for k, v in row.items() if k not in {"user", "hour"}} for row in rows))
            for row in given_:
                if row["hour"] >= newest.get(row["user"], {"hour": -1})["hour"]:
                    newest[row["user"]] = row
        elif kind == "profile":
            owns[given_] = "GBP"
            writer.profiles({"external_id": f"{run}.{given_}", "default_currency_code": "GBP"})
        elif kind == "rate":
            known["ETH"] = ETH
            bring(writer, "ETH", ETH)
        else:
            drain(writer)
    for user in (0, 1):
        expected, ours = dict.fromkeys(TOTALS, 0), dict.fromkeys(TOTALS, 0)
        last = newest.get(user, {"hour": -1})
        said = {name: last[name] for name in TOTALS if last.get(name) is not None}
        theirs = {name: told if name.endswith("count") else int(told * 100) for name, told in said.items()}
        expected |= theirs
        for key in seen:
            event = _event(run, key)
            if key % 2 == user:
                for name, added in _adds(event, known, owns.get(user)).items():
                    late = last.get(name) is not None and event["occurred_at"] <= at(last["hour"])
                    (ours if late else expected)[name] += added
        rows = look("select * from crm.players where tenant = %s and external_id = %s", f"t{run}", f"{run}.{user}")
        assert [{name: row[column] for name, column in TOTALS.items()} for row in rows] in ([expected], [])
        assert rows or not any(expected.values())
        differs = [{name: row[f"{name}_by"] for name in TOTALS} for row in _differing(look, f"{run}.{user}")]
        by = {name: 0 if last.get(name) is None else theirs[name] - ours[name] for name in TOTALS}
        assert differs == ([by] if user in newest else [])


def _differing(look: Look, external_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = look(
        "select t.* from crm.player_totals t join crm.players using (player_id) where external_id = %s", external_id
    )
    return found


# One by one ---------------------------------------------------------------------------------------------------------


def test_a_late_event_is_in_the_operators_number_already(writer: Writer, look: Look) -> None:
    """It is stored, counted in its own currency, and lowers the difference instead of the total."""
    writer.events(deposit("d1", "10", 1))
    tell(writer, {"deposited": Decimal(100), "deposit_count": 4})
    assert totals(look) == {"deposited": 10_000, "deposit_count": 4}
    writer.events(deposit("late", "30", 11), deposit("now", "5", 13), deposit("at once", "2", 12))
    assert totals(look) == {"deposited": 10_500, "deposit_count": 5}
    (row,) = look("select * from crm.player_totals")
    assert (row["deposited_by"], row["deposit_count_by"]) == (10_000 - 1000 - 3000 - 200, 4 - 3)
    assert [(row["deposited"], row["deposit_count"]) for row in look("select * from crm.player_money")] == [(47, 4)]


def test_what_is_not_told_stays_ours(writer: Writer, look: Look) -> None:
    """Also when it was told before: the newest row says all that there is."""
    writer.events(deposit("d1", "10", 1), deposit("b1", "4", 1, name="bet_placed", effect="wagered"))
    tell(writer, {"deposited": Decimal(100), "wagered": Decimal(50)})
    assert totals(look) == {"deposited": 10_000, "deposit_count": 1, "wagered": 5000, "bet_count": 1}
    tell(writer, {"deposited": Decimal(120), "as_of": at(13)})
    assert totals(look) == {"deposited": 12_000, "deposit_count": 1, "wagered": 400, "bet_count": 1}


def test_an_older_or_repeated_word_changes_nothing(writer: Writer, look: Look) -> None:
    """Neither marks anybody; a player who moves is marked."""
    writer.profiles({"external_id": "7"})
    (before,) = look("select change_seq from crm.player_changes where reason = 'profile'")
    tell(writer, {"deposited": Decimal(100)})
    (after,) = look("select change_seq from crm.player_changes where reason = 'profile'")
    assert after["change_seq"] > before["change_seq"]
    tell(writer, {"deposited": Decimal(100)})
    tell(writer, {"deposited": Decimal(1), "as_of": at(11)})
    assert look("select change_seq from crm.player_changes where reason = 'profile'") == [after]
    assert totals(look) == {"deposited": 10_000}


def test_totals_in_another_currency_are_converted_at_their_moment(writer: Writer, look: Look) -> None:
    """Without a rate then they are kept in the quarantine, and nothing moves."""
    writer.rates = TABLE
    tell(
        writer,
        {"deposited": Decimal(100), "currency": "GBP"},
        {"external_id": "8", "deposited": Decimal(1), "currency": "CHF"},
    )
    assert totals(look) == {"deposited": 11_700}
    (refused,) = look("select * from crm.quarantine")
    assert (refused["reason"], refused["field"], refused["external_id"]) == ("no rate at as_of", "currency", "8")
    assert (refused["row_key"], refused["raw"]["brand"], refused["raw"]["player"]) == ("kaasino|8", "kaasino", "8")


def test_differences_are_told(writer: Writer) -> None:
    """Those of most money first, each with the operator's number and by how much ours differs."""
    writer.events(
        deposit("d1", "10", 1), deposit("d2", "10", 1, external_id="8"), deposit("d3", "7", 1, external_id="9")
    )
    tell(
        writer,
        {"deposited": Decimal(11)},
        {"external_id": "8", "deposited": Decimal(100), "deposit_count": 3},
        {"external_id": "9", "deposited": Decimal(7), "deposit_count": 1},
    )
    tenant = writer.checkpoint.tenant

    def who(external_id: str) -> dict[str, Any]:
        return {"brand_id": "kaasino", "external_id": external_id, "as_of": at(12)}

    assert reported.differing(writer.connection, tenant) == 2
    assert reported.differences(writer.connection, tenant) == [
        {
            **who("8"),
            "totals": {
                "deposited": {"theirs": 10_000, "by": 9000},
                "deposit_count": {"theirs": 3, "by": 2},
            },
        },
        {
            **who("7"),
            "totals": {"deposited": {"theirs": 1100, "by": 100}},
        },
    ]
    assert len(reported.differences(writer.connection, tenant, limit=1)) == 1


_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}


def test_totals_of_a_view_win(house: House) -> None:
    """A stream like any other, on every server: rows move along as_of, and the newest is what counts."""
    stamp = _STAMP[house.operator.family]
    house.operator.execute(
        f"create table player_totals_rows (as_of {stamp}, ext_brand_id varchar(20), user_ext_id varchar(20),"
        " total_deposited decimal(20,2), bet_count bigint, primary key (ext_brand_id, user_ext_id))",
        "create view player_totals as select * from player_totals_rows",
    )
    house.source["streams"] = {"deposits": {}, "player_totals": {}}
    house.deposits(1, 3)
    house.operator.execute("insert into player_totals_rows values ('2026-01-05 12:00:02', 'kaasino', '7', 1000, 50)")
    assert house.once() == {}
    assert house.look("select total_deposited, deposit_count, bet_count from crm.players") == [(101_000, 3, 50)]
    house.deposits(4, 4)
    house.operator.execute("update player_totals_rows set as_of = '2026-01-05 12:00:03', total_deposited = 2000")
    assert house.once() == {}
    assert house.look("select total_deposited, deposit_count from crm.players") == [(201_000, 4)]
    assert house.state("player_totals") == ("running", None)
    report = application.status(house.settings)
    assert report["differing"] == 1
