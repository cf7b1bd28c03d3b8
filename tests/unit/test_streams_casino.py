"""Casino bets and wins in their three shapes: wagered once, won once, rolled back exactly."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector.event import EFFECTS, NAMES
from connector.streams.contract import Context
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: UCRM's required properties beside amount and currency, which are columns.
REQUIRED: Final = {
    "bet_placed": {"bet_id", "game_id", "game_category"},
    "bet_settled": {"bet_id", "game_id", "game_category", "payout", "outcome"},
}
CURSOR: Final = {"column": "bet_date", "kind": "time"}


@pytest.fixture
def event(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function from changed columns to the one event they become, with its required properties checked."""

    def one(stream: str = "casino_bets", mode: str | None = None, **changes: Any) -> dict[str, Any]:
        found = normalise(stream, [row(stream, **changes)], mode=mode)
        (only,) = found.events.drop("packed").to_dicts()
        (properties,) = told(found)
        assert only["name"] in NAMES
        assert only["effect"] in EFFECTS
        assert set(properties) >= REQUIRED.get(only["name"], set())
        return only | {"properties": properties}

    return one


def totals(events: Sequence[dict[str, Any]]) -> dict[str, Decimal]:
    """Add up what the events say, the way the store's totals do."""
    found: Counter[str] = Counter()
    for event in events:
        found[event["effect"]] += event["sign"] * event["amount"]
        if event["stake"] is not None:
            found["wagered"] += event["sign"] * event["stake"]
    return dict(found)


def test_a_bet_becomes_bet_placed(event: Callable[..., Any]) -> None:
    """The stake is the amount, it is wagered, and the bet id is the transaction id."""
    found = event(
        round_id="r-9",
        game_category="Slots",
        game_provider="Acme",
        bet_amount_real="2.00",
        bet_amount_bonus="0.5",
        is_free_bet="1",
    )
    properties = found.pop("properties")
    assert found == {
        "brand_id": "kaasino",
        "external_id": "007",
        "key": "1001",
        "name": "bet_placed",
        "transaction_id": "b-1",
        "occurred_at": datetime(2026, 3, 1, 10, tzinfo=UTC),
        "amount": Decimal("2.5"),
        "currency": None,
        "effect": "wagered",
        "sign": 1,
        "stake": None,
        "history": False,
        "mark": 1001,
    }
    assert properties == {
        "bet_id": "b-1",
        "round_id": "r-9",
        "game_id": "lemons",
        "game_name": "Lucky Lemons",
        "game_category": "slots",
        "game_category_raw": "Slots",
        "game_provider": "Acme",
        "amount_real": "2",
        "amount_bonus": "0.5",
        "is_free_bet": "true",
    }


@pytest.mark.parametrize(
    ("win", "outcome", "payout"), [("7.50", "won", "7.5"), ("0", "lost", "0"), ("0.00", "lost", "0")]
)
def test_a_win_row_is_settled_and_its_stake_is_never_wagered(
    win: str, outcome: str, payout: str, event: Callable[..., Any]
) -> None:
    """The stake repeated on a win row is a property, not a total."""
    found = event(type="WIN", win_amount=win)
    assert (found["name"], found["effect"], found["amount"], found["stake"]) == (
        "bet_settled",
        "won",
        Decimal(win),
        None,
    )
    assert (found["properties"]["outcome"], found["properties"]["payout"], found["properties"]["bet_amount"]) == (
        outcome,
        payout,
        "2.5",
    )


def test_a_loss_row_is_settled_for_nothing(event: Callable[..., Any]) -> None:
    """A loss needs no win amount."""
    found = event(type="Loss")
    assert (found["name"], found["effect"], found["amount"], found["stake"]) == ("bet_settled", "won", Decimal(0), None)
    assert (found["properties"]["outcome"], found["properties"]["payout"]) == ("lost", "0")


