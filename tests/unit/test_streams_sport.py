"""The sportsbook: wagered once, won once, voided, cashed out, taken back; and its selections, which are no money."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from connector.event import EFFECTS, NAMES, SPORT
from connector.money import plain
from connector.streams import STREAMS, values
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connector.streams.contract import Binding

EXAMPLES: Final = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPORT_STREAMS: Final = [name for name in STREAMS if name.startswith("sport_")]
STATUSES: Final = ("WON", "LOST", "VOID", "CASHOUT", "HALF_WON", "HALF_LOST")


@pytest.fixture
def event(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function from changed columns to the one event they become."""

    def one(stream: str, **changes: Any) -> dict[str, Any]:
        found = normalise(stream, [row(stream, **changes)])
        assert found.rejections.is_empty()
        (only,) = found.events.drop("packed").to_dicts()
        assert only["name"] in NAMES
        assert only["effect"] in {*EFFECTS, None}
        assert (only["effect"] is not None) == (only["name"] in SPORT)
        return only | {"properties": told(found)[0]}

    return one


def totals(events: Sequence[dict[str, Any]]) -> tuple[Decimal, Decimal, int]:
    """Add up what the events say, the way the store's totals do: wagered, won, number of bets."""
    found: Counter[str] = Counter()
    for one in events:
        found[one["effect"]] += one["sign"] * one["amount"]
        found["bets"] += one["sign"] * (one["effect"] == "wagered")
    return Decimal(found["wagered"]), Decimal(found["won"]), int(found["bets"])


def test_the_views_are_read_in_the_order_of_a_bets_life() -> None:
    """Placed, its selections, settled, their results; after them what has no order."""
    assert [
        *("user_profile", "deposits", "withdrawals", "casino_bets", "casino_wins"),
        *("sport_bet_open", "sport_bet_selection_open", "sport_bet_settled", "sport_bet_selection_settled"),
        *("failed_deposits", "bonuses"),
    ] == [name for name in STREAMS if STREAMS[name].brings == "events" or name == "user_profile"]


def test_a_bet_becomes_sport_bet_placed(event: Callable[..., Any]) -> None:
    """The stake is the amount, it is wagered, and the bet id is the transaction id."""
    found = event(
        "sport_bet_open",
        bet_type="Combo",
        total_odds="3.450",
        selection_count="2",
        potential_win="69.00",
        bet_amount_real="15",
        bet_amount_bonus="5",
        is_live="0",
        freebet_id="f-7",
        currency="gbp",
    )
    properties = found.pop("properties")
    assert found == {
        "brand_id": "kaasino",
        "external_id": "007",
        "key": "11",
        "name": "sport_bet_placed",
        "transaction_id": "s-1",
        "occurred_at": datetime(2026, 3, 1, 10, tzinfo=UTC),
        "amount": Decimal(20),
        "currency": "GBP",
        "effect": "wagered",
        "sign": 1,
        "stake": None,
        "history": False,
        "mark": 11,
    }
    assert properties == {
        "bet_id": "s-1",
        "bet_type": "multi",
        "amount_real": "15",
        "amount_bonus": "5",
        "total_odds": "3.45",
        "selection_count": "2",
        "potential_win": "69",
        "is_live": "false",
        "freebet_id": "f-7",
    }


@pytest.mark.parametrize(
    ("status", "name", "effect", "sign", "amount", "payout"),
    [
        ("WON", "sport_bet_settled", "won", 1, "45.5", "45.5"),
        ("win", "sport_bet_settled", "won", 1, "45.5", "45.5"),
        ("Half_Won", "sport_bet_settled", "won", 1, "45.5", "45.5"),
        ("HALF_LOSS", "sport_bet_settled", "won", 1, "45.5", "45.5"),
        ("lost", "sport_bet_settled", "won", 1, "0", "0"),
        ("CASHOUT", "sport_cashout", "won", 1, "45.5", "45.5"),
        ("VOID", "sport_bet_voided", "wagered", -1, "20", None),
        ("Cancelled", "sport_bet_voided", "wagered", -1, "20", None),
    ],
)
def test_a_settlement_counts_by_its_status(
    status: str, name: str, effect: str, sign: int, amount: str, payout: str | None, event: Callable[..., Any]
) -> None:
    """A win is won, a lost bet wins nothing whatever the row says, and a void takes the stake back and wins nothing."""
    found = event("sport_bet_settled", bet_status=status)
    assert (found["name"], found["effect"], found["sign"], found["amount"]) == (name, effect, sign, Decimal(amount))
    assert found["properties"].get("payout") == payout
    assert found["stake"] is None


