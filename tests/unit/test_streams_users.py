"""`user_profile`: what each column becomes, and what a bad one costs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector.player import PROFILES, MarketingRules
from connector.position import mark_of
from connector.streams.contract import Context

if TYPE_CHECKING:
    from collections.abc import Callable

RULES: Final = Context(rules=MarketingRules(excluded_tags=frozenset({"SE"}), excluded_groups=frozenset({"00011"})))


@pytest.fixture
def profile(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Return a function from changed columns to the one profile they become, refused nothing."""

    def one(**changes: str | None) -> dict[str, Any]:
        found = normalise("user_profile", [row("user_profile", **changes)], context=RULES)
        assert dict(found.profiles.schema) == dict(PROFILES)
        assert found.events.is_empty()
        return found.profiles.to_dicts()[0]

    return one


@pytest.fixture
def lost(normalise: Callable[..., Any], row: Callable[..., Any]) -> Callable[..., list[tuple[str, str, bool]]]:
    """Return a function from changed columns to what was reported: (field, reason, row kept)."""

    def report(**changes: str | None) -> list[tuple[str, str, bool]]:
        found = normalise("user_profile", [row("user_profile", **changes)], context=RULES)
        return list(found.rejections.select("field", "reason", "kept").iter_rows())

    return report


def test_a_minimal_row_is_a_whole_profile(profile: Callable[..., Any], lost: Callable[..., Any]) -> None:
    """The seven required columns are enough."""
    found = profile()
    assert (found["brand_id"], found["external_id"]) == ("kaasino", "007")
    assert (found["status"], found["status_raw"], found["eligible"]) == ("active", "ACTIVE", True)
    assert found["registered_at"] == datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert found["source_updated_at"] == datetime(2026, 3, 1, 10, 0, 0, 123_456, tzinfo=UTC)
    assert found["cursor"] == "2026-03-01 10:00:00.123456"
    assert found["traits"] == "{}"
    assert found["history"] is False
    assert lost() == []


@pytest.mark.parametrize(
    ("written", "status"),
    [
        ("ACTIVE", "active"),
        ("Active", "active"),
        (" active ", "active"),
        ("self_excluded", "self_excluded"),
        ("Banned", "banned"),
        ("Frozen", "banned"),
    ],
)
def test_a_status_is_read_in_any_case_and_an_unknown_one_is_kept_raw(
    written: str, status: str, profile: Callable[..., Any]
) -> None:
    """Only a plainly active player is eligible; what nobody knows is kept as written, in upper case."""
    found = profile(core_account_status=written)
    assert (found["status"], found["status_raw"]) == (status, written.strip().upper())
    assert found["eligible"] is (status == "active")


@pytest.mark.parametrize("written", ["007", "7", "a|b", "3f2b8c1e-0000-4000-8000-000000000001", " 7", "Ünïq"])
def test_an_id_stays_as_written(written: str, profile: Callable[..., Any]) -> None:
    """Leading zeros, spaces and signs belong to the id."""
    assert profile(user_ext_id=written)["external_id"] == written
    assert profile(ext_brand_id=written)["brand_id"] == written


