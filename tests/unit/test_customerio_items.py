"""Players and events as Customer.io operations: names, types, removals, exclusions, exact amounts."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import example, given, strategies as st

from connector.config import Attributes, Brand
from connector.destinations.contract import Previous, Profile, StoredEvent
from connector.destinations.customerio_items import balance, customer_id, event, identify, pack

if TYPE_CHECKING:
    from connector.destinations.contract import Item

BRAND: Final = Brand(
    customer_id="kaasino:{user_ext_id}", server_codename="kaasino-eu", site_domain="casino.example.com"
)
WANTED: Final = Attributes()
IDENTITY: Final = ("kaasino", "replica", "deposits", "0", "1", "d-1", "deposit_confirmed")
#: The columns of crm.players that encoding reads, JSON columns decoded.
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


def profile(*, excluded: bool = False, **changes: Any) -> Profile:
    return Profile(7, "1", "007", excluded=excluded, values=PLAYER | changes)


def stored(**changes: Any) -> StoredEvent:
    base = {
        "seq": 11,
        "player_id": 7,
        "brand_id": "1",
        "external_id": "007",
        "identity": IDENTITY,
        "name": "deposit_confirmed",
        "occurred_at": datetime(2026, 3, 1, 9, 59, 58, 900_000, tzinfo=UTC),
        "amount": Decimal("25.500000000000000000"),
        "currency": "EUR",
        "transaction_id": "d-1",
        "properties": {},
    }
    return StoredEvent(**(base | changes))


def decoded(item: Item) -> dict[str, Any]:
    """Decode an item, numbers as the exact decimals that were written."""
    return json.loads(item.body, parse_float=Decimal)


def sent(*, previous: Previous = Previous(), excluded: bool = False, **changes: Any) -> dict[str, Any]:  # noqa: B008 - frozen
    return decoded(identify(profile(excluded=excluded, **changes), BRAND, previous, WANTED))["attributes"]


def test_the_identify_of_a_profile_is_exactly_this_shape() -> None:
    """One identifier, no timestamp, the whole profile, and what settling needs beside it."""
    item = identify(profile(), BRAND, Previous(), WANTED)
    body = decoded(item)
    assert (set(body), body["type"], body["action"], body["identifiers"]) == (
        {"type", "action", "identifiers", "attributes"},
        *("person", "identify", {"id": "kaasino:007"}),
    )
    assert (item.kind, item.player_id, item.seq, item.unsubscribed) == ("profile", 7, None, False)
    assert item.names == frozenset(body["attributes"])
    assert "unsubscribed" not in body["attributes"]


@pytest.mark.parametrize("status", ["SELF_EXCLUDED", "BANNED", "ACTIVE", "FROZEN", "LOCKED"])
def test_an_excluded_player_is_unsubscribed(status: str) -> None:
    """Whatever excludes (status, tag, cooling off): real booleans, on every identify while it lasts."""
    item = identify(profile(excluded=True, status_raw=status), BRAND, Previous(unsubscribed_by_us=True), WANTED)
    assert (decoded(item)["attributes"]["unsubscribed"], decoded(item)["attributes"]["self_excluded"]) == (True, True)
    assert item.unsubscribed
    assert "unsubscribed" not in item.names


def test_a_player_who_is_pending_is_unsubscribed_and_not_called_excluded() -> None:
    """Not marketable yet, but nobody has excluded them."""
    found = sent(excluded=True, status_raw="PENDING")
    assert found["unsubscribed"] is True
    assert "self_excluded" not in found


def test_lifting_subscribes_again_only_what_we_unsubscribed() -> None:
    """`unsubscribed: false` goes out if an exclusion of ours set it; a person's own opt-out is never touched."""
    excluded = identify(profile(excluded=True), BRAND, Previous(), WANTED)
    before = Previous(excluded.names, excluded.digest, unsubscribed_by_us=excluded.unsubscribed)
    lifted = sent(previous=before)
    assert lifted["unsubscribed"] is False
    assert lifted["self_excluded"] is None
    assert "unsubscribed" not in sent(previous=Previous(excluded.names, excluded.digest, unsubscribed_by_us=False))