@pytest.mark.parametrize(
    ("changes", "effect", "of", "amount"),
    [
        ({"type": "rollback_bet"}, "wagered", "bet", "2.5"),
        ({"type": "BET_ROLLBACK"}, "wagered", "bet", "2.5"),
        ({"type": "bet", "is_rollback": "true"}, "wagered", "bet", "2.5"),
        ({"type": "Rollback_Win", "win_amount": "7"}, "won", "win", "7"),
        ({"type": "win", "win_amount": "7", "is_rollback": "1"}, "won", "win", "7"),
        ({"type": "rollback_bet", "is_rollback": "1"}, "wagered", "bet", "2.5"),
    ],
)
def test_a_rollback_takes_back_what_its_kind_added(
    changes: dict[str, str], effect: str, of: str, amount: str, event: Any
) -> None:
    """By its own type or by a flag, a rollback is negative in the total of what it takes back."""
    found = event(**changes)
    assert (found["name"], found["effect"], found["sign"], found["amount"]) == (
        "custom_bet_rolled_back",
        effect,
        -1,
        Decimal(amount),
    )
    assert found["properties"]["rollback_of"] == of
    assert "outcome" not in found["properties"]


def test_separate_views_count_bets_here_and_wins_there(event: Callable[..., Any]) -> None:
    """Wagered comes from the bet row, won from the win row, and both name the same bet."""
    bet = event("casino_bets", "separate", without=("type", "win_amount"))
    win = event("casino_wins")
    assert totals([bet, win]) == {"wagered": Decimal("2.5"), "won": Decimal("7.5")}
    assert bet["transaction_id"] == win["transaction_id"] == "b-1"
    assert (win["name"], win["properties"]["outcome"], win["stake"]) == ("bet_settled", "won", None)


@pytest.mark.parametrize(("win", "outcome"), [("7.5", "won"), ("0", "lost")])
def test_win_per_bet_takes_both_totals_from_one_row(win: str, outcome: str, event: Callable[..., Any]) -> None:
    """One row per bet: settled, wagered by its stake and won by its win."""
    found = event("casino_bets", "win_per_bet", without=("type",), win_amount=win)
    assert (found["name"], found["properties"]["outcome"]) == ("bet_settled", outcome)
    assert totals([found]) == {"wagered": Decimal("2.5"), "won": Decimal(win)}


def test_win_per_bet_rolls_both_totals_back(event: Callable[..., Any]) -> None:
    """A rolled-back row takes stake and win back together."""
    row = {"without": ("type",), "win_amount": "7.5"}
    assert totals(
        [event("casino_bets", "win_per_bet", **row), event("casino_bets", "win_per_bet", **row, is_rollback="1")]
    ) == {
        "wagered": Decimal(0),
        "won": Decimal(0),
    }


