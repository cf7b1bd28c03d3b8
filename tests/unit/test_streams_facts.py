"""`fx_rates` and `player_totals`: rows that tell something and are no events, and what a bad value costs."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest

from connector.normalised import ERASURES, RATES, REPORTED
from connector.streams import STREAMS, values

if TYPE_CHECKING:
    from collections.abc import Callable

AT: Final = datetime(2026, 3, 1, 10, tzinfo=UTC)


def test_a_rate_is_units_of_base_for_one_of_currency(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Exactly as it is written, codes in capitals; without a base it is the tenant's."""
    found = normalise("fx_rates", [row("fx_rates", currency="gbp", rate="1.170000000000000001", base=" eur ")])
    assert dict(found.rates.schema) == dict(RATES)
    assert found.rates.to_dicts() == [
        {"base": "EUR", "currency": "GBP", "valid_from": AT, "rate": Decimal("1.170000000000000001")}
    ]
    assert (found.understood, found.events.height) == (1, 0)
    bare = normalise("fx_rates", [row("fx_rates", without=["base"])])
    assert bare.rates["base"].to_list() == [None]


def test_a_rate_has_no_scale(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Amounts of the source may be subunits, its rates are not."""
    found = normalise("fx_rates", [row("fx_rates", currency="ETH", rate="2500.5")], scales={"ETH": 9, "EUR": 2})
    assert found.rates["rate"].to_list() == [Decimal("2500.5")]


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"rate": "0"}, "not above zero", "rate"),
        ({"rate": "-1.17"}, "not above zero", "rate"),
        ({"rate": "0.0000000000000000001"}, "not above zero", "rate"),
        ({"rate": "one"}, "not a finite number of at most 20 digits", "rate"),
        ({"rate": None}, "missing", "rate"),
        ({"valid_from": "soon"}, "not a timestamp", "valid_from"),
        ({"currency": ""}, "missing", "currency"),
        ({"currency": "a currency of many words"}, "not a currency", "currency"),
        ({"base": "an even longer currency"}, "not a currency", "base"),
    ],
)
def test_a_rate_that_says_nothing_is_refused(
    *, normalise: Callable[..., Any], row: Callable[..., Any], changes: dict[str, Any], reason: str, field: str
) -> None:
    """With its reason; a rejection of a stream without players names none."""
    found = normalise("fx_rates", [row("fx_rates", **changes)])
    assert found.rates.is_empty()
    assert found.rejections.select("reason", "field").rows() == [(reason, field)]
    assert found.rejections["external_id"].to_list() == [None]


def test_the_key_of_a_rate_holds_the_base_where_there_is_one(bound: Callable[..., Any]) -> None:
    """Two bases tell the same currency and time; a table without bases needs no third column."""
    assert bound("fx_rates", ["dt", "base", "currency", "valid_from", "rate"]).key == ("base", "currency", "valid_from")
    assert bound("fx_rates", ["dt", "currency", "ts", "rate"]).key == ("currency", "ts")


def test_a_page_of_rates_can_be_refused_whole(bound: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Rows dated far ahead are shown in the quarantine, whoever they are about."""
    one = row("fx_rates")
    refused = values.refused(pl.DataFrame([one]), bound("fx_rates", list(one)), reason="ahead", field="dt_update")
    assert refused.select("reason", "brand_id", "row_key").rows() == [("ahead", None, "EUR|GBP|2026-03-01 10:00:00")]


def test_totals_are_told_as_far_as_they_are_there(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """What is null, or no column, is not told."""
    one = row("player_totals", without=["total_won"], total_withdrawn=None, bet_count="12.0")
    found = normalise("player_totals", [one])
    assert dict(found.reported.schema) == dict(REPORTED)
    who = {"brand_id": "kaasino", "external_id": "007", "as_of": AT}
    told = {"deposited": Decimal("100.5"), "wagered": Decimal(2000), "deposit_count": 3, "bet_count": 12}
    assert found.reported.to_dicts() == [dict.fromkeys(REPORTED) | who | told]
    assert found.rejections.is_empty()


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"total_deposited": "much"}, "not a finite number of at most 20 digits", "total_deposited"),
        ({"total_deposited": "-1"}, "negative", "total_deposited"),
        ({"total_wagered": "10000000000000"}, "too large to be true", "total_wagered"),
        ({"bet_count": "1.5"}, "not a whole number of at most 18 digits", "bet_count"),
        ({"bet_count": "-3"}, "negative", "bet_count"),
        ({"currency": "a currency of many words"}, "not a currency", "currency"),
        ({"as_of": "today"}, "not a timestamp", "as_of"),
        (dict.fromkeys(("total_deposited", "total_wagered", "deposit_count", "bet_count")), "tells no total", ""),
    ],
)
def test_a_row_of_totals_is_refused_whole(
    *, normalise: Callable[..., Any], row: Callable[..., Any], changes: dict[str, Any], reason: str, field: str
) -> None:
    """It is about money: the last good row stands until it is mended."""
    found = normalise("player_totals", [row("player_totals", **changes)])
    assert found.reported.is_empty()
    refused = found.rejections.filter(~found.rejections["kept"])
    assert refused.select("reason", "field").rows() == [(reason, field)]


def test_totals_are_scaled_and_counts_are_not(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Whole subunits of the row's currency; a row without one is refused."""
    one = row("player_totals", total_deposited="10050", total_wagered="200000", currency="EUR")
    found = normalise("player_totals", [one], scales={"EUR": 2})
    assert found.reported.select("deposited", "wagered", "deposit_count").rows() == [
        (Decimal("100.5"), Decimal(2000), 3)
    ]
    refused = normalise("player_totals", [one | {"currency": None}], scales={"EUR": 2})
    assert refused.rejections.select("reason", "field").rows() == [
        ("missing, and amounts are in subunits of it", "currency")
    ]


def test_facts_are_rewritten_and_rates_are_read_before_amounts() -> None:
    """A row may move along its cursor; an event finds its rate, and a player's numbers come after the events."""
    names = list(STREAMS)
    assert all(STREAMS[name].rewritten and not STREAMS[name].reads_profiles for name in ("fx_rates", "player_totals"))
    assert names.index("user_profile") < names.index("fx_rates") < names.index("deposits")
    assert names[-1] == "player_totals"


def test_an_erasure_names_its_account_whatever_the_mode(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """A word that nobody knows, or none, erases all the same; without an account there is nobody to erase."""
    rows = [row("erasures", mode=mode, user_ext_id=str(n)) for n, mode in enumerate(("Suppress", "sometimes", None))]
    found = normalise("erasures", rows)
    assert dict(found.erasures.schema) == dict(ERASURES)
    assert found.erasures["mode"].to_list() == ["suppress", "sometimes", "delete"]
    assert found.erasures["external_id"].to_list() == ["0", "1", "2"]
    assert normalise("erasures", [row("erasures", without=["mode"])]).erasures["mode"].to_list() == ["delete"]
    assert normalise("erasures", [row("erasures", user_ext_id=None)]).rejections["field"].to_list() == ["user_ext_id"]
    assert next(iter(STREAMS)) == "erasures"  # who asks to be forgotten does not wait for anybody's bets