@pytest.mark.parametrize(
    ("changes", "amount"),
    [
        ({"cashout_amount": "12.5"}, "12.5"),
        ({"cashout_amount": "0"}, "0"),
        ({"cashout_amount": None}, "45.5"),
        ({"cashout_amount": "12.5", "win_amount": None}, "12.5"),
    ],
)
def test_a_cash_out_is_worth_what_was_paid_out(changes: dict[str, str], amount: str, event: Callable[..., Any]) -> None:
    """`cashout_amount` where it stands, else `win_amount`; of other statuses it counts nothing."""
    assert event("sport_bet_settled", bet_status="CASHOUT", **changes)["amount"] == Decimal(amount)
    assert event("sport_bet_settled", cashout_amount="12.5")["amount"] == Decimal("45.5")


@pytest.mark.parametrize("status", STATUSES)
def test_a_settlement_that_is_taken_back_leaves_the_bet_as_placed(status: str, event: Callable[..., Any]) -> None:
    """A row with `is_rollback` undoes its like, under a name of the sportsbook, and the bet may be settled anew."""
    placed = event("sport_bet_open")
    settled = event("sport_bet_settled", bet_status=status)
    undone = event("sport_bet_settled", bet_status=status, is_rollback="1", id="32")
    assert undone["name"] == "custom_sport_bet_rolled_back"
    assert undone["name"] in SPORT
    assert undone["properties"]["rollback_of"] == status.lower()
    assert "outcome" not in undone["properties"]
    assert totals([placed, settled, undone]) == totals([placed]) == (Decimal(20), Decimal(0), 1)


def test_a_placed_bet_may_be_taken_back(event: Callable[..., Any]) -> None:
    """The stake and the bet, by a row of its own."""
    undone = event("sport_bet_open", sport_is_rollback="true", id="12")
    assert (undone["name"], undone["properties"]["rollback_of"]) == ("custom_sport_bet_rolled_back", "bet")
    assert totals([event("sport_bet_open"), undone]) == (Decimal(0), Decimal(0), 0)


def test_a_settlement_says_how_the_bet_ended(event: Callable[..., Any]) -> None:
    """Outcome, stake, payout and its parts, in plain decimals."""
    found = event("sport_bet_settled", bet_status="half_win", win_amount_real="40", win_amount_bonus="5.50")
    assert found["properties"] == {
        "bet_id": "s-1",
        "outcome": "half_won",
        "bet_amount": "20",
        "payout": "45.5",
        "amount_real": "40",
        "amount_bonus": "5.5",
    }
    void = event("sport_bet_settled", bet_status="VOID", void_reason="abandoned", win_amount_real="20")
    assert void["properties"] == {"bet_id": "s-1", "outcome": "void", "bet_amount": "20", "void_reason": "abandoned"}


@pytest.mark.parametrize("names", [{}, {"sport_bet_status": "WON", "sport_bet_ext_id": "s-1", "dt": "2026-03-01"}])
def test_a_settlement_needs_no_bet(names: dict[str, str], event: Callable[..., Any]) -> None:
    """What comes before its bet, or without it, is an event like any other."""
    without = ("bet_status", "bet_id", "settlement_date") if names else ()
    assert event("sport_bet_settled", without=without, **names)["transaction_id"] == "s-1"