def test_names_that_are_gone_are_removed_by_null() -> None:
    """Only what was sent before and is absent now; `unsubscribed` is never removed."""
    previous = Previous(frozenset({"email", "stag", "loyalty", "first_name", "unsubscribed"} - {"unsubscribed"}))
    found = sent(previous=previous, email=None, affiliate_str=None)
    assert {name for name, value in found.items() if value is None} == {"email", "stag", "loyalty"}
    assert found["first_name"] == 'An"a'


def test_the_digest_follows_what_is_known_and_nothing_else() -> None:
    """The same profile has the same digest, whatever was sent before; another value or an exclusion changes it."""
    same = {
        identify(profile(), BRAND, previous, WANTED).digest
        for previous in (Previous(), Previous(names=frozenset({"old"})))
    }
    assert len(same) == 1
    assert identify(profile(phone="+34600000001"), BRAND, Previous(), WANTED).digest not in same
    assert identify(profile(excluded=True), BRAND, Previous(), WANTED).digest not in same


@pytest.mark.parametrize(
    ("brand", "expected"),
    [(None, "1:007"), (Brand(), "1:007"), (BRAND, "kaasino:007"), (Brand(customer_id="{user_ext_id}"), "007")],
)
def test_a_customer_id_is_the_brands_template(brand: Brand | None, expected: str) -> None:
    """Without a brand's configuration: brand, colon, id; leading zeros stay."""
    assert customer_id("1", "007", brand) == expected


def test_an_event_is_exactly_this_shape() -> None:
    """Identifier, name, ULID, unix seconds, and the amount as a decimal number in the player's currency."""
    item = event(stored(), BRAND, "deposit_succeeded")
    body = decoded(item)
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", body.pop("id"))
    assert body == {
        "type": "person",
        "action": "event",
        "identifiers": {"id": "kaasino:007"},
        "name": "deposit_succeeded",
        "timestamp": 1772359198,
        "attributes": {"transaction_id": "d-1", "amount": Decimal("25.5"), "currency": "EUR"},
    }
    assert b'"amount":25.5,' in item.body
    assert (item.kind, item.player_id, item.seq, item.name) == ("event", 7, 11, "deposit_succeeded")


def test_an_event_keeps_its_id_whatever_else_changes() -> None:
    """A resend under another name or with other properties is recognised; another identity is another event."""
    first = decoded(event(stored(), BRAND, "a"))["id"]
    assert decoded(event(stored(amount=Decimal(1), properties={"x": "y"}), None, "b"))["id"] == first
    assert decoded(event(stored(identity=(*IDENTITY[:-1], "deposit_failed")), BRAND, "a"))["id"] != first


