"""The emulated workspace, by its own clock: identities, removals, duplicates, suppression, time. No HTTP here."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.emulators import ledger, reads
from connector.emulators.faults import Window
from connector.emulators.options import Faults, Json, Options, change
from connector.emulators.people import Person
from connector.emulators.webhooks import Settings, pause, signature
from connector.emulators.workspace import Workspace

ULID = "01KDVDNA00RDWPKPGF5Y6A5GTE"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOON_SECONDS = int(NOON.timestamp())


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workspace(clock: Clock) -> Workspace:
    return Workspace(now=clock)


def identify(identifiers: Json, attributes: Json | None = None, **rest: Any) -> Json:
    return {"type": "person", "action": "identify", "identifiers": identifiers, "attributes": attributes or {}, **rest}


def event(identifiers: Json, name: str = "deposit_confirmed", **rest: Any) -> Json:
    return {"type": "person", "action": "event", "identifiers": identifiers, "name": name, **rest}


def act(action: str, identifiers: Json, **rest: Any) -> Json:
    return {"type": "person", "action": action, "identifiers": identifiers, **rest}


def known(workspace: Workspace, kind: str, value: str) -> Person:
    person = workspace.find(kind, value)
    assert person is not None
    return person


def outcomes(workspace: Workspace) -> Json:
    counts: Json = workspace.counts()["outcomes"]
    return counts


def activity_types(workspace: Workspace) -> list[str]:
    with workspace.reading() as state:
        return [entry.type for entry in state.ledger.activities]


def events(workspace: Workspace) -> list[ledger.Event]:
    with workspace.reading() as state:
        return list(state.ledger.events)


# Attributes ---------------------------------------------------------------------------------------------------------


def test_every_value_reads_back_as_text(workspace: Workspace) -> None:
    """Numbers, booleans and structures become text; text stays."""
    workspace.accept([identify({"id": "1"}, {"age": 30, "vip": True, "balance": 12.5, "city": "Riga", "tags": ["a", 1]})])
    read = reads.card(known(workspace, "id", "1"))["customer"]["attributes"]
    assert {name: read[name] for name in ("age", "vip", "balance", "city", "tags")} == {
        "age": "30",
        "vip": "true",
        "balance": "12.5",
        "city": "Riga",
        "tags": '["a",1]',
    }


def test_null_removes_an_attribute_and_its_timestamp_and_leaves_the_others(workspace: Workspace) -> None:
    """A partial update keeps what it does not name."""
    workspace.accept([identify({"id": "1"}, {"email": "p@example.com", "age": 30, "city": "Riga"})])
    workspace.accept([identify({"id": "1"}, {"email": None, "age": None})])
    person = known(workspace, "id", "1")
    assert set(person.attributes) == {"id", "city"}
    assert set(person.timestamps) == {"cio_id", "id", "city"}
    assert workspace.find("email", "p@example.com") is None


def test_only_a_real_change_moves_an_attributes_timestamp(workspace: Workspace, clock: Clock) -> None:
    """The same value sent again, even as another JSON type, is no change."""
    workspace.accept([identify({"id": "1"}, {"age": 30, "city": "Riga"})])
    clock.forward(60)
    workspace.accept([identify({"id": "1"}, {"age": "30", "city": "Oslo"})])
    stamps = known(workspace, "id", "1").timestamps
    assert (stamps["age"], stamps["city"]) == (NOON_SECONDS, NOON_SECONDS + 60)
    assert activity_types(workspace).count("attribute_change") == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), ("TRUE", True), ("tRue", True), (1, True), ("1", True), (False, False), ("yes", False), (2, False)],
)
def test_unsubscribed_is_a_real_boolean_beside_its_text(workspace: Workspace, value: object, expected: bool) -> None:
    """True in any case and 1 mean unsubscribed, anything else does not."""
    workspace.accept([identify({"id": "1"}, {"unsubscribed": value})])
    assert reads.card(known(workspace, "id", "1"))["customer"]["unsubscribed"] is expected


def test_a_topic_in_dot_notation_changes_alone(workspace: Workspace) -> None:
    """Other topics keep their preference; null takes one back to the default."""
    topics = {"topics": {"topic_1": True, "topic_2": False, "topic_3": True}}
    workspace.accept([identify({"id": "1"}, {"cio_subscription_preferences": topics})])
    workspace.accept(
        [
            identify(
                {"id": "1"},
                {
                    "cio_subscription_preferences.topics.topic_2": True,
                    "cio_subscription_preferences.topics.topic_3": None,
                },
            )
        ]
    )
    stored = known(workspace, "id", "1").attributes["cio_subscription_preferences"]
    assert stored == '{"topics":{"topic_1":true,"topic_2":true}}'


def test_a_profile_holds_300_attributes_and_no_more(workspace: Workspace) -> None:
    """What comes beyond is dropped with an activity, the rest of the request applies."""
    workspace.accept([identify({"id": "1"}, {f"a{n}": n for n in range(299)})])
    workspace.accept([identify({"id": "1"}, {"a0": "new", "one_more": 1})])
    person = known(workspace, "id", "1")
    assert len(person.attributes) == 300
    assert (person.attributes["a0"], "one_more" in person.attributes) == ("new", False)
    assert "failed_attribute_change" in activity_types(workspace)


def test_an_empty_string_stays_unless_the_knob_says_it_removes(workspace: Workspace) -> None:
    """The live behaviour for people is not documented, so it is a knob."""
    workspace.accept([identify({"id": "1"}, {"city": ""})])
    assert known(workspace, "id", "1").attributes["city"] == ""
    workspace.configure({"empty_string_removes": True})
    workspace.accept([identify({"id": "1"}, {"city": ""})])
    assert "city" not in known(workspace, "id", "1").attributes


# Identity -----------------------------------------------------------------------------------------------------------


def test_a_new_id_with_the_email_of_an_email_only_profile_claims_it(workspace: Workspace) -> None:
    """The profile gets the id and keeps its cio_id."""
    workspace.accept([identify({"email": "p@example.com"}, {"city": "Riga"})])
    before = known(workspace, "email", "p@example.com").cio_id
    workspace.accept([identify({"id": "1"}, {"email": "P@example.com"})])
    person = known(workspace, "id", "1")
    assert (person.cio_id, person.attributes["city"], workspace.counts()["people"]) == (before, "Riga", 1)


def test_an_email_owned_by_another_profile_is_dropped_alone(workspace: Workspace) -> None:
    """The other attributes apply, and the activity log says what failed."""
    workspace.accept([identify({"id": "b"}, {"email": "p@example.com"})])
    workspace.accept([identify({"id": "a"}, {"email": "P@EXAMPLE.com", "city": "Riga"})])
    person = known(workspace, "id", "a")
    assert person.attributes == {"id": "a", "city": "Riga"}
    assert known(workspace, "email", "p@example.com").attributes["id"] == "b"
    failed = next(entry for entry in person.activities if entry.type == "failed_attribute_change")
    shown = reads.activity_row(failed)
    assert shown["data"]["email"] == {"from": "", "to": "P@EXAMPLE.com"}
    assert shown["data"]["reason"] == "The identifier is already associated with a different profile."


def test_an_id_that_is_set_changes_only_by_cio_id(workspace: Workspace) -> None:
    """Addressed by email the new id is refused, by cio_id it is taken."""
    workspace.accept([identify({"id": "1"}, {"email": "p@example.com"})])
    workspace.accept([identify({"email": "p@example.com"}, {"id": "2"})])
    assert workspace.find("id", "2") is None
    workspace.accept([identify({"cio_id": known(workspace, "id", "1").cio_id}, {"id": "2"})])
    assert workspace.find("id", "1") is None
    assert known(workspace, "id", "2").attributes["email"] == "p@example.com"


@pytest.mark.parametrize(("allowed", "expected"), [(True, "new@example.com"), (False, "old@example.com")])
def test_an_email_changes_by_id_as_the_workspace_allows(
    workspace: Workspace, allowed: bool, expected: str
) -> None:
    """Without the workspace's setting the change is refused."""
    workspace.configure({"email_change_by_id": allowed})
    workspace.accept([identify({"id": "1"}, {"email": "old@example.com"})])
    workspace.accept([identify({"id": "1"}, {"email": "new@example.com"})])
    assert known(workspace, "id", "1").attributes["email"] == expected