@pytest.mark.parametrize(
    ("stream", "changes", "field", "reason"),
    [
        ("sport_bet_open", {"bet_amount": None}, "bet_amount", "missing"),
        ("sport_bet_open", {"bet_amount": "-1"}, "bet_amount", "negative amount"),
        ("sport_bet_open", {"bet_amount": "1e13"}, "bet_amount", "amount too large to be true"),
        ("sport_bet_open", {"bet_id": None}, "bet_id", "missing"),
        ("sport_bet_open", {"bet_date": "later"}, "bet_date", "not a timestamp"),
        ("sport_bet_open", {"is_rollback": "perhaps"}, "is_rollback", "not a boolean"),
        ("sport_bet_settled", {"bet_status": "PENDING"}, "bet_status", "not a known value"),
        ("sport_bet_settled", {"bet_status": None}, "bet_status", "missing"),
        ("sport_bet_settled", {"win_amount": None}, "win_amount", "missing or not a number"),
        ("sport_bet_settled", {"win_amount": "NaN"}, "win_amount", "missing or not a number"),
        ("sport_bet_settled", {"win_amount": "-3"}, "win_amount", "negative amount"),
        ("sport_bet_settled", {"bet_status": "VOID", "bet_amount": None}, "bet_amount", "missing or not a number"),
        ("sport_bet_settled", {"bet_status": "CASHOUT", "win_amount": ""}, "win_amount", "missing or not a number"),
        ("sport_bet_settled", {"bet_status": "CASHOUT", "cashout_amount": "-1"}, "cashout_amount", "negative amount"),
        (
            "sport_bet_settled",
            {"bet_status": "CASHOUT", "cashout_amount": "much"},
            *("cashout_amount", "not a finite number of at most 20 digits"),
        ),
        ("sport_bet_settled", {"settlement_date": None}, "settlement_date", "missing"),
        ("sport_bet_selection_open", {"selection_id": None}, "selection_id", "missing"),
        ("sport_bet_selection_settled", {"selection_status": ""}, "selection_status", "missing"),
        ("sport_bet_selection_settled", {"user_ext_id": None}, "user_ext_id", "missing"),
    ],
)
def test_a_bad_row_is_refused_with_reason_and_field(
    stream: str, changes: dict[str, str | None], field: str, reason: str, normalise: Any, row: Any
) -> None:
    """The row is refused, with its bet id and the payload as the source wrote it: an unknown status means money."""
    changed = row(stream, **changes)
    found = normalise(stream, [changed])
    refused = found.rejections.filter(~found.rejections["kept"]).to_dicts()
    assert found.events.is_empty()
    assert [(one["field"], one["reason"]) for one in refused] == [(field, reason)]
    assert refused[0]["transaction_id"] == (changed["bet_id"] or changed["id"])
    assert json.loads(refused[0]["raw"]) == changed


@pytest.mark.parametrize(
    "changes",
    [
        {"bet_status": "LOST", "win_amount": None},
        {"bet_status": "LOST", "win_amount": "-1", "bet_amount": None},
        {"bet_status": "VOID", "win_amount": "1e13"},
        {"bet_status": "CASHOUT", "cashout_amount": "1", "win_amount": "-1", "bet_amount": None},
        {"bet_status": "WON", "bet_amount": "-20", "cashout_amount": "-1"},
    ],
)
def test_an_amount_that_counts_nowhere_may_be_anything(
    changes: dict[str, str | None], event: Callable[..., Any]
) -> None:
    """Only the amount that the status counts can cost the row."""
    assert event("sport_bet_settled", **changes)["name"]


