"""`failed_deposits` and `bonuses`: names, reasons, properties; neither moves a total."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from connector.event import NAMES
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def event(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function from changed columns to the one event they become, which moves no total."""

    def one(stream: str, **changes: Any) -> dict[str, Any]:
        found = normalise(stream, [row(stream, **changes)])
        (only,) = found.events.drop("packed").to_dicts()
        assert only["name"] in NAMES
        assert (only["effect"], only["stake"], only["sign"]) == (None, None, 1)
        return only | {"properties": told(found)[0]}

    return one


@pytest.fixture
def rejected(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., list[tuple[str, str, bool]]]:
    """Return a function from changed columns to what was reported: (field, reason, row kept)."""

    def report(stream: str, **changes: Any) -> list[tuple[str, str, bool]]:
        found = normalise(stream, [row(stream, **changes)]).rejections
        return list(found.select("field", "reason", "kept").iter_rows())

    return report


# Deposits that failed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name", "reason"),
    [
        ("FAILED", "deposit_failed", "failed"),
        ("declined", "deposit_failed", "failed"),
        ("Canceled", "deposit_failed", "cancelled"),
        ("PENDING", "deposit_initiated", None),
        ("processing", "deposit_initiated", None),
    ],
)
def test_an_attempt_is_failed_or_under_way(status: str, name: str, reason: str | None, event: Any) -> None:
    """The reason falls back to the status; one under way has none."""
    found = event("failed_deposits", status=status)
    assert (found["name"], found["transaction_id"], found["amount"]) == (name, "d-9", Decimal("25.5"))
    assert found["occurred_at"] == datetime(2026, 3, 1, 9, 59, 58, tzinfo=UTC)
    assert found["properties"].get("reason") == reason


def test_a_failed_deposit_says_why(event: Callable[..., Any]) -> None:
    """The operator's own reason, method and provider."""
    found = event("failed_deposits", reason="3ds_failed", deposit_method="card", provider_name="Alpenpay")
    assert found["properties"] == {
        "status": "FAILED",
        "reason": "3ds_failed",
        "payment_method": "card",
        "provider": "Alpenpay",
    }


def test_a_view_without_a_status_shows_failed_deposits(event: Callable[..., Any]) -> None:
    """Its name says so; the transaction id is the key then."""
    found = event("failed_deposits", without=("status",))
    assert (found["name"], found["key"], found["properties"]["reason"]) == ("deposit_failed", "d-9", "failed")


def test_an_attempt_has_an_event_for_each_status(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """First under way, then failed: two rows, two keys, one transaction."""
    found = normalise("failed_deposits", [row("failed_deposits", status=text) for text in ("PENDING", "FAILED")]).events
    assert found["key"].to_list() == ["d-9|PENDING", "d-9|FAILED"]
    assert found["name"].to_list() == ["deposit_initiated", "deposit_failed"]
    assert set(found["transaction_id"]) == {"d-9"}


@pytest.mark.parametrize(("text", "reason"), [(None, "missing"), ("?", "not a finite number of at most 20 digits")])
def test_an_attempt_without_an_amount_is_kept(text: str | None, reason: str, event: Any, rejected: Any) -> None:
    """The amount is lost and reported; that the player failed is not."""
    assert event("failed_deposits", deposit_amount=text)["amount"] is None
    assert rejected("failed_deposits", deposit_amount=text) == [("deposit_amount", reason, True)]


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"status": "COMPLETED"}, "status", "not a known value"),
        ({"deposit_amount": "-1"}, "deposit_amount", "negative amount"),
        ({"transaction_date": None}, "transaction_date", "missing"),
        ({"user_ext_id": ""}, "user_ext_id", "missing"),
    ],
)
def test_a_bad_attempt_is_refused(changes: dict[str, str | None], field: str, reason: str, rejected: Any) -> None:
    """A deposit that succeeded has no place in this view."""
    assert rejected("failed_deposits", **changes) == [(field, reason, False)]


# Bonuses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "name"),
    [
        ("ISSUED", "bonus_claimed"),
        ("active", "custom_bonus_activated"),
        ("handle_bets", "custom_bonus_activated"),
        ("WAGERED", "bonus_wagered"),
        ("wager_done", "bonus_completed"),
        ("LOST", "custom_bonus_cancelled"),
        ("canceled", "custom_bonus_cancelled"),
        ("EXPIRED", "bonus_expired"),
    ],
)
def test_each_status_of_a_bonus_is_its_event(status: str, name: str, event: Callable[..., Any]) -> None:
    """One row per status; the amount is told and counts nowhere."""
    found = event("bonuses", status=status, bonus_amount="50", currency="EUR")
    assert (found["name"], found["transaction_id"], found["amount"], found["currency"]) == (
        *(name, "x-1", Decimal(50)),
        "EUR",
    )


def test_a_bonus_is_described(event: Callable[..., Any]) -> None:
    """Type, name, what is to be wagered and until when, free spins."""
    found = event(
        "bonuses",
        bonus_type="freespins",
        bonus_name="Friday spins",
        wager_requirement="300.00",
        wagered_amount="12.5",
        expires_at="2026-03-08",
        is_freespin="Y",
        spins="20",
    )
    assert found["properties"] == {
        "status": "ISSUED",
        "bonus_id": "x-1",
        "bonus_type": "freespins",
        "bonus_name": "Friday spins",
        "is_freespin": "true",
        "wager_requirement": "300",
        "wagered_amount": "12.5",
        "spins": "20",
        "expires_at": "2026-03-08T00:00:00Z",
    }
    assert found["amount"] is None


def test_the_statuses_of_a_bonus_have_keys_of_their_own(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Without an id, bonus and status tell the rows apart."""
    rows = [row("bonuses", status=status, without=("id",)) for status in ("ISSUED", "ACTIVE", "EXPIRED")]
    found = normalise("bonuses", rows, cursor={"column": "bonus_date", "kind": "time"}).events
    assert found["key"].to_list() == ["x-1|ISSUED", "x-1|ACTIVE", "x-1|EXPIRED"]


@pytest.mark.parametrize(
    ("changes", "field", "reason", "kept"),
    [
        ({"status": "SHAKEN"}, "status", "not a known value", False),
        ({"status": None}, "status", "missing", False),
        ({"bonus_id": None}, "bonus_id", "missing", False),
        ({"bonus_amount": "-5"}, "bonus_amount", "negative amount", False),
        ({"expires_at": "soon"}, "expires_at", "not a timestamp", True),
        ({"spins": "many"}, "spins", "not a whole number of at most 18 digits", True),
    ],
)
def test_a_bad_value_of_a_bonus_is_reported(
    changes: dict[str, str | None], field: str, reason: str, kept: bool, rejected: Any
) -> None:
    """What names the event costs the row, a detail only itself."""
    assert rejected("bonuses", **changes) == [(field, reason, kept)]


def test_a_refused_bonus_is_named(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """The quarantine shows the bonus's id."""
    assert normalise("bonuses", [row("bonuses", status="?")]).rejections["transaction_id"].to_list() == ["x-1"]


def test_codes_of_statuses_are_mapped(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """values: {status: {"4": expired}} reads codes."""
    found = normalise("bonuses", [row("bonuses", status="4")], values={"status": {"4": "expired"}})
    assert found.events["name"].to_list() == ["bonus_expired"]