def test_an_unknown_cio_id_drops_the_request(workspace: Workspace) -> None:
    """It is accepted, and nothing comes of it."""
    assert workspace.accept([identify({"cio_id": "a3999999"}, {"city": "Riga"}), event({"cio_id": "a3999999"})]) == []
    assert (workspace.counts()["people"], workspace.counts()["events"]) == (0, 0)
    assert outcomes(workspace)["dropped_unknown_cio_id"] == 2


def test_update_only_creates_nobody(workspace: Workspace) -> None:
    """A failed attribute change is logged instead; somebody known is updated."""
    workspace.accept([identify({"id": "1"}, {"_update": True, "city": "Riga"})])
    assert (workspace.counts()["people"], activity_types(workspace)) == (0, ["failed_attribute_change"])
    workspace.accept([identify({"id": "1"}), identify({"id": "1"}, {"_update": True, "city": "Riga"})])
    assert known(workspace, "id", "1").attributes == {"id": "1", "city": "Riga"}


def test_an_event_for_an_unknown_id_makes_a_bare_profile(workspace: Workspace) -> None:
    """It has nothing but its identifier."""
    workspace.accept([event({"id": "1"})])
    assert known(workspace, "id", "1").attributes == {"id": "1"}


def test_an_id_only_workspace_shares_emails_and_knows_no_email_identifier() -> None:
    """Two people may have one email; addressing by it is refused."""
    workspace = Workspace(Options(id_only=True))
    workspace.accept([identify({"id": "1"}, {"email": "p@example.com"}), identify({"id": "2"}, {"email": "p@example.com"})])
    assert known(workspace, "id", "2").attributes["email"] == "p@example.com"
    ((place, why),) = workspace.accept([identify({"email": "p@example.com"})])
    assert (place, why.field) == (0, "identifiers.email")


