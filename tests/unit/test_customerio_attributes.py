"""A player's attributes at Customer.io: the names and types of the operator's schema map, whatever is known."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given, strategies as st

from connector.config import Attributes, Brand
from connector.destinations.contract import Profile
from connector.destinations.customerio_attributes import VALUE_BYTES, attributes
from connector.payments import Payments

NOW: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
BRAND: Final = Brand(
    customer_id="kaasino:{user_ext_id}", server_codename="kaasino-eu", site_domain="casino.example.com"
)
#: The columns of crm.players that attributes are made of, JSON columns decoded.
PLAYER: Final = {
    "status": "active",
    "status_raw": "ACTIVE",
    "rg_self_excluded": False,
    "email": "ana@example.com",
    "phone": "+34600000000",
    "first_name": 'An"a',
    "last_name": "Müller",
    "country": "ES",
    "gender": "f",
    "date_of_birth": datetime(1985, 6, 1, tzinfo=UTC),
    "language": "ES",
    "default_currency_code": "EUR",
    "created_at": datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
    "email_disabled": False,
    "sms_disabled": True,
    "affiliate_str": "john24",
    "tags": ["vip", "a,b"],
    "groups": ["00001"],
    "traits": {},
}
#: Everything that an operator may expose.
EVERYTHING: Final = PLAYER | {
    "last_deposit_at": NOW,
    "traits": dict.fromkeys(
        (
            *("timezone", "last_login_country", "subscription_token", "ga_id", "anonymous_id", "duplicates", "stag"),
            *("accept_bonuses", "promo_phone", "partner_promos"),
        ),
        "x",
    )
    | {"email_confirmed_at": "2025-01-02T03:04:05Z"},
}
#: Names of the schema map that are Customer.io's own, or the person's address there.
NOT_ATTRIBUTES: Final = {"id", "cio_id", "unsubscribed"}


def schema_map() -> set[str]:
    """Return the 123 names of the operator's schema map, written out as the map does."""
    names = {
        *("id", "cio_id", "email", "phone", "anonymous_id", "subscription_token", "ga_id"),
        *("first_name", "last_name", "country", "last_login_country", "gender", "date_of_birth", "locale", "timezone"),
        *("currency", "created_at", "confirmed_at", "disabled", "duplicates", "server_codename", "site_domain"),
        *("accept_bonuses", "receive_promos", "receive_sms_promos", "receive_promos_via_phone_calls"),
        *("agreed_to_partner_promotions", "unsubscribed", "stag", "tags", "groups"),
        *("last_sum_deposit", "last_time_deposit"),
    }
    for kind, currencies in (("deposit", "total eur gbp trx fun"), ("cashout", "total eur gbp trx")):
        for currency in currencies.split():
            for what in ("count", "sum"):
                names.add(f"lifetime_{kind}_{what}_{currency}")
                names |= {
                    f"{kind}_{what}_{period}_{currency}" for period in ("previous_day", "last_7", "last_30", "last_90")
                }
    return names


def profile(*, excluded: bool = False, payments: Payments | None = None, **changes: Any) -> Profile:
    values = PLAYER | changes
    return Profile(7, "1", "007", excluded=excluded, values=values, payments=payments or Payments(), places=2, at=NOW)


def found(**changes: Any) -> dict[str, Any]:
    return attributes(profile(**changes), BRAND, Attributes())


def direct(**changes: Any) -> dict[str, Any]:
    """Return what is no payment."""
    return {name: value for name, value in found(**changes).items() if "deposit" not in name and "cashout" not in name}


def test_every_name_of_the_schema_map_is_written() -> None:
    """123 names, without the person's id and what Customer.io writes itself."""
    assert len(schema_map()) == 123
    known = Payments(last_deposit=Decimal("12.5"))
    every = attributes(profile(payments=known, **EVERYTHING), BRAND, Attributes())
    assert set(every) == schema_map() - NOT_ATTRIBUTES


def test_a_profile_has_the_direct_and_the_configured_attributes() -> None:
    """Names and types of the schema map: texts, booleans as texts, unix seconds as integers, lists as JSON texts."""
    assert direct() == {
        "email": "ana@example.com",
        "phone": "+34600000000",
        "first_name": 'An"a',
        "last_name": "Müller",
        "country": "ES",
        "gender": "f",
        "date_of_birth": 486432000,
        "locale": "es",
        "currency": "EUR",
        "created_at": 1735787045,
        "disabled": "none",
        "accept_bonuses": "true",
        "receive_promos": "true",
        "receive_sms_promos": "false",
        "receive_promos_via_phone_calls": "false",
        "agreed_to_partner_promotions": "false",
        "stag": "john24",
        "tags": '["vip","a,b"]',
        "groups": '["00001"]',
        "server_codename": "kaasino-eu",
        "site_domain": "casino.example.com",
    }


