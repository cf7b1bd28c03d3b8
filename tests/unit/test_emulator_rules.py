"""The emulator's pure rules: suppression, refusals, rate windows, signatures; and what holds for any operations."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings, strategies as st

from connector.emulators import ledger, reads, snapshot
from connector.emulators.faults import Window
from connector.emulators.options import Faults, Json, change
from connector.emulators.validation import _ACTIONS
from connector.emulators.webhooks import Settings, pause, signature
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


def events(workspace: Workspace) -> list[ledger.Event]:
    with workspace.reading() as state:
        return list(state.ledger.events)


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
    workspace.accept(
        [act("suppress", {"email": "p@example.com"}), identify({"id": "1"}, {"email": "p@example.com", "a": 1})]
    )
    assert known(workspace, "id", "1").attributes == {"id": "1", "a": "1"}


# Refusals, faults, webhooks -------------------------------------------------------------------------


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
        (
            {"type": "object", "action": "identify", "identifiers": {"object_id": "1"}},
            "required",
            "identifiers.object_type_id",
        ),
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
    st.sampled_from(["city", "age", "vip", "email", "id", "unsubscribed", "cio_subscription_preferences"]),
    _values,
    max_size=4,
)
_stamps = st.one_of(st.none(), st.integers(min_value=NOON_SECONDS - 5, max_value=NOON_SECONDS + 5))
_operations = st.one_of(
    st.builds(lambda who, what, at: identify(who, what, timestamp=at), _addresses, _attributes, _stamps),
    st.builds(lambda who: act("delete", who), _addresses),
    st.builds(lambda who: act("suppress", who), _addresses),
    st.builds(lambda who: act("unsuppress", who), _addresses),
    st.builds(event, _addresses),
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
        assert indexed == sum(
            kind in person.attributes for person in people.by_cio_id.values() for kind in people.kinds
        )


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
@given(
    st.lists(st.one_of(_operations, st.sampled_from([None, {}, {"type": "person"}, event({"id": ""})])), max_size=20)
)
def test_accepted_and_refused_items_add_up(items: list[Any]) -> None:
    """Every refused item is named once, by its place; the others count as accepted."""
    workspace = Workspace(now=Clock())
    places = [place for place, _ in workspace.accept(items)]
    counts = workspace.counts()
    assert counts["accepted"] + counts["refused"] == len(items)
    assert places == sorted(set(places))
    assert counts["refused"] == len(places)


_leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.sampled_from(["1", "a@example.com"])
)
_names = st.sampled_from(
    [
        "id", "email", "cio_id", "anonymous_id", "identifiers", "object_type_id", "object_id", "cio_object_id",
        "relationship_attributes", "token", "platform", "topics", "cio_subscription_preferences.topics.topic_1",
        "cio_subscription_preferences",
    ]
)  # fmt: skip
_branches = st.one_of(_leaves, st.lists(_leaves, max_size=2), st.dictionaries(_names, _leaves, max_size=2))
_json = st.one_of(_branches, st.lists(_branches, max_size=2), st.dictionaries(_names, _branches, max_size=2))
_keys = [
    "identifiers", "attributes", "name", "id", "timestamp", "cio_relationships", "primary", "secondary", "device",
    "anonymous_id",
]  # fmt: skip
_kinds = st.sampled_from([(kind, action) for kind, checks in _ACTIONS.items() for action in checks])
_someone = st.sampled_from([{"id": "1"}, {"email": "a@example.com"}, {"object_type_id": "1", "object_id": "b"}])
_link = st.fixed_dictionaries({"identifiers": _json}, optional={"relationship_attributes": _json})
_odd = st.builds(
    lambda kind, who, links, rest: {
        "type": kind[0], "action": kind[1], "identifiers": who, "name": "n", "cio_relationships": links, **rest,
    },
    _kinds, _someone, st.lists(_link, max_size=2), st.dictionaries(st.sampled_from(_keys), _json, max_size=3),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(_odd, max_size=6))
@example(
    [
        {
            "type": "object",
            "action": "delete_relationships",
            "identifiers": {"object_type_id": "1", "object_id": "b"},
            "cio_relationships": [{"identifiers": {"email": None}}],
        }
    ]
)
def test_no_json_whatever_breaks_the_workspace(items: list[Json]) -> None:
    """Each operation is refused or applied, and the state can be saved and read back the same."""
    workspace, restored = Workspace(now=Clock()), Workspace(now=Clock())
    workspace.accept(items)
    with workspace.reading() as state:
        stored = json.loads(json.dumps(snapshot.dump(state)))
    with restored.reading() as state:
        snapshot.restore(stored, state)
        assert json.loads(json.dumps(snapshot.dump(state))) == stored