def test_delete_then_identify_starts_a_new_profile(workspace: Workspace) -> None:
    """Nothing of the old one is left, its activities are marked."""
    workspace.accept([identify({"id": "1"}, {"city": "Riga"})])
    old = known(workspace, "id", "1").cio_id
    workspace.accept([act("delete", {"id": "1"}), act("delete", {"id": "unknown"}), identify({"id": "1"})])
    person = known(workspace, "id", "1")
    assert person.cio_id != old
    assert person.attributes == {"id": "1"}
    with workspace.reading() as state:
        assert [entry.deleted for entry in state.ledger.activities if entry.cio_id == old] == [True]


def test_merge_fills_what_the_primary_lacks_and_deletes_the_secondary(workspace: Workspace) -> None:
    """Attributes that are set win; the freed email goes over; an unknown primary means nothing happens."""
    workspace.accept(
        [
            identify({"id": "1"}, {"city": "Riga"}),
            identify({"email": "old@example.com"}, {"city": "Oslo", "age": 30}),
            {"type": "person", "action": "merge", "primary": {"id": "9"}, "secondary": {"id": "1"}},
            {"type": "person", "action": "merge", "primary": {"id": "1"}, "secondary": {"email": "old@example.com"}},
        ]
    )
    person = known(workspace, "email", "old@example.com")
    assert person.attributes == {"id": "1", "city": "Riga", "age": "30", "email": "old@example.com"}
    assert workspace.counts()["people"] == 1


def test_relationships_come_from_both_sides_and_go_with_the_object(workspace: Workspace) -> None:
    """Null and the empty string remove a relationship's attribute."""
    brand = {"object_type_id": "1", "object_id": "brand1"}
    link = [{"identifiers": brand, "relationship_attributes": {"role": "player", "since": 1}}]
    workspace.accept(
        [
            {**identify({"id": "1"}), "cio_relationships": link},
            {
                "type": "object",
                "action": "add_relationships",
                "identifiers": brand,
                "cio_relationships": [{"identifiers": {"id": "1"}, "relationship_attributes": {"since": ""}}],
            },
        ]
    )
    assert known(workspace, "id", "1").relationships == {"1": {"brand1": {"role": "player"}}}
    workspace.accept([{"type": "object", "action": "delete", "identifiers": brand}])
    assert known(workspace, "id", "1").relationships == {"1": {}}


# Suppression --------------------------------------------------------------------------------------------------------


