"""Who may be marketed to, and which events a change of a profile means."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from connector.event import EVENTS, NAMES
from connector.player import BEFORE, STATUSES, MarketingRules, changes, eligible, ucrm_status

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES: Final = settings(max_examples=60, deadline=None)
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


def known(
    *, status: str | None = "active", kyc: str | None = None, stub: bool = False, login: datetime | None = None
) -> pl.DataFrame:
    return pl.DataFrame([("kaasino", "007", status, kyc, stub, login, None)], schema=BEFORE, orient="row")


def after(profiles: Callable[..., pl.DataFrame], step: int = 0, **state: Any) -> pl.DataFrame:
    moment = NOON + timedelta(seconds=step)
    return profiles(
        {"source_updated_at": moment, "cursor": f"{moment:%Y-%m-%d %H:%M:%S}", "registered_at": NOON, **state}
    )


def events(before: pl.DataFrame, now: pl.DataFrame, *, live_since: datetime | None = None) -> list[tuple[str, str]]:
    found = changes(before, now, live_since=pl.lit(live_since, dtype=pl.Datetime("us", "UTC")))
    assert dict(found.schema) == dict(EVENTS)
    return list(zip(found["name"], found["key"], strict=True))


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("ACTIVE", "active"),
        ("APPROVED", "active"),
        ("PENDING", "active"),
        ("SELF_EXCLUDED", "self_excluded"),
        *((raw, "banned") for raw in ("BANNED", "BLOCKED", "SUSPENDED", "LOCKED", "DEACTIVATED")),
        *((raw, "banned") for raw in ("FROZEN", "", "active")),
    ],
)
def test_every_operator_status_has_a_canonical_one(raw: str, status: str) -> None:
    """The nine statuses of the guide are mapped; anything else must not be messaged."""
    assert pl.DataFrame({"raw": [raw]}).select(ucrm_status(pl.col("raw"))).item() == status


@pytest.mark.parametrize("raw", [*STATUSES, "FROZEN"])
def test_only_active_players_are_eligible_by_default(raw: str, profiles: Callable[..., pl.DataFrame]) -> None:
    """By default only ACTIVE is eligible; APPROVED is opt-in."""
    frame = profiles({"status_raw": raw})
    assert frame.select(eligible(MarketingRules(), unreadable=pl.lit(value=False))).item() is (raw == "ACTIVE")
    opted = MarketingRules(statuses=frozenset({"ACTIVE", "APPROVED"}))
    assert frame.select(eligible(opted, unreadable=pl.lit(value=False))).item() is (raw in {"ACTIVE", "APPROVED"})


@pytest.mark.parametrize(
    ("tags", "groups", "unreadable", "allowed"),
    [
        (None, None, False, True),
        ("[]", '["00001"]', False, True),
        ('["vip","SE"]', None, False, False),
        (None, '["00011"]', False, False),
        ('["se"]', '["11"]', False, True),
        ('["VIP"]', None, True, False),
        (None, None, True, False),
    ],
)
def test_an_excluding_tag_or_group_or_what_cannot_be_read_stops_marketing(
    tags: str | None, groups: str | None, unreadable: bool, allowed: bool, profiles: Callable[..., pl.DataFrame]
) -> None:
    """Tags and groups are compared as written; what may exclude and cannot be read does."""
    rules = MarketingRules(excluded_tags=frozenset({"SE", "underage"}), excluded_groups=frozenset({"00011", "00012"}))
    frame = profiles({"tags": tags, "groups": groups})
    assert frame.select(eligible(rules, unreadable=pl.lit(value=unreadable))).item() is allowed


@pytest.mark.parametrize(
    ("before", "live_since", "expected"),
    [
        (None, NOON - timedelta(seconds=1), ["signup"]),
        (None, NOON, []),
        (None, NOON + timedelta(days=1), []),
        (None, None, []),
        ("stub", NOON - timedelta(seconds=1), ["signup"]),
        ("player", NOON - timedelta(seconds=1), []),
    ],
)
def test_a_signup_is_a_live_registration_of_an_unknown_player(
    before: str | None, live_since: datetime | None, expected: list[str], profiles: Callable[..., pl.DataFrame]
) -> None:
    """Only a registration after the live horizon, of a player not known or known by a stub, is a sign-up."""
    frame = pl.DataFrame(schema=BEFORE) if before is None else known(stub=before == "stub")
    assert [name for name, _ in events(frame, after(profiles), live_since=live_since)] == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("active", "self_excluded", "self_exclusion_set"),
        ("banned", "self_excluded", "self_exclusion_set"),
        ("self_excluded", "active", "self_exclusion_lifted"),
        ("self_excluded", "banned", "self_exclusion_lifted"),
        ("active", "banned", None),
        ("active", "active", None),
        ("self_excluded", "self_excluded", None),
    ],
)
def test_self_exclusion_is_an_event_when_it_begins_and_when_it_ends(
    old: str, new: str, expected: str | None, profiles: Callable[..., pl.DataFrame]
) -> None:
    """Set on the way in, lifted on the way out, nothing in between; the key names the player and the update."""
    found = events(known(status=old), after(profiles, status=new))
    assert found == ([] if expected is None else [(expected, "007|2026-03-01 12:00:00")])


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "VERIFIED", "kyc_approved"),
        ("PENDING", "verified", "kyc_approved"),
        ("UNVERIFIED", "Pending", "kyc_submitted"),
        ("PENDING", "REJECTED", "kyc_rejected"),
        ("VERIFIED", "EXPIRED", "kyc_expired"),
        ("PENDING", "psp_trusted_verified", None),
        ("VERIFIED", "VERIFIED", None),
        ("VERIFIED", None, None),
    ],
)
def test_kyc_arriving_at_a_known_state_is_an_event(
    old: str | None, new: str | None, expected: str | None, profiles: Callable[..., pl.DataFrame]
) -> None:
    """A move to a listed KYC status is its event; other values change the profile only."""
    assert [name for name, _ in events(known(kyc=old), after(profiles, kyc_status=new))] == (
        [expected] if expected else []
    )


def test_another_spelling_of_the_same_kyc_status_is_no_event(profiles: Callable[..., pl.DataFrame]) -> None:
    """`verified` after `VERIFIED` is the same status."""
    assert events(known(kyc="VERIFIED"), after(profiles, kyc_status="verified")) == []


@pytest.mark.parametrize(
    ("state", "old", "traits", "expected"),
    [
        ({"kyc_status": "VERIFIED"}, {}, "{}", {"level": "1"}),
        ({"kyc_status": "VERIFIED"}, {}, '{"kyc_level":"3"}', {"level": "3"}),
        ({"kyc_status": "REJECTED"}, {}, "{}", {"level": "1", "reason": "changed by the operator"}),
        ({"status": "active"}, {"status": "self_excluded"}, "{}", {"reason": "changed by the operator"}),
        ({"status": "self_excluded"}, {}, "{}", {}),
    ],
)
def test_profile_events_carry_what_the_schema_requires(
    state: dict[str, str],
    old: dict[str, str],
    traits: str,
    expected: dict[str, str],
    profiles: Callable[..., pl.DataFrame],
) -> None:
    """kyc_* has a level, a rejection and a lifting have a reason."""
    found = changes(known(**old), after(profiles, traits=traits, **state), live_since=pl.lit(None))
    assert found["name"].is_in(NAMES).all()
    assert [json.loads(text) for text in found["properties"]] == [expected]
    assert found["occurred_at"].to_list() == [NOON]


def test_history_gives_no_events(profiles: Callable[..., pl.DataFrame]) -> None:
    """A profile read as history or backfill changes the player and says nothing."""
    now = after(profiles, status="self_excluded", kyc_status="VERIFIED", history=True)
    assert events(known(), now, live_since=NOON - timedelta(days=1)) == []
    assert events(pl.DataFrame(schema=BEFORE), now, live_since=NOON - timedelta(days=1)) == []


def test_players_of_two_brands_are_two_players(profiles: Callable[..., pl.DataFrame]) -> None:
    """The same external id under another brand is unknown."""
    other = after(profiles, status="self_excluded", brand_id="other")
    assert events(known(), other) == []


states = st.tuples(
    st.sampled_from([*STATUSES.values(), "banned"]), st.sampled_from([None, "VERIFIED", "PENDING", "REJECTED", "other"])
)


@EXAMPLES
@given(st.lists(states, min_size=1, max_size=12))
def test_any_sequence_of_states_sets_and_lifts_in_turn(
    profiles: Callable[..., pl.DataFrame], sequence: list[tuple[str, str | None]]
) -> None:
    """Folding states never says set or lifted twice in a row, and a repeated state says nothing at all."""
    before, said = pl.DataFrame(schema=BEFORE), []
    for step, (status, kyc) in enumerate(sequence):
        now = after(profiles, step, status=status, kyc_status=kyc)
        names = [name for name, _ in events(before, now)]
        said += [name for name in names if name.startswith("self_exclusion")]
        before = known(status=status, kyc=kyc)
        assert events(before, after(profiles, step, status=status, kyc_status=kyc)) == []
    assert all(first != second for first, second in itertools.pairwise(said))
    turns = [status == "self_excluded" for status, _ in sequence]
    assert len(said) == sum(first != second for first, second in itertools.pairwise(turns))


NINE: Final = NOON - timedelta(hours=3)


@pytest.mark.parametrize(
    ("before", "login", "expected"),
    [
        ({"login": NINE}, NOON, True),
        ({"login": NOON}, NOON, False),
        ({"login": NOON}, NINE, False),
        ({"login": NINE}, None, False),
        ({}, NOON, True),
        ({}, NINE - timedelta(hours=1), False),
        (None, NOON, True),
        (None, NINE, False),
        ({"stub": True}, NOON, True),
    ],
)
def test_a_login_is_one_that_moved_on(
    before: dict[str, Any] | None, login: datetime | None, expected: bool, profiles: Callable[..., pl.DataFrame]
) -> None:
    """Later than the one known, or, where none is known, after the live horizon: it counts as a session."""
    frame = pl.DataFrame(schema=BEFORE) if before is None else known(**before)
    found = changes(frame, after(profiles, last_login_at=login, registered_at=None), live_since=pl.lit(NINE))
    assert found["name"].to_list() == (["login"] if expected else [])
    if expected:
        assert found.select("occurred_at", "effect", "sign", "key").row(0) == (
            *(NOON, "session", 1),
            "007|2026-03-01T12:00:00.000000Z",
        )


@pytest.mark.parametrize(
    ("until", "said"),
    [(NOON + timedelta(days=1), {"until": "2026-03-02T12:00:00Z"}), (NOON - timedelta(days=1), {}), (None, {})],
)
def test_a_self_exclusion_says_until_when(
    until: datetime | None, said: dict[str, str], profiles: Callable[..., pl.DataFrame]
) -> None:
    """As far as it is known, and not over already."""
    now = after(profiles, status="self_excluded", rg_self_excluded_until=until, registered_at=None)
    (found,) = changes(known(), now, live_since=pl.lit(None, dtype=pl.Datetime("us", "UTC"))).to_dicts()
    assert (found["name"], json.loads(found["properties"])) == ("self_exclusion_set", said)


@pytest.mark.parametrize(
    "rules",
    [MarketingRules(), MarketingRules(frozenset({"ACTIVE", "Ü"}), frozenset({'a"b', "SE"}), frozenset({"00011"}))],
)
def test_rules_are_read_as_they_were_written(rules: MarketingRules) -> None:
    """The store keeps them as a text."""
    assert MarketingRules.read(rules.written()) == rules