@pytest.mark.parametrize(
    ("column", "written", "field", "value"),
    [
        ("core_user_language", "de-DE", "language", "DE"),
        ("core_user_language", "sv", "language", "SV"),
        ("core_wallet_currency", " eur ", "default_currency_code", "EUR"),
        ("core_wallet_currency", "usdt", "default_currency_code", "USDT"),
        ("core_username", "Ana ", "username", "Ana "),
        ("user_birthdate", "1985-06-01", "date_of_birth", datetime(1985, 6, 1, tzinfo=UTC)),
        ("user_birthdate", "486432000000", "date_of_birth", datetime(1985, 6, 1, tzinfo=UTC)),
        ("user_birthdate", "-315619200000", "date_of_birth", datetime(1960, 1, 1, tzinfo=UTC)),
        (
            "core_registration_date",
            "1735787045678",
            "registered_at",
            datetime(2025, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
        ),
        (
            "core_registration_date",
            "2025-01-02T05:04:05+02:00",
            "registered_at",
            datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        ),
        ("user_country", "ua", "country", "UA"),
        ("user_email", "Ana@Example.com", "email", "Ana@Example.com"),
        ("user_first_name", 'An"a', "first_name", 'An"a'),
        ("user_last_name", "", "last_name", None),
        ("core_affiliate_id", "004322", "affiliate_id", "004322"),
        ("core_affiliate_str", "john24", "affiliate_str", "john24"),
        ("core_kyc_status", "VERIFIED", "kyc_status", "VERIFIED"),
        *(("core_user_gender", written, "gender", "m") for written in ("MALE", "m", "Male")),
        *(("core_user_gender", written, "gender", "f") for written in ("FEMALE", "F")),
        ("core_user_gender", "UNKNOWN", "gender", None),
        *(
            ("core_is_email_disabled_by_platform", written, "email_disabled", True)
            for written in ("1", "t", "true", "TRUE", "Y")
        ),
        *(
            ("core_is_sms_disabled_by_platform", written, "sms_disabled", False)
            for written in ("0", "f", "False", "no")
        ),
        ("tags", '["vip","a,b"]', "tags", '["vip","a,b"]'),
        ("tags", "{vip,SE}", "tags", '["vip","SE"]'),
        ("tags", "vip, SE", "tags", '["vip","SE"]'),
        ("groups", '{"00011","a,b"}', "groups", '["00011","a,b"]'),
        ("groups", "[11, 12]", "groups", '["11","12"]'),
        ("groups", "00011", "groups", '["00011"]'),
    ],
)
def test_each_column_has_one_canonical_value(
    column: str, written: str, field: str, value: object, profile: Callable[..., Any], lost: Callable[..., Any]
) -> None:
    """Every spelling in use becomes the profile's value, and nothing is reported."""
    assert profile(**{column: written})[field] == value
    assert lost(**{column: written}) == []


@pytest.mark.parametrize(
    ("phone", "country", "expected"),
    [
        ("+34 600 000 000", None, "+34600000000"),
        ("600 000 000", "ES", "+34600000000"),
        ("07400 123456", "gb", "+447400123456"),
        ("12", "ES", None),
        ("600 000 000", None, None),
        ("call me", "ES", None),
    ],
)
def test_a_phone_is_e164_by_the_users_country_or_lost(
    phone: str, country: str | None, expected: str | None, profile: Callable[..., Any], lost: Callable[..., Any]
) -> None:
    """National formats are read by country; what is no phone number costs the field and is reported."""
    assert profile(user_phone=phone, user_country=country)["phone"] == expected
    reported = [] if expected else [("user_phone", "not a phone number", True)]
    assert lost(user_phone=phone, user_country=country) == reported


@pytest.mark.parametrize(
    "written", ["U2FsdGVkX1+34600000000Zm9vYmFy==", "5f3a9c0d1e2b4a6f8c7d9e0f1a2b3c4d", "enc:v1:1:QUJDREVGR0hJSktM"]
)
def test_a_ciphertext_of_the_operators_passes_untouched(
    written: str, profile: Callable[..., Any], lost: Callable[..., Any]
) -> None:
    """Digits in it are no phone number, and that it is no address is nobody's mistake."""
    found = profile(user_phone=written, user_email=written, user_country="ES")
    assert (found["phone"], found["email"]) == (written, written)
    assert lost(user_phone=written, user_email=written, user_country="ES") == []


@pytest.mark.parametrize(
    ("column", "written", "reason"),
    [
        ("user_birthdate", "a while ago", "not a timestamp"),
        ("core_registration_date", "2025-02-30", "not a timestamp"),
        ("core_registration_date", None, "missing"),
        ("core_user_language", None, "missing"),
        pytest.param(
            *("core_wallet_currency", "", "missing"),
        ),
        ("core_is_sms_disabled_by_platform", "maybe", "not a boolean"),
        ("core_user_gender", "robot", "not a known value"),
        ("tags", "[broken", "not a list"),
    ],
)
def test_a_bad_field_costs_itself_and_never_the_status(
    column: str, written: str | None, reason: str, profile: Callable[..., Any], lost: Callable[..., Any]
) -> None:
    """The row goes on without the value, marked as kept."""
    assert lost(**{column: written}) == [(column, reason, True)]
    assert profile(**{column: written}, core_account_status="SELF_EXCLUDED")["status"] == "self_excluded"


@pytest.mark.parametrize(
    ("column", "written"),
    [("user_ext_id", None), ("user_ext_id", ""), ("ext_brand_id", ""), ("core_account_status", None)],
)
def test_a_user_without_identity_or_status_is_refused(
    column: str, written: str | None, normalise: Any, row: Any
) -> None:
    """Refused with reason, field, what identity there is, and the row as the source wrote it."""
    found = normalise("user_profile", [row("user_profile", **{column: written}, user_email="ana@example.com")])
    assert found.profiles.is_empty()
    (rejection,) = found.rejections.to_dicts()
    assert (rejection["reason"], rejection["field"], rejection["kept"]) == ("missing", column, False)
    assert json.loads(rejection["raw"]) == row("user_profile", **{column: written}, user_email="ana@example.com")
    assert rejection["external_id"] == (None if column == "user_ext_id" else "007")


def test_every_lost_field_of_a_page_is_reported(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """One user without a registration date beside one with a bad date: both are reported."""
    rows = [
        row("user_profile", core_registration_date="soon"),
        row("user_profile", user_ext_id="8", core_registration_date=None),
    ]
    reasons = normalise("user_profile", rows).rejections.sort("external_id")["reason"].to_list()
    assert reasons == ["not a timestamp", "missing"]


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"tags": "vip"}, True),
        ({"tags": "vip,SE"}, False),
        ({"groups": "{00011}"}, False),
        ({"cooling_off_until": "2026-03-08", "self_excluded_until": "2026-03-08"}, True),
    ],
)
def test_tags_and_groups_decide_who_is_eligible(
    changes: dict[str, str], allowed: bool, profile: Callable[..., Any]
) -> None:
    """An excluding tag or group does; an exclusion that ends is the clock's to judge, not the row's."""
    assert profile(**changes)["eligible"] is allowed


