"""`deposits` and `withdrawals`: names, totals, amounts, keys, and what a bad value costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector.event import EVENTS, NAMES
from connector.position import mark_of
from connector.streams.contract import Context
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable

AMOUNT_OF: Final = {"deposits": "deposit_amount", "withdrawals": "withdrawal_amount"}
BOTH: Final = pytest.mark.parametrize("stream", list(AMOUNT_OF))


@pytest.fixture
def event(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function from changed columns to the one event they become."""

    def one(stream: str, **changes: Any) -> dict[str, Any]:
        found = normalise(stream, [row(stream, **changes)])
        assert dict(found.events.schema) == dict(EVENTS)
        assert found.profiles.is_empty()
        (only,) = found.events.drop("packed").to_dicts()
        assert only["name"] in NAMES
        return only | {"properties": told(found)[0]}

    return one


@pytest.fixture
def rejected(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., list[tuple[str, str, bool]]]:
    """Return a function from changed columns to what was reported: (field, reason, row kept)."""

    def report(stream: str, **changes: Any) -> list[tuple[str, str, bool]]:
        return list(
            normalise(stream, [row(stream, **changes)]).rejections.select("field", "reason", "kept").iter_rows()
        )

    return report


def test_a_deposit_becomes_deposit_confirmed(event: Callable[..., Any]) -> None:
    """Identity, key, business time, exact amount, effect and properties of the simplest deposit."""
    found = event(
        "deposits",
        currency="gbp",
        deposit_method="PaySafe",
        provider_name="paysafe",
        deposit_code="SPRING",
        real_balance="1.50",
    )
    assert found == {
        "brand_id": "kaasino",
        "external_id": "007",
        "key": "d-1",
        "name": "deposit_confirmed",
        "transaction_id": "d-1",
        "occurred_at": datetime(2026, 3, 1, 9, 59, 58, tzinfo=UTC),
        "amount": Decimal("25.50"),
        "currency": "GBP",
        "effect": "deposited",
        "sign": 1,
        "stake": None,
        "properties": {
            "payment_method": "PaySafe",
            "provider": "paysafe",
            "bonus_code": "SPRING",
            "real_balance": "1.5",
        },
        "history": False,
        "mark": 1772359200123456000,
    }


@pytest.mark.parametrize(
    ("flag", "name", "sign"),
    [("1", "custom_deposit_reversed", -1), ("f", "deposit_confirmed", 1), (None, "deposit_confirmed", 1)],
)
def test_a_rolled_back_deposit_takes_its_amount_back(
    flag: str | None, name: str, sign: int, event: Callable[..., Any]
) -> None:
    """A reversal is a row of its own, with a positive amount and the sign of a loss."""
    found = event("deposits", is_rollback=flag)
    assert (found["name"], found["sign"], found["effect"], found["amount"]) == (
        name,
        sign,
        "deposited",
        Decimal("25.5"),
    )


@pytest.mark.parametrize("status", ["COMPLETED", "completed", "Success", "approved", None, ""])
def test_a_final_deposit_status_is_a_deposit(status: str | None, event: Callable[..., Any]) -> None:
    """Where the view carries a status, final ones pass in any case."""
    assert event("deposits", deposit_status=status)["name"] == "deposit_confirmed"