def test_suppression_deletes_and_blocks_id_and_email_together(workspace: Workspace) -> None:
    """Later writes to either are accepted and ignored, until one of them is freed."""
    workspace.accept([identify({"id": "1"}, {"email": "p@example.com"}), act("suppress", {"id": "1"})])
    assert workspace.accept([identify({"id": "1"}), event({"email": "P@example.com"})]) == []
    assert (workspace.counts()["people"], workspace.counts()["events"]) == (0, 0)
    assert outcomes(workspace)["ignored_suppressed"] == 2
    workspace.accept([act("unsuppress", {"email": "p@example.com"}), identify({"id": "1"}, {"city": "Riga"})])
    assert known(workspace, "id", "1").attributes == {"id": "1", "city": "Riga"}


def test_somebody_unknown_can_be_suppressed_in_advance(workspace: Workspace) -> None:
    """Then the profile never comes into being."""
    workspace.accept([act("suppress", {"id": "1"}), identify({"id": "1"})])
    assert workspace.counts()["people"] == 0


def test_a_suppressed_email_is_not_given_to_another_profile(workspace: Workspace) -> None:
    """The rest of that identify applies."""
    workspace.accept([act("suppress", {"email": "p@example.com"}), identify({"id": "1"}, {"email": "p@example.com", "a": 1})])
    assert known(workspace, "id", "1").attributes == {"id": "1", "a": "1"}


# Events and time ----------------------------------------------------------------------------------------------------


def test_a_repeated_ulid_is_ignored_for_ever_in_either_case(workspace: Workspace, clock: Clock) -> None:
    """For every person and name of the workspace, whatever the rest of the event says."""
    workspace.accept([event({"id": "1"}, id=ULID)])
    clock.forward(400 * 86400)
    workspace.accept([event({"id": "2"}, "other", id=ULID.lower())])
    assert (workspace.counts()["events"], workspace.counts()["duplicates"]) == (1, 1)


def test_a_dedup_window_forgets_after_its_seconds(workspace: Workspace, clock: Clock) -> None:
    """Within the window a repetition is a duplicate, after it a new event."""
    workspace.configure({"dedup_window": 60})
    for _ in range(3):
        workspace.accept([event({"id": "1"}, id=ULID)])
        clock.forward(40)
    assert (workspace.counts()["events"], workspace.counts()["duplicates"]) == (2, 1)


def test_an_id_that_is_no_ulid_does_not_dedup_and_may_be_refused(workspace: Workspace) -> None:
    """Accepting without dedup is the default."""
    workspace.accept([event({"id": "1"}, id="deposit-1"), event({"id": "1"}, id="deposit-1"), event({"id": "1"})])
    assert workspace.counts()["events"] == 3
    workspace.configure({"malformed_event_id": "reject"})
    ((_, why),) = workspace.accept([event({"id": "1"}, id="deposit-1"), event({"id": "1"})])
    assert why.field == "id"


@pytest.mark.parametrize("stamp", [None, "2026-01-01T00:00:00Z", "1767225600", True, -5, [1], {}])
def test_what_is_no_unix_timestamp_becomes_now(workspace: Workspace, stamp: object) -> None:
    """Text, ISO dates and booleans are replaced by the instant of receipt."""
    workspace.accept([event({"id": "1"}, timestamp=stamp)])
    assert events(workspace)[0].timestamp == NOON_SECONDS


@pytest.mark.parametrize(
    ("stamp", "can_trigger"),
    [
        (NOON_SECONDS - 72 * 3600, True),
        (NOON_SECONDS - 72 * 3600 - 1, False),
        (NOON_SECONDS * 1000, True),
        (NOON_SECONDS - 0.5, True),
    ],
)
def test_an_event_older_than_72_hours_triggers_nothing(
    workspace: Workspace, stamp: float, can_trigger: bool
) -> None:
    """Milliseconds are kept, and lie in the far future."""
    workspace.accept([event({"id": "1"}, timestamp=stamp)])
    assert (events(workspace)[0].timestamp, events(workspace)[0].can_trigger) == (int(stamp), can_trigger)