@pytest.mark.parametrize("column", ["cooling_off_until", "self_excluded_until", "tags", "groups"])
def test_what_may_exclude_and_cannot_be_read_excludes(column: str, profile: Callable[..., Any]) -> None:
    """Doubt about an exclusion is an exclusion, as with an unknown status."""
    found = profile(**{column: "[until further notice"})
    assert found["eligible"] is False
    assert json.loads(found["traits"]) == {"unreadable_exclusion": "true"}


def test_times_that_exclude_and_flags_that_withhold_consent_have_columns(profile: Callable[..., Any]) -> None:
    """They are no traits: the store judges by them, whatever the writing."""
    found = profile(
        cooling_off_until="1772900000000",
        self_excluded_until="2026-03-08",
        last_login_at="2026-03-01 09:00:00",
        core_is_push_disabled_by_platform="Y",
        core_is_phone_disabled_by_platform="0",
        telegram_id="4711",
    )
    assert (found["cooling_off_until"], found["rg_self_excluded_until"], found["last_login_at"]) == (
        datetime(2026, 3, 7, 16, 13, 20, tzinfo=UTC),
        datetime(2026, 3, 8, tzinfo=UTC),
        datetime(2026, 3, 1, 9, tzinfo=UTC),
    )
    assert (found["push_disabled"], found["calls_disabled"], found["telegram_id"]) == (True, False, "4711")
    assert found["traits"] == "{}"


@pytest.mark.parametrize(
    ("written", "addresses"),
    [
        ('{"network": "ETH", "address": "0xAb"}', [("eth", "0xAb")]),
        (
            '[{"network": "tron", "address": "T1", "x": 1}, {"network": "eth", "address": " 0xAb "}]',
            [("eth", "0xAb"), ("tron", "T1")],
        ),
        ("[]", []),
        (None, None),
    ],
)
def test_wallets_come_as_one_or_as_many(
    written: str | None, addresses: list[tuple[str, str]] | None, profile: Callable[..., Any]
) -> None:
    """A network is read in any case, an address stays as written."""
    found = profile(wallets=written)["wallets"]
    listed = None if found is None else [(wallet["network"], wallet["address"]) for wallet in json.loads(found)]
    assert listed == addresses


@pytest.mark.parametrize(
    "written",
    [
        *("0xAb", '"0xAb"', "7", '{"network": "eth"}', '[{"network": "", "address": "0xAb"}]', "[[]]", "[" * 5000),
        *('{"network": "eth", "address": "\\u0000"}', '{"network": "eth", "address": "\\ud800"}'),
        '{"network": "eth", "address": "' + "0" * 129 + '"}',
    ],
)
def test_a_wallet_that_is_none_costs_itself(
    written: str, profile: Callable[..., Any], lost: Callable[..., Any]
) -> None:
    """The rest of the row goes on."""
    assert profile(wallets=written)["wallets"] is None
    assert lost(wallets=written) == [("wallets", "not a list", True)]


@pytest.mark.parametrize("column", ["tags", "groups"])
def test_a_list_that_says_nothing_is_empty_and_one_that_is_not_there_unknown(
    column: str, profile: Callable[..., Any]
) -> None:
    """What other streams told of a player is kept only where the view has no such column."""
    assert profile(**{column: None})[column] == "[]"
    assert profile(**{column: "[broken"})[column] is None
    assert profile()[column] is None


def test_optional_and_extra_columns_become_traits(normalise: Callable[..., Any], row: Callable[..., Any]) -> None:
    """Extra view columns are kept under their own names, nulls left out."""
    rows = [
        row("user_profile", timezone="Europe/Madrid", vip_host='A \\ "B"\n'),
        row("user_profile", user_ext_id="8", vip_host=None),
    ]
    traits = normalise("user_profile", rows, extra=["vip_host"]).profiles["traits"].to_list()
    assert [json.loads(text) for text in traits] == [{"timezone": "Europe/Madrid", "vip_host": 'A \\ "B"\n'}, {}]


def test_history_is_what_lies_at_or_below_the_first_head(
    normalise: Callable[..., Any], row: Callable[..., Any]
) -> None:
    """The cursor decides, in the source's own writing; a backfill is all history."""
    until = "2026-03-01 10:00:00.123456"
    rows = [
        row("user_profile", dt_update=text)
        for text in ("2026-03-01 10:00:00.123455", until, "2026-03-01 10:00:00.123457")
    ]
    context = Context(history_until=mark_of(until, "time"))
    assert normalise("user_profile", rows, context=context).profiles["history"].to_list() == [True, True, False]
    assert (
        normalise("user_profile", rows, context=Context(all_history=True)).profiles["history"].to_list() == [True] * 3
    )
    assert normalise("user_profile", rows).profiles["history"].to_list() == [False] * 3