@pytest.mark.parametrize(
    ("mode", "changes", "field", "reason"),
    [
        ("single_table", {"type": "bonus"}, "type", "not a known value"),
        ("single_table", {"type": None}, "type", "missing"),
        ("single_table", {"bet_amount": None}, "bet_amount", "missing or not a number"),
        ("single_table", {"bet_amount": "NaN"}, "bet_amount", "missing or not a number"),
        ("single_table", {"type": "win"}, "win_amount", "missing or not a number"),
        ("single_table", {"bet_amount": "-1"}, "bet_amount", "negative amount"),
        ("single_table", {"type": "win", "win_amount": "1e13"}, "win_amount", "amount too large to be true"),
        ("single_table", {"game_id": None}, "game_id", "missing"),
        ("single_table", {"game_name": None}, "game_name", "missing"),
        ("single_table", {"bet_date": "later"}, "bet_date", "not a timestamp"),
        ("single_table", {"user_ext_id": ""}, "user_ext_id", "missing"),
        ("separate", {"bet_amount": None}, "bet_amount", "missing"),
        ("separate", {"bet_amount": "Infinity"}, "bet_amount", "not a finite number of at most 20 digits"),
        ("win_per_bet", {"win_amount": None}, "win_amount", "missing"),
        ("win_per_bet", {"win_amount": "1", "bet_amount": ""}, "bet_amount", "missing"),
    ],
)
def test_a_bad_row_is_refused_with_reason_and_field(
    mode: str,
    changes: dict[str, str | None],
    field: str,
    reason: str,
    normalise: Callable[..., Any],
    row: Callable[..., Any],
) -> None:
    """The row is refused, with its bet id and the payload as the source wrote it."""
    changed = row("casino_bets", **changes)
    found = normalise("casino_bets", [changed], mode=mode)
    refused = found.rejections.filter(~found.rejections["kept"]).to_dicts()
    assert found.events.is_empty()
    assert [(one["field"], one["reason"], one["transaction_id"]) for one in refused] == [(field, reason, "b-1")]
    assert json.loads(refused[0]["raw"]) == changed


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"win_amount_real": "much"}, "win_amount_real", "not a finite number of at most 20 digits"),
        ({"is_free_bet": "perhaps"}, "is_free_bet", "not a boolean"),
        ({"type": "bet", "win_amount": "n/a"}, "win_amount", "not a finite number of at most 20 digits"),
        (
            {"type": "win", "win_amount": "1", "bet_amount": "n/a"},
            "bet_amount",
            "not a finite number of at most 20 digits",
        ),
    ],
)
def test_a_bad_optional_value_costs_itself(
    changes: dict[str, str], field: str, reason: str, normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """The event is kept without the value, which is reported."""
    found = normalise("casino_bets", [row("casino_bets", **changes)])
    assert found.events.height == 1
    assert list(found.rejections.select("field", "reason", "kept").iter_rows()) == [(field, reason, True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "win", "win_amount": "1", "bet_amount": "-2.5"},
        {"type": "bet", "win_amount": "-1"},
        {"type": "loss", "bet_amount": "1e13"},
    ],
)
def test_a_repeated_amount_that_is_unusable_costs_itself(changes: dict[str, str], event: Callable[..., Any]) -> None:
    """The stake shown on a win row is optional there: whatever is wrong with it must not lose the win."""
    assert event(**changes)["name"]


@pytest.mark.parametrize(
    ("written", "category", "raw"),
    [
        ("slots", "slots", None),
        ("Slot", "slots", "Slot"),
        ("LIVE_CASINO", "live", "LIVE_CASINO"),
        ("roulette", "table", "roulette"),
        ("crash", "crash", None),
        ("Scratch cards", "other", "Scratch cards"),
        (None, "other", None),
    ],
)
def test_a_category_is_one_of_ucrms_and_the_word_is_kept(
    written: str | None, category: str, raw: str | None, event: Any
) -> None:
    """The closed list, any case; what differs stays beside it."""
    properties = event(game_category=written)["properties"]
    assert (properties["game_category"], properties.get("game_category_raw")) == (category, raw)


def test_types_may_be_codes(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """values: {type: {"1": bet, "2": win}} reads an integer type."""
    rows = [
        row("casino_bets", type="1"),
        row("casino_bets", id="1002", type="2", win_amount="3"),
        row("casino_bets", id="1003", type="9"),
    ]
    found = normalise("casino_bets", rows, values={"type": {"1": "bet", "2": "win"}})
    assert found.events["name"].to_list() == ["bet_placed", "bet_settled"]
    assert found.rejections["reason"].to_list() == ["not a known value"]


def test_a_bet_without_a_bet_id_is_named_by_its_row_key(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """The unique id of the view is the bet's id where there is no other."""
    found = normalise("casino_bets", [row("casino_bets", bet_id=None)])
    assert found.events["transaction_id"].to_list() == ["1001"]
    assert told(found)[0]["bet_id"] == "1001"


def test_bet_and_win_of_one_bet_have_two_keys_without_an_id(
    normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """(bet_id, type) tells the rows of one bet apart."""
    rows = [row("casino_bets", without=("id",)), row("casino_bets", without=("id",), type="win", win_amount="1")]
    assert normalise("casino_bets", rows, cursor=CURSOR).events["key"].to_list() == ["b-1|bet", "b-1|win"]


def test_history_of_ids_is_what_lies_at_or_below_the_head(
    normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """Ids compare as numbers, not as texts, beyond 64 bits too."""
    rows = [row("casino_bets", id=text) for text in ("999", "1000", "1001", str(2**64))]
    assert normalise("casino_bets", rows, context=Context(history_until=1000)).events["history"].to_list() == [
        True,
        True,
        False,
        False,
    ]