def test_a_stale_identify_is_skipped_with_an_activity(workspace: Workspace, clock: Clock) -> None:
    """Older than the last edit means no change; equal or newer applies; the knob turns the rule off."""
    workspace.accept([identify({"id": "1"}, {"city": "Riga"})])
    clock.forward(10)
    workspace.accept([identify({"id": "1"}, {"city": "Oslo"}, timestamp=NOON_SECONDS - 1)])
    assert known(workspace, "id", "1").attributes["city"] == "Riga"
    assert activity_types(workspace)[-1] == "skipped_update"
    workspace.accept([identify({"id": "1"}, {"city": "Rome"}, timestamp=NOON_SECONDS)])
    assert known(workspace, "id", "1").attributes["city"] == "Rome"
    workspace.configure({"skip_stale_identify": False})
    workspace.accept([identify({"id": "1"}, {"city": "Bern"}, timestamp=1)])
    assert known(workspace, "id", "1").attributes["city"] == "Bern"


def test_identifies_sent_in_one_go_are_ordered_by_their_timestamps(workspace: Workspace) -> None:
    """The later of two wins, whichever comes first."""
    workspace.accept(
        [
            identify({"id": "1"}, {"city": "second"}, timestamp=NOON_SECONDS + 2),
            identify({"id": "1"}, {"city": "first"}, timestamp=NOON_SECONDS + 1),
        ]
    )
    assert known(workspace, "id", "1").attributes["city"] == "second"


def test_anonymous_events_find_their_person_within_30_days(workspace: Workspace, clock: Clock) -> None:
    """Older ones stay anonymous."""
    workspace.accept([event({"anonymous_id": "anon"}, "old")])
    clock.forward(20 * 86400)
    workspace.accept([event({"anonymous_id": "anon"}, "young")])
    clock.forward(20 * 86400)
    workspace.accept([identify({"id": "1"}, {"anonymous_id": "anon"})])
    assert {entry.name: entry.customer_id for entry in events(workspace)} == {"old": None, "young": "1"}


def test_writes_show_after_the_visibility_delay_and_in_order(clock: Clock) -> None:
    """Until then readers see the state of before; settling makes all of it visible at once."""
    workspace = Workspace(Options(visibility_delay=10), now=clock)
    workspace.accept([identify({"id": "1"}, {"city": "Riga"})])
    clock.forward(9)
    workspace.accept([identify({"id": "1"}, {"city": "Oslo"})])
    assert (workspace.find("id", "1"), workspace.counts()["pending"]) == (None, 2)
    clock.forward(1)
    assert known(workspace, "id", "1").attributes["city"] == "Riga"
    assert workspace.settle() == 1
    person = known(workspace, "id", "1")
    assert (person.attributes["city"], person.timestamps["city"]) == ("Oslo", NOON_SECONDS + 9)


def test_activities_of_a_person_are_bounded_and_counters_are_not() -> None:
    """Forgetting events for the listing forgets neither ids nor counts."""
    workspace = Workspace(Options(activities_per_person=5, forget_events=3))
    items = [event({"id": "1"}, id=ledger.ulid(NOON_SECONDS, str(n))) for n in range(10)]
    workspace.accept(items)
    workspace.accept(items)
    assert len(known(workspace, "id", "1").activities) == 5
    assert [entry.seq for entry in events(workspace)] == [8, 9, 10]
    assert (workspace.counts()["events"], workspace.counts()["duplicates"]) == (10, 10)