def test_a_deposit_that_is_not_final_is_left_out(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Neither an event nor a rejection, and the rows around it keep their own raw payloads."""
    rows = [
        row("deposits", transaction_id="d-1", deposit_status="PENDING"),
        row("deposits", transaction_id="d-2", deposit_status="COMPLETED"),
        row("deposits", transaction_id="d-3", deposit_status="failed"),
        row("deposits", transaction_id="d-4", deposit_status="COMPLETED", deposit_amount="-1"),
    ]
    found = normalise("deposits", rows)
    assert found.events["key"].to_list() == ["d-2"]
    assert found.rejections["transaction_id"].to_list() == ["d-4"]
    assert json.loads(found.rejections["raw"][0])["transaction_id"] == "d-4"


@pytest.mark.parametrize(
    ("status", "name", "effect", "sign"),
    [
        ("REQUESTED", "withdrawal_requested", None, 1),
        ("requested", "withdrawal_requested", None, 1),
        ("Approved", "custom_withdrawal_approved", None, 1),
        ("COMPLETED", "withdrawal_confirmed", "withdrawn", 1),
        ("CONFIRMED", "withdrawal_confirmed", "withdrawn", 1),
        ("REJECTED", "withdrawal_failed", None, 1),
        ("CANCELLED", "withdrawal_failed", None, 1),
        ("canceled", "withdrawal_failed", None, 1),
        ("FAILED", "withdrawal_failed", None, 1),
        ("REVERSED", "custom_withdrawal_reversed", "withdrawn", -1),
    ],
)
def test_only_a_completed_withdrawal_adds_to_the_total(
    status: str | None, name: str, effect: str | None, sign: int, event: Callable[..., Any]
) -> None:
    """Each status is its event; COMPLETED adds, REVERSED takes back, the others change no total."""
    found = event("withdrawals", withdrawal_status=status)
    assert (found["name"], found["effect"], found["sign"]) == (name, effect, sign)


def test_a_view_without_a_status_shows_completed_withdrawals(event: Callable[..., Any]) -> None:
    """A view of final rows only needs no status column."""
    found = event("withdrawals", without=("withdrawal_status",))
    assert (found["name"], found["key"], found["properties"]) == (
        "withdrawal_confirmed",
        "w-1",
        {"status": "COMPLETED"},
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"withdrawal_status": "REJECTED", "decline_reason": "documents"}, "documents"),
        ({"withdrawal_status": "canceled"}, "cancelled"),
        ({"withdrawal_status": "COMPLETED", "decline_reason": "documents"}, None),
    ],
)
def test_a_failed_withdrawal_says_why(changes: dict[str, str], reason: str | None, event: Callable[..., Any]) -> None:
    """UCRM requires a reason: the operator's, or the status itself."""
    assert event("withdrawals", **changes)["properties"].get("reason") == reason


def test_each_status_of_a_withdrawal_is_a_row_of_its_own(
    normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """The same transaction in three states has three keys and one transaction id."""
    rows = [row("withdrawals", withdrawal_status=status) for status in ("REQUESTED", "APPROVED", "COMPLETED")]
    found = normalise("withdrawals", rows).events
    assert found["key"].n_unique() == 3
    assert set(found["transaction_id"]) == {"w-1"}


def test_an_unknown_withdrawal_status_is_refused(rejected: Callable[..., Any]) -> None:
    """Nobody guesses what a status means for a player's total."""
    assert rejected("withdrawals", withdrawal_status="LIMBO") == [("withdrawal_status", "not a known value", False)]


def test_the_operators_own_words_are_mapped(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """values: {withdrawal_status: {"2": completed}} reads codes, in any case."""
    rows = [row("withdrawals", withdrawal_status="2"), row("withdrawals", withdrawal_status="Paid")]
    found = normalise("withdrawals", rows, values={"withdrawal_status": {"2": "completed", "PAID": "COMPLETED"}})
    assert found.events["name"].to_list() == ["withdrawal_confirmed"] * 2


@BOTH
@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.10",
        " 12.50 ",
        "+3",
        "1234567.891234567891234567",
        "9999999999999.999999999999999999",
        "1e3",
        "1.25E-7",
        ".5",
        "5.",
    ],
)
def test_an_amount_is_exactly_what_the_text_says(stream: str, text: str, event: Callable[..., Any]) -> None:
    """Amounts never pass through a float: 13 digits before the point and 18 after it arrive whole."""
    assert event(stream, **{AMOUNT_OF[stream]: text})["amount"] == Decimal(text.strip())


@BOTH
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            (text, "not a finite number of at most 20 digits")
            for text in ("NaN", "Infinity", "-inf", "1,000.00", "ten", "0x10", "9" * 21)
        ),
        ("-0.01", "negative amount"),
        ("10000000000000", "amount too large to be true"),
        *((text, "missing") for text in (None, "")),
    ],
)
def test_an_amount_that_is_none_costs_the_row(
    stream: str, text: str | None, reason: str, normalise: Any, row: Any
) -> None:
    """Refused with reason, field, transaction id, player and the row as the source wrote it."""
    changed = row(stream, **{AMOUNT_OF[stream]: text})
    found = normalise(stream, [changed])
    (rejection,) = found.rejections.to_dicts()
    assert found.events.is_empty()
    assert (rejection["reason"], rejection["field"], rejection["kept"]) == (reason, AMOUNT_OF[stream], False)
    assert (rejection["transaction_id"], rejection["brand_id"], rejection["external_id"]) == (
        changed["transaction_id"],
        "kaasino",
        "007",
    )
    assert json.loads(rejection["raw"]) == changed