def test_statuses_may_be_codes(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """values: {bet_status: {"2": lost}} reads codes, in any case."""
    rows = [row("sport_bet_settled", bet_status=code, id=str(n)) for n, code in enumerate(["2", "Refund", "3"])]
    found = normalise("sport_bet_settled", rows, values={"bet_status": {"2": "lost", "REFUND": "VOID"}})
    assert found.events["name"].to_list() == ["sport_bet_settled", "sport_bet_voided"]
    assert found.rejections["reason"].to_list() == ["not a known value"]


def test_a_bet_type_that_nobody_knows_is_passed_on(event: Callable[..., Any]) -> None:
    """It means no money: other words for the same become one, any other stays."""
    written = ("SINGLE", "Accumulator", "system", "Lucky 15", None)
    types = [event("sport_bet_open", bet_type=text)["properties"].get("bet_type") for text in written]
    assert types == ["single", "multi", "system", "lucky 15", None]


def test_selections_are_facts_without_money(event: Callable[..., Any]) -> None:
    """What was bet on and how it ended, named by their bet."""
    opened = event(
        "sport_bet_selection_open",
        match_id="m-3",
        event_name="Reds v Blues",
        sport_name="football",
        market="1X2",
        outcome="1",
        odds="1.850",
        is_live_selection="t",
        event_start="2026-03-01 11:00:00",
    )
    assert (opened["name"], opened["transaction_id"]) == ("custom_sport_bet_selection_open", "s-1")
    assert (opened["amount"], opened["currency"], opened["effect"]) == (None, None, None)
    assert opened["occurred_at"] == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert opened["properties"] == {
        "bet_id": "s-1",
        "selection_id": "s-1-a",
        "event_id": "m-3",
        "event_name": "Reds v Blues",
        "sport_type": "football",
        "market": "1X2",
        "outcome": "1",
        "is_live": "true",
        "odds": "1.85",
        "event_start": "2026-03-01T11:00:00Z",
    }
    settled = event("sport_bet_selection_settled", selection_status="Void", score="2:1")
    assert (settled["name"], settled["occurred_at"].hour) == ("custom_sport_bet_selection_settled", 12)
    assert settled["properties"] == {
        "bet_id": "s-1",
        "selection_id": "s-1-a",
        "selection_status": "void",
        "score": "2:1",
    }


@pytest.mark.parametrize(
    ("stream", "key"),
    [
        ("sport_bet_open", "s-1"),
        ("sport_bet_selection_open", "s-1|s-1-a"),
        ("sport_bet_settled", "s-1|WON"),
        ("sport_bet_selection_settled", "s-1|s-1-a"),
    ],
)
def test_without_an_id_rows_are_told_apart_by_bet(stream: str, key: str, normalise: Any, row: Any) -> None:
    """The bet, the bet and its selection, the bet and its status."""
    cursor = {"column": STREAMS[stream].business_time, "kind": "time"}
    found = normalise(stream, [row(stream, without=("id",))], cursor=cursor).events
    assert found["key"].to_list() == [key]


good = st.sampled_from(["0", "1", "2.50", "45.5", "100"])
maybe = good | st.sampled_from([None, "", "-1", "NaN", "much", "1e14"])
rows_of_settlements = st.lists(
    st.fixed_dictionaries(
        {
            "bet_status": st.sampled_from([*STATUSES, "win", " void ", "Cashed_Out", "2", "LIMBO", None]),
            "bet_amount": maybe,
            "win_amount": maybe,
            "cashout_amount": maybe,
            "is_rollback": st.sampled_from([None, "0", "1", "?"]),
        }
    ),
    min_size=1,
    max_size=30,
)


@EXAMPLES
@given(rows=rows_of_settlements, absent=st.sets(st.sampled_from(["cashout_amount", "is_rollback"])))
def test_an_audit_finds_the_amount_of_every_settlement(
    rows: list[dict[str, str | None]], absent: set[str], normalise: Any, bound: Callable[..., Binding], row: Any
) -> None:
    """Whatever the status and whichever amounts stand there, the row's own is what the event carries."""
    mapped = {"values": {"bet_status": {"2": "HALF_WON"}}}
    made = [row("sport_bet_settled", **one, without=absent) | {"id": str(n)} for n, one in enumerate(rows)]
    found = normalise("sport_bet_settled", made, **mapped)
    binding = bound("sport_bet_settled", list(made[0]), **mapped)
    page = pl.DataFrame(made, schema=dict.fromkeys(made[0], pl.String)).select(values.identifying(binding))
    told = found.events.select("key", plain(pl.col("amount")))
    seen = values.identified(page, binding).select("key", "amount")
    assert told.join(seen, on=["key", "amount"], how="anti", nulls_equal=True).is_empty()
    assert told.height + found.rejections.filter(~pl.col("kept")).height == len(made)