# Refusals, faults, webhooks: the pure parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "reason", "field"),
    [
        ("text", "invalid", "batch"),
        ({"action": "identify"}, "required", "type"),
        ({"type": "robot", "action": "identify"}, "invalid", "type"),
        ({"type": "person"}, "required", "action"),
        ({"type": "person", "action": ["identify"]}, "invalid", "action"),
        ({"type": "object", "action": "suppress"}, "invalid", "action"),
        (act("identify", {}), "invalid", "identifiers"),
        ({"type": "person", "action": "identify"}, "required", "identifiers"),
        (act("identify", {"id": "1", "email": "p@example.com"}), "invalid", "identifiers"),
        (act("identify", {"id": None}), "invalid", "identifiers.id"),
        (act("identify", {"id": 1}), "invalid", "identifiers.id"),
        (act("identify", {"id": " "}), "invalid", "identifiers.id"),
        (act("identify", {"id": "é" * 76}), "invalid", "identifiers.id"),
        (act("identify", {"nick": "1"}), "invalid", "identifiers.nick"),
        (act("identify", {"anonymous_id": "1"}), "invalid", "identifiers.anonymous_id"),
        (identify({"id": "1"}, {"n" * 151: 1}), "invalid", "attributes"),
        (identify({"id": "1"}, {"n": "é" * 501}), "invalid", "attributes.n"),
        (identify({"id": "1"}, {f"a{n}": 1 for n in range(301)}), "invalid", "attributes"),
        (act("identify", {"id": "1"}, attributes=[]), "invalid", "attributes"),
        (act("event", {"id": "1"}), "required", "name"),
        (event({"id": "1"}, " "), "invalid", "name"),
        (event({"id": "1"}, "n" * 101), "invalid", "name"),
        (event({"id": "1"}, attributes="x"), "invalid", "attributes"),
        (act("merge", {"id": "1"}), "invalid", "identifiers"),
        ({"type": "person", "action": "merge", "primary": {"id": "1"}}, "required", "secondary"),
        (act("add_relationships", {"id": "1"}), "required", "cio_relationships"),
        (act("add_device", {"id": "1"}), "required", "device"),
        (act("add_device", {"id": "1"}, device={"token": "t", "platform": "telex"}), "invalid", "device.platform"),
        ({"type": "object", "action": "identify", "identifiers": {"object_id": "1"}}, "required", "identifiers.object_type_id"),
    ],
)
def test_a_malformed_operation_is_refused_with_its_field(
    workspace: Workspace, item: object, reason: str, field: str
) -> None:
    """Nothing of it is applied, and the operation beside it is."""
    ((place, why),) = workspace.accept([identify({"id": "good"}), item])
    assert (place, why.reason, why.field) == (1, reason, field)
    assert workspace.counts()["people"] == 1


@pytest.mark.parametrize(
    "item",
    [
        act("identify", {"id": "é" * 75}),
        identify({"id": "1"}, {"n" * 150: "é" * 500}),
        event({"id": "1"}, "n" * 100),
        event({"phone": "+37120000000"}),
        {"type": "delivery", "action": "event", "identifiers": {"id": "d1"}, "name": "opened", "attributes": {}},
    ],
)
def test_the_limits_themselves_are_accepted(workspace: Workspace, item: Json) -> None:
    """Limits count UTF-8 bytes, and are allowed to be reached."""
    assert workspace.accept([item]) == []


