"""A source whose views give whole subunits: exact units by each row's own currency, and what can't be one."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import example, given, settings, strategies as st

from connector import config
from connector.errors import Misconfigured
from connector.streams import STREAMS, values
from connector.streams.contract import bind
from tests.unit.properties import told

if TYPE_CHECKING:
    from collections.abc import Callable

SCALES: Final = {"ETH": 9, "EUR": 2, "JPY": 0, "WEI": 18}


def _deposit(row: Callable[..., Any], amount: str, currency: str | None = "ETH", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = row("deposits", deposit_amount=amount, currency=currency, **changes)
    return found


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from([*SCALES, "GBP"])), min_size=1, max_size=20))
@example([(1, "WEI"), (10**12, "WEI"), (0, "ETH"), (1, "ETH"), (7, "JPY")])
def test_whole_subunits_are_divided_exactly(
    normalise: Callable[..., Any], row: Callable[..., Any], rows: list[tuple[int, str]]
) -> None:
    """10^9 of ETH is one, whatever another row is in; a currency that has no scale is in plain units."""
    given_rows = [_deposit(row, str(n), currency, transaction_id=str(i)) for i, (n, currency) in enumerate(rows)]
    found = normalise("deposits", given_rows, scales=SCALES).events
    assert found["amount"].to_list() == [Decimal(n).scaleb(-SCALES.get(currency, 0)) for n, currency in rows]


@pytest.mark.parametrize(
    ("text", "currency", "amount"),
    [
        ("1500000000", "eth ", "1.5"),
        ("12.000", "EUR", "0.12"),
        ("1E+3", "EUR", "10"),
        ("7", "JPY", "7"),
        ("12.345", "GBP", "12.345"),
        ("1234567000000000000000000", "WEI", "1234567"),
    ],
)
def test_a_scale_is_by_the_rows_currency(
    normalise: Callable[..., Any], row: Callable[..., Any], text: str, currency: str, amount: str
) -> None:
    """However the number and the code are written; subunits may have more digits than an amount."""
    (event,) = normalise("deposits", [_deposit(row, text, currency)], scales=SCALES).events.to_dicts()
    assert event["amount"] == Decimal(amount)


def test_balances_and_fees_are_of_the_same_scale(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Every amount column of a row is divided."""
    one = _deposit(row, "2000000000", real_balance="1", bonus_balance="500000000")
    found = normalise("deposits", [one], scales=SCALES)
    (said,) = told(found)
    assert (said["real_balance"], said["bonus_balance"]) == ("0.000000001", "0.5")
    other = row("withdrawals", withdrawal_amount="100", fee_amount="25", currency="EUR")
    found = normalise("withdrawals", [other], scales=SCALES)
    (event,) = found.events.to_dicts()
    assert (event["amount"], told(found)[0]["fee"]) == (Decimal(1), "0.25")


@pytest.mark.parametrize(
    ("amount", "currency", "reason", "field"),
    [
        ("12.5", "EUR", "not whole subunits", "deposit_amount"),
        ("1.25e1", "EUR", "not whole subunits", "deposit_amount"),
        ("123456789012345678901234.5", "WEI", "not whole subunits", "deposit_amount"),
        ("abc", "EUR", "not a finite number of at most 20 digits", "deposit_amount"),
        ("-5", "EUR", "negative amount", "deposit_amount"),
        ("1500000000", None, "missing, and amounts are in subunits of it", "currency"),
        ("1500000000", "", "missing, and amounts are in subunits of it", "currency"),
    ],
)
def test_what_cannot_be_subunits_is_refused(
    *,
    normalise: Callable[..., Any],
    row: Callable[..., Any],
    amount: str,
    currency: str | None,
    reason: str,
    field: str,
) -> None:
    """A fraction shows that the view gives plain units; without a currency nobody knows what the number means."""
    found = normalise("deposits", [_deposit(row, amount, currency)], scales=SCALES)
    assert found.events.is_empty()
    assert found.rejections.select("reason", "field", "kept").rows() == [(reason, field, False)]


def test_a_broken_balance_costs_only_itself(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """What is beside the amount is reported and left out."""
    found = normalise("deposits", [_deposit(row, "100", "EUR", real_balance="0.5")], scales=SCALES)
    assert found.events["amount"].to_list() == [Decimal(1)]
    assert found.rejections.select("reason", "field", "kept").rows() == [("not whole subunits", "real_balance", True)]


def test_a_view_without_currencies_is_not_bound() -> None:
    """Every row would be refused: the message says what is missing instead."""
    types = dict.fromkeys([c.name for c in STREAMS["deposits"].columns if c.name != "currency"], "text")
    with pytest.raises(Misconfigured, match="'currency' is missing: the source has scales"):
        bind(STREAMS["deposits"], config.Stream(), types, view="deposits", scales=SCALES)


def test_an_audit_compares_scaled_amounts_row_by_row_and_adds_up_none(
    bound: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """Sums over rows of different scales mean nothing at the source; each row's amount is the stored one."""
    one = _deposit(row, "1500000000")
    binding = bound("deposits", list(one), scales=SCALES)
    assert binding.amounts == ()
    page = pl.DataFrame([one]).select(values.identifying(binding))
    assert values.identified(page, binding)["amount"].to_list() == ["1.5"]
    bets = {**row("casino_bets"), "currency": "ETH"}
    binding = bound("casino_bets", list(bets), mode="single_table", scales=SCALES)
    wins = {**bets, "type": "win", "bet_amount": None, "win_amount": "3", "currency": "JPY"}
    page = pl.DataFrame([{**bets, "bet_amount": "2000000000"}, wins]).select(values.identifying(binding))
    assert values.identified(page, binding)["amount"].to_list() == ["2", "3"]