@BOTH
@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("user_ext_id", None, "missing"),
        ("user_ext_id", "", "missing"),
        ("ext_brand_id", "", "missing"),
        ("transaction_date", "yesterday", "not a timestamp"),
        ("transaction_date", None, "missing"),
        ("dt_finalized", "0000-00-00 00:00:00", "not a timestamp"),
    ],
)
def test_a_required_value_that_is_bad_costs_the_row(
    stream: str, column: str, text: str | None, reason: str, rejected: Any
) -> None:
    """Each required column has its own reason."""
    assert rejected(stream, **{column: text}) == [(column, reason, False)]


@BOTH
def test_a_bad_optional_value_costs_itself(
    stream: str, event: Callable[..., Any], rejected: Callable[..., Any]
) -> None:
    """The event goes out without the balance, which is reported as kept."""
    assert rejected(stream, bonus_balance="lots", real_balance="2.00") == [
        ("bonus_balance", "not a finite number of at most 20 digits", True)
    ]
    found = event(stream, bonus_balance="lots", real_balance="2.00")["properties"]
    assert (found.get("bonus_balance"), found["real_balance"]) == (None, "2")


@BOTH
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01T09:59:58.123456Z", datetime(2026, 3, 1, 9, 59, 58, 123456, tzinfo=UTC)),
        ("2026-03-01 11:59:58+02", datetime(2026, 3, 1, 9, 59, 58, tzinfo=UTC)),
        ("1772359198123", datetime(2026, 3, 1, 9, 59, 58, 123000, tzinfo=UTC)),
        ("1772359198", datetime(2026, 3, 1, 9, 59, 58, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_business_time_is_read_in_every_writing(
    stream: str, text: str, moment: datetime, event: Callable[..., Any]
) -> None:
    """Aware, naive as UTC, epoch seconds or milliseconds, ISO and plain dates."""
    assert event(stream, transaction_date=text)["occurred_at"] == moment


@BOTH
@pytest.mark.parametrize("key", [None, ""])
def test_a_row_without_its_key_is_refused(stream: str, key: str | None, rejected: Callable[..., Any]) -> None:
    """What can't be told apart from other rows can't be counted once."""
    ((_, _, kept),) = rejected(stream, transaction_id=key)
    assert kept is False


def test_a_withdrawal_without_a_status_is_completed(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """A null status means completed, where the key does not need it."""
    events = normalise("withdrawals", [row("withdrawals", withdrawal_status=None)], key=["transaction_id"]).events
    assert events["name"].to_list() == ["withdrawal_confirmed"]


def test_extra_columns_become_properties(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Extra view columns join the properties under their own names, nulls left out."""
    rows = [row("deposits", Shop='Bar "7"'), row("deposits", transaction_id="d-2", Shop=None)]
    found = normalise("deposits", rows, extra=["shop"])
    assert told(found) == [{"Shop": 'Bar "7"'}, {}]


@BOTH
def test_an_empty_page_gives_empty_frames(stream: str, normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Every frame has its schema even without rows."""
    good = normalise(stream, [row(stream, user_ext_id=None)])
    assert dict(good.events.schema) == dict(EVENTS)
    assert good.events.is_empty()


@BOTH
def test_rows_at_or_below_the_first_head_are_history(
    stream: str, normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """The mark of the cursor decides, whatever writing it has."""
    rows = [row(stream, transaction_id=str(index), dt_finalized=f"2026-03-01T10:00:0{index}Z") for index in range(3)]
    context = Context(history_until=mark_of("2026-03-01 10:00:01", "time"))
    assert normalise(stream, rows, context=context).events["history"].to_list() == [True, True, False]