def test_a_rate_window_lets_n_requests_through_each_second() -> None:
    """The wait it reports is the rest of the window; a rate below one stretches it."""
    window = Window()
    assert [window.wait(2, at=100 + n / 10) > 0 for n in range(4)] == [False, False, True, True]
    assert window.wait(2, at=100.25) == pytest.approx(0.75)
    assert window.wait(2, at=101) == 0
    slow = Window()
    assert [slow.wait(0.5, at=at) > 0 for at in (0, 1.9, 2.0)] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "unknown setting colour"),
        ({"rate": 0}, "rate must be"),
        ({"rate": True}, "rate must be"),
        ({"error_rate": 1.5}, "error_rate must be"),
        ({"redirect_status": 303}, "redirect_status must be one of"),
        ({"script": ["explode"]}, "script must be"),
        ({"targets": ["moon"]}, "targets must be one of"),
        ({"error_statuses": ["500"]}, "error_statuses must be"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_and_nothing_changes(changes: Json, message: str) -> None:
    """All changes are checked before the first is made."""
    faults = Faults()
    with pytest.raises(ValueError, match=message):
        change(faults, {"slow": 3, **changes})
    assert asdict(faults) == asdict(Faults())


def test_the_webhook_signature_matches_the_published_scheme() -> None:
    """HMAC-SHA256 over version, timestamp and raw body; vector computed independently."""
    expected = "d5eec9708ced5b3bff838fcea22dc7f3645f950a4aeda92d110c8515aaeec7a9"
    assert signature("key", timestamp=1613063089, body=b'{"event_id":"x"}') == expected


def test_webhook_retries_back_off_and_some_answers_wait_longer_first() -> None:
    """The pause doubles up to its limit."""
    waits = Settings(retry_after=1, retry_limit=5, long_wait=3)
    assert [pause(waits, attempt=n, status=None) for n in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]
    assert [pause(waits, attempt=n, status=503) for n in (1, 2)] == [1, 2]
    assert [pause(waits, attempt=n, status=500) for n in (1, 2)] == [3, 5]


def test_a_change_of_subscription_raises_a_webhook(workspace: Workspace) -> None:
    """Once for each real change, with the person's identifiers."""
    raised: list[Json] = []
    workspace.listen(raised.append)
    for value in (False, True, "true", 1, False):
        workspace.accept([identify({"id": "1"}, {"unsubscribed": value})])
    assert [body["metric"] for body in raised] == ["unsubscribed", "subscribed"]
    assert raised[0]["data"]["identifiers"]["id"] == "1"
    assert len({body["event_id"] for body in raised}) == 2


def test_a_derived_ulid_matches_the_reference_vector() -> None:
    """Crockford digits, most significant first, time before hash."""
    assert ledger.ulid(1767225600, "casino1|deposit|987654") == ULID
    assert ledger.is_ulid(ULID)
    assert not any(ledger.is_ulid(value) for value in ("8" + ULID[1:], ULID[:-1], ULID[:-1] + "U", 1, None))


# Properties ---------------------------------------------------------------------------------------------------------

_addresses = st.one_of(
    st.sampled_from(["1", "2", "3"]).map(lambda value: {"id": value}),
    st.sampled_from(["a@example.com", "A@example.com", "b@example.com"]).map(lambda value: {"email": value}),
)
_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
)
_attributes = st.dictionaries(
    st.sampled_from(["city", "age", "vip", "email", "id", "unsubscribed", "cio_subscription_preferences"]), _values, max_size=4
)
_stamps = st.one_of(st.none(), st.integers(min_value=NOON_SECONDS - 5, max_value=NOON_SECONDS + 5))
_operations = st.one_of(
    st.builds(lambda who, what, at: identify(who, what, timestamp=at), _addresses, _attributes, _stamps),
    st.builds(lambda who: act("delete", who), _addresses),
    st.builds(lambda who: act("suppress", who), _addresses),
    st.builds(lambda who: act("unsuppress", who), _addresses),
    st.builds(lambda who: event(who), _addresses),
    st.builds(
        lambda one, two: {"type": "person", "action": "merge", "primary": one, "secondary": two}, _addresses, _addresses
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_operations, max_size=25))
def test_any_sequence_of_operations_leaves_text_and_a_true_index(items: list[Json]) -> None:
    """All attributes read as text, every identifier finds its bearer, and nobody suppressed has a profile."""
    workspace = Workspace(now=Clock())
    assert workspace.accept(items) == []
    with workspace.reading() as state:
        people = state.people
        for person in people.by_cio_id.values():
            read = reads.card(person)["customer"]
            assert all(isinstance(value, str) for value in read["attributes"].values())
            assert isinstance(read["unsubscribed"], bool)
            assert set(person.timestamps) == set(person.attributes) | {"cio_id"}
            for kind in people.kinds:
                if kind in person.attributes:
                    assert people.find(kind, person.attributes[kind]) is person
                    assert not people.is_suppressed(kind, person.attributes[kind])
        indexed = sum(len(index) for index in people.by_kind.values())
        assert indexed == sum(kind in person.attributes for person in people.by_cio_id.values() for kind in people.kinds)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_addresses, st.integers(0, 8)), max_size=20))
def test_applying_any_list_of_events_twice_equals_applying_it_once(drawn: list[tuple[Json, int]]) -> None:
    """The second time every event is a duplicate, and the people are the same."""
    items = [event(who, id=ledger.ulid(NOON_SECONDS, str(key)), timestamp=NOON_SECONDS) for who, key in drawn]
    once, twice = Workspace(now=Clock()), Workspace(now=Clock())
    once.accept(items)
    twice.accept(items)
    twice.accept(items)
    assert [asdict(entry) for entry in events(once)] == [asdict(entry) for entry in events(twice)]
    assert once.counts()["people"] == twice.counts()["people"]
    assert twice.counts()["duplicates"] == once.counts()["duplicates"] + len(items)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_operations, st.sampled_from([None, {}, {"type": "person"}, event({"id": ""})])), max_size=20))
def test_accepted_and_refused_items_add_up(items: list[Any]) -> None:
    """Every refused item is named once, by its place; the others count as accepted."""
    workspace = Workspace(now=Clock())
    places = [place for place, _ in workspace.accept(items)]
    counts = workspace.counts()
    assert counts["accepted"] + counts["refused"] == len(items)
    assert places == sorted(set(places))
    assert counts["refused"] == len(places)