@pytest.mark.parametrize(
    ("amount", "literal"),
    [
        ("100.000000000000000000", "100"),
        ("0E-18", "0"),
        ("0.1", "0.1"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("-12.50", "-12.5"),
        ("1234567.891234567891234567", "1234567.891234567891234567"),
        pytest.param(
            *("9999999999999.999999999999999999", "9999999999999.999999999999999999"),
        ),
    ],
)
def test_an_amount_is_written_as_its_exact_number(amount: str, literal: str) -> None:
    """No float, no exponent, no text."""
    assert f'"amount":{literal},'.encode() in event(stored(amount=Decimal(amount)), BRAND, "deposit_confirmed").body


@given(
    text=st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.from_regex(r"[-+ ]?[0-9_]{0,6}[.,]?[0-9]{0,6}(e[-+]?[0-9]{1,2})?[ \n]?", fullmatch=True)
)
@example(text="-0.00")
@example(text="007.10")
@example(text="100")
@example(text="1.")
@example(text="١٢")
def test_an_amount_among_the_properties_is_the_number_that_was_written(text: str) -> None:
    """However it was written, it is the same number, shortest form; what is no number stays the text that it is."""
    body = event(stored(amount=None, properties={"fee": text}), BRAND, "x").body
    try:
        number = Decimal(text)
    except InvalidOperation:
        assert json.loads(body)["attributes"]["fee"] == text
        return
    assert json.loads(body, parse_float=Decimal, parse_int=Decimal)["attributes"]["fee"] == number
    assert re.search(rb'"fee":-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?,', body)


def test_properties_that_are_amounts_are_numbers_and_the_rest_stays() -> None:
    """Payouts, fees and balances lose their quotes; ids and flags are what they are; nulls are left out."""
    properties = {
        "payout": "7.50",
        "fee": "0",
        "real_balance": "12",
        "bet_id": "5",
        "is_free_bet": True,
        "note": None,
        "größe": "ü",
    }
    found = decoded(event(stored(properties=properties), BRAND, "x"))["attributes"]
    assert found == {
        "transaction_id": "d-1",
        "amount": Decimal("25.5"),
        "currency": "EUR",
        "payout": Decimal("7.50"),
        "fee": 0,
        "real_balance": 12,
        "bet_id": "5",
        "is_free_bet": True,
        "größe": "ü",
    }


def test_an_event_without_an_amount_has_neither_amount_nor_currency() -> None:
    """A self-exclusion is no money."""
    assert decoded(event(stored(amount=None, currency=None), BRAND, "self_exclusion_set"))["attributes"] == {
        "transaction_id": "d-1"
    }


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("recipient", "source_recipient"),
        ("from_address", "source_from_address"),
        ("reply_to", "source_reply_to"),
        ("_update", "source_update"),
        ("__x", "source_x"),
        ("reason", "reason"),
    ],
)
def test_names_that_would_redirect_a_campaign_are_renamed(name: str, renamed: str) -> None:
    """A column of the operator's must not decide who gets the mail."""
    assert set(decoded(event(stored(properties={name: "eve@example.com"}), BRAND, "x"))["attributes"]) == {
        *("transaction_id", "amount", "currency"),
        renamed,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fee", "n/a"),
        ("real_balance", ""),
        pytest.param("payout", "NaN"),
        pytest.param("fee", "Infinity"),
    ],
)
def test_a_text_under_the_name_of_an_amount_stays_a_text(name: str, text: str) -> None:
    """An extra column may be called `fee` and hold anything: it neither stops the lane nor spoils the request."""
    assert decoded(event(stored(properties={name: text}), BRAND, "x"))["attributes"][name] == text


@pytest.mark.parametrize("name", ["amount", "currency", "transaction_id"])
def test_an_extra_column_does_not_replace_the_events_own(name: str) -> None:
    """amount, currency and transaction_id are the event's."""
    assert decoded(event(stored(properties={name: "other"}), BRAND, "x"))["attributes"][name] != "other"


def test_a_balance_goes_out_as_its_currency_and_a_text() -> None:
    """Total before real money alone; an event that tells of none gives none; its id is its own."""
    told = stored(properties={"real_balance": "20.04", "total_balance": "25"})
    item = balance(told, BRAND, "player_balance")
    assert item is not None
    assert decoded(item)["attributes"] == {"EUR": "25"}
    assert decoded(item)["id"] != decoded(event(told, BRAND, "deposit_confirmed"))["id"]
    assert decoded(balance(stored(properties={"real_balance": "20.04"}), BRAND, "b") or item)["attributes"] == {
        "EUR": "20.04"
    }
    assert balance(stored(), BRAND, "player_balance") is None


def test_what_one_event_became_is_never_parted() -> None:
    """An event and its balance are settled together: between two batches a crash would lose one of them."""
    items = [
        item
        for number in range(4000)
        for item in (
            event(stored(seq=number), BRAND, "deposit_confirmed"),
            balance(stored(seq=number, properties={"real_balance": "1"}), BRAND, "player_balance"),
        )
        if item is not None
    ]
    batches = pack(items)
    assert len(batches) > 1
    assert [item for batch in batches for item in batch] == items
    ends = [{item.seq for item in batch} for batch in batches]
    assert all(not one & other for one, other in itertools.pairwise(ends))


def test_a_login_tells_its_time() -> None:
    """Under the name that the operator's workspace knows."""
    found = decoded(event(stored(name="login", amount=None), BRAND, "login_activity_status"))
    assert found["attributes"]["last_log_in"] == found["timestamp"]
