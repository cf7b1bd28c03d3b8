"""Native amounts to base subunits: exact, half to even, and never one to one without a rate."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

import polars as pl
import pytest
from hypothesis import example, given, settings, strategies as st

from connector.currencies import scale
from connector.event import AMOUNT
from connector.money import AMOUNT_LIMIT, Rates, plain

EXAMPLES: Final = settings(max_examples=80, deadline=None)
EXACT: Final = Context(prec=80, rounding=ROUND_HALF_EVEN)
amounts = (
    st.decimals(0, AMOUNT_LIMIT - 1, places=8)
    | st.decimals(0, 10, places=3)
    | st.integers(0, 10**6).map(lambda n: Decimal(n) / 1000)
    | st.decimals(0, 100, places=18)
)
rates = (
    st.decimals(Decimal("0.0000000001"), 1000, places=10)
    | st.decimals(Decimal(1).scaleb(-18), 2, places=18)
    | st.sampled_from([Decimal(1), Decimal("0.5"), Decimal("1.17")])
)


def subunits(rows: list[tuple[Decimal, str]], table: Rates) -> list[int | None]:
    frame = pl.DataFrame(rows, schema={"amount": AMOUNT, "currency": pl.String}, orient="row")
    return frame.select(table.subunits(pl.col("amount"), table.expression(pl.col("currency")))).to_series().to_list()


@EXAMPLES
@given(st.lists(amounts, min_size=1, max_size=20), rates, st.sampled_from(["EUR", "JPY", "KWD"]))
@example([Decimal("0.005"), Decimal("0.015"), Decimal("0.025")], Decimal(1), "EUR")
@example([Decimal(1), Decimal(3)], Decimal("0.005"), "EUR")
@example([Decimal("0.1"), Decimal("0.3")], Decimal("0.050000000000000001"), "EUR")
@example([Decimal("0.1"), Decimal("0.3")], Decimal("0.049999999999999999"), "EUR")
def test_subunits_are_what_decimal_arithmetic_gives(values: list[Decimal], rate: Decimal, base: str) -> None:
    """Amount times rate, rounded half to even to the base currency's subunit, without a float anywhere."""
    expected = [
        int(EXACT.quantize(EXACT.multiply(value, rate), Decimal(1).scaleb(-scale(base))).scaleb(scale(base)))
        for value in values
    ]
    assert subunits([(value, "XTS") for value in values], Rates(base, {"XTS": rate})) == expected


def test_without_a_rate_there_is_no_base_amount() -> None:
    """Play money and unknown currencies give null, never one to one; the base currency itself counts one."""
    table = Rates("EUR", {"GBP": Decimal("1.17")})
    assert subunits(
        [(Decimal(5), "FUN"), (Decimal(5), "eur"), (Decimal(5), ""), (Decimal(5), "EUR"), (Decimal(5), "GBP")], table
    ) == [
        None,
        None,
        None,
        500,
        585,
    ]


def test_a_row_without_a_currency_has_no_base_amount() -> None:
    """A null currency or amount stays null."""
    frame = pl.DataFrame(
        {"amount": [Decimal(1), None], "currency": [None, "EUR"]}, schema={"amount": AMOUNT, "currency": pl.String}
    )
    table = Rates("EUR", {})
    assert frame.select(
        table.subunits(pl.col("amount"), table.expression(pl.col("currency")))
    ).to_series().to_list() == [None, None]


def test_a_configured_rate_of_the_base_wins_over_one() -> None:
    """What the operator wrote for a currency is its rate."""
    assert subunits([(Decimal(1), "EUR")], Rates("EUR", {"EUR": Decimal(1)})) == [100]


@pytest.mark.parametrize(("base", "rate"), [("VND", "2500000000"), ("BTC", "1")])
def test_an_amount_too_large_for_the_total_has_no_base_amount(base: str, rate: str) -> None:
    """The greatest amount at the greatest rate is either exact or null: it never fails a page and never wraps."""
    amount = Decimal(AMOUNT_LIMIT - 1)
    exact = int(amount * Decimal(rate) * 10 ** scale(base))
    assert subunits([(amount, "XTS")], Rates(base, {"XTS": Decimal(rate)})) == [exact if exact < 2**63 else None]


@EXAMPLES
@given(
    st.lists(
        st.decimals(-(10**13), 10**13, places=18) | st.integers(-(10**13), 10**13).map(Decimal), min_size=1, max_size=20
    )
)
@example([Decimal(0), Decimal(100), Decimal("0.10"), Decimal("-0.5")])
def test_plain_texts_are_exact_and_short(values: list[Decimal]) -> None:
    """A plain text is the same number without an exponent or trailing zeros."""
    texts = (
        pl.DataFrame({"amount": values}, schema={"amount": AMOUNT})
        .select(plain(pl.col("amount")))
        .to_series()
        .to_list()
    )
    assert [Decimal(text) for text in texts] == values
    assert all("e" not in text.lower() and not ("." in text and text.endswith(("0", "."))) for text in texts)


@pytest.mark.parametrize(
    ("currency", "places"),
    [
        *[("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("TND", 3), ("CLF", 4), ("XXX", 2), ("NOPE", 2)],
        *[("BTC", 8), ("ETH", 8), ("LTC", 8), ("BCH", 8), ("DOGE", 8), ("USDT", 6), ("USDC", 6), ("TRX", 6)],
    ],
)
def test_scale_is_the_smallest_unit(currency: str, places: int) -> None:
    """ISO 4217 for money, UCRM's scales for crypto."""
    assert scale(currency) == places
    assert Rates(currency, {}).places == places


def test_scales_of_crypto_are_configured_and_those_of_iso_4217_are_not() -> None:
    """What ISO 4217 says of a currency is no matter of taste."""
    assert scale("ETH", {"ETH": 6}) == 6
    assert scale("SOL", {"SOL": 5}) == 5
    assert scale("JPY", {"JPY": 4}) == 0
    assert subunits([(Decimal("1.5"), "ETH")], Rates("ETH", {}, scales={"ETH": 3})) == [1500]


def test_play_money_and_the_base_currency_know_no_other_rate() -> None:
    """A rate that is given for either changes nothing."""
    table = Rates("EUR", {"FUN": Decimal(1), "EUR": Decimal(2)})
    assert subunits([(Decimal(5), "FUN"), (Decimal(5), "EUR")], table) == [None, 500]
