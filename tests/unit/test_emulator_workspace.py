"""The emulated workspace, by its own clock: identities, removals, duplicates, suppression, time. No HTTP here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from connector.emulators import ledger, reads
from connector.emulators.options import Json, Options
from connector.emulators.workspace import Workspace

if TYPE_CHECKING:
    from connector.emulators.people import Person

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
    workspace.accept(
        [identify({"id": "1"}, {"age": 30, "vip": True, "balance": 12.5, "city": "Riga", "tags": ["a", 1]})]
    )
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
def test_an_email_changes_by_id_as_the_workspace_allows(workspace: Workspace, allowed: bool, expected: str) -> None:
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
    workspace.accept(
        [identify({"id": "1"}, {"email": "p@example.com"}), identify({"id": "2"}, {"email": "p@example.com"})]
    )
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
def test_an_event_older_than_72_hours_triggers_nothing(workspace: Workspace, stamp: float, can_trigger: bool) -> None:
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