def test_payments_stand_under_period_and_currency() -> None:
    """Counts and sums are numbers, lifetimes of all money in the base currency, what never was is zero."""
    payments = Payments(last_deposit=Decimal("12.5"))
    payments.add("deposit", "last_7", "GBP", 2, Decimal("30.10"))
    payments.add("deposit", "last_7", "total", 2, Decimal("35.22"))
    payments.add("cashout", "lifetime", "TRX", 1, Decimal(1000))
    known = found(
        payments=payments,
        deposit_count=5,
        total_deposited=12_345,
        last_deposit_at=NOW,
        withdrawal_count=0,
        total_withdrawn=0,
    )
    assert (known["deposit_count_last_7_gbp"], known["deposit_sum_last_7_gbp"]) == (2, Decimal("30.10"))
    assert (known["deposit_count_last_7_total"], known["deposit_sum_last_7_total"]) == (2, Decimal("35.22"))
    assert (known["lifetime_deposit_count_total"], known["lifetime_deposit_sum_total"]) == (5, Decimal("123.45"))
    assert (known["lifetime_cashout_count_trx"], known["lifetime_cashout_sum_trx"]) == (1, 1000)
    assert (known["last_sum_deposit"], known["last_time_deposit"]) == ("12.50", int(NOW.timestamp()))
    assert (known["cashout_count_previous_day_eur"], known["cashout_sum_previous_day_eur"]) == (0, 0)


def test_names_follow_the_configuration() -> None:
    """Other currencies and windows give other names; without any, the totals stay."""
    wanted = Attributes.model_validate({"currencies": ["sek"], "cashout_currencies": [], "windows": ["last_30"]})
    names = {name for name in attributes(profile(), BRAND, wanted) if "count" in name and name != "country"}
    assert names == {
        *("lifetime_deposit_count_total", "lifetime_deposit_count_sek", "deposit_count_last_30_total"),
        *("deposit_count_last_30_sek", "lifetime_cashout_count_total", "cashout_count_last_30_total"),
    }


@pytest.mark.parametrize(
    "name", ["email", "phone", "gender", "tags", "date_of_birth", "default_currency_code", "email_disabled"]
)
def test_what_is_unknown_is_left_out(name: str) -> None:
    """No null for a value that was never sent."""
    assert None not in found(**{name: None}).values()
    assert len(found(**{name: None})) == len(found()) - 1


@pytest.mark.parametrize(
    ("traits", "name", "value"),
    [
        ({"timezone": "Europe/Madrid"}, "timezone", "Europe/Madrid"),
        ({"last_login_country": "PT"}, "last_login_country", "PT"),
        ({"ga_id": "GA1.2"}, "ga_id", "GA1.2"),
        ({"subscription_token": "t0"}, "subscription_token", "t0"),
        ({"stag": "aff_1"}, "stag", "aff_1"),
        ({"duplicates": "1"}, "duplicates", "true"),
        ({"accept_bonuses": "f"}, "accept_bonuses", "false"),
        ({"promo_phone": "true"}, "receive_promos_via_phone_calls", "true"),
        ({"partner_promos": "N"}, "agreed_to_partner_promotions", "false"),
        ({"email_confirmed_at": "2025-01-02T03:04:05Z"}, "confirmed_at", 1735787045),
    ],
)
def test_optional_columns_go_out_under_their_attribute_names(traits: dict[str, str], name: str, value: object) -> None:
    """Extra columns of the view become the attributes of the schema map, flags as texts."""
    assert found(traits=traits)[name] == value


@pytest.mark.parametrize(
    ("changes", "disabled"),
    [
        ({}, "none"),
        ({"status": "active", "status_raw": "PENDING"}, "none"),
        ({"status": "conflict"}, "none"),
        ({"status": "self_excluded", "rg_self_excluded": True}, "self_excluded"),
        ({"status": "banned"}, "disabled"),
        ({"cooling_off_until": NOW + timedelta(seconds=1)}, "cooling_off"),
        ({"cooling_off_until": NOW}, "none"),
    ],
)
def test_disabled_tells_the_state(changes: dict[str, Any], disabled: str) -> None:
    """none, disabled, cooling_off or self_excluded, by the status table and the moment."""
    assert found(**changes)["disabled"] == disabled


def test_a_value_that_the_api_would_refuse_costs_itself() -> None:
    """A value beyond 1,000 bytes of UTF-8 would lose the whole profile."""
    assert "first_name" in found(first_name="ü" * (VALUE_BYTES // 2))
    assert "first_name" not in found(first_name="ü" * (VALUE_BYTES // 2 + 1))


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=60))
def test_labels_go_out_byte_for_byte_as_far_as_they_fit(labels: list[str]) -> None:
    """Whole labels in the source's order, none changed, as many as a value of 1,000 bytes has room for."""
    text = found(tags=labels)["tags"]
    kept = json.loads(text)
    assert kept == labels[: len(kept)]
    assert len(text.encode()) <= VALUE_BYTES
    if len(kept) < len(labels):
        longer = json.dumps(labels[: len(kept) + 1], ensure_ascii=False, separators=(",", ":"))
        assert len(longer.encode()) > VALUE_BYTES
