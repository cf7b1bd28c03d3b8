"""The emulated Track API over real HTTP: v2 batches and entities, v1 paths, statuses and bodies."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from connector.emulators import serve
from connector.emulators.options import Json, Options

if TYPE_CHECKING:
    from collections.abc import Iterator

ULID = "01KDVDNA00RDWPKPGF5Y6A5GTE"


@pytest.fixture(scope="module")
def server() -> Iterator[serve.Running]:
    with serve.start() as running:
        yield running


@pytest.fixture
def emulator(server: serve.Running) -> serve.Running:
    server.workspace.configure(asdict(Options()))
    server.workspace.wipe()
    return server


@pytest.fixture
def track(emulator: serve.Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.url, auth=("site", "key"), trust_env=False) as client:
        yield client


def identify(identity: str, **attributes: Any) -> Json:
    return {"type": "person", "action": "identify", "identifiers": {"id": identity}, "attributes": attributes}


def event(identity: str, name: str = "deposit_confirmed", **rest: Any) -> Json:
    return {"type": "person", "action": "event", "identifiers": {"id": identity}, "name": name, **rest}


def attributes(emulator: serve.Running, kind: str, value: str) -> dict[str, str]:
    person = emulator.workspace.find(kind, value)
    assert person is not None
    return person.attributes


# v2 -----------------------------------------------------------------------------------------------------------------


def test_success_is_an_empty_object_and_a_newline(track: httpx.Client) -> None:
    """Batch and entity answer 200, three bytes, JSON in UTF-8."""
    for answer in (
        track.post("/api/v2/batch", json={"batch": [identify("1"), event("1")]}),
        track.post("/api/v2/entity", json=identify("1")),
        track.post("/api/v2/batch", json={"batch": []}),
    ):
        assert (answer.status_code, answer.content) == (200, b"{}\n")
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["content-length"] == "3"


def test_a_batch_with_bad_items_is_accepted_in_part_with_207(track: httpx.Client, emulator: serve.Running) -> None:
    """Errors name the place, reason, field and message; all other items apply."""
    nameless = event("1")
    del nameless["name"]
    answer = track.post("/api/v2/batch", json={"batch": [identify("1"), nameless, event("2"), {"type": "person"}]})
    assert answer.status_code == 207
    assert answer.json()["errors"] == [
        {"batch_index": 1, "reason": "required", "field": "name", "message": "event name must not be blank"},
        {"batch_index": 3, "reason": "required", "field": "action", "message": "action is required"},
    ]
    assert {name: emulator.workspace.counts()[name] for name in ("accepted", "refused", "people", "events")} == {
        "accepted": 2,
        "refused": 2,
        "people": 2,
        "events": 1,
    }


def test_partial_errors_may_come_with_200_and_without_a_place(track: httpx.Client, emulator: serve.Running) -> None:
    """Both are knobs, for clients that look at the status only."""
    emulator.workspace.configure({"partial_status": 200, "batch_index": False})
    answer = track.post("/api/v2/batch", json={"batch": [identify("1"), event("1", " ")]})
    assert answer.status_code == 200
    assert answer.json() == {
        "errors": [{"reason": "invalid", "field": "name", "message": "event name must not be blank"}]
    }


def test_a_bad_entity_is_refused_with_400(track: httpx.Client) -> None:
    """One operation has no parts: its errors have no place."""
    answer = track.post("/api/v2/entity", json=event("", "x"))
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == ["identifiers.id"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"batch":{}}',
        b'{"batch":null}',
        b"\xff",
        b'{"batch":[{"a":NaN}]}',
        b'{"batch":[{"a":1e999}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_batch_is_refused_whole(track: httpx.Client, body: bytes) -> None:
    """Anything but a JSON object with an array `batch` is 400 with `errors[]`."""
    answer = track.post("/api/v2/batch", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert set(answer.json()["errors"][0]) == {"reason", "field", "message"}


def padded(size: int) -> str:
    """Return an operation of exactly `size` bytes as it is sent, two-byte characters and blanks included."""
    item = event("1", attributes={"note": "é", "fill": ""})
    base = len(json.dumps(item, ensure_ascii=False).encode())
    item["attributes"]["fill"] = "x" * (size - base)
    return json.dumps(item, ensure_ascii=False)


@pytest.mark.parametrize("status", [400, 413])
def test_an_item_over_32768_bytes_refuses_the_whole_request(
    track: httpx.Client, emulator: serve.Running, status: int
) -> None:
    """The limit itself is accepted; the status is a knob."""
    emulator.workspace.configure({"oversize_status": status})
    fits, large, small = padded(32_768), padded(32_769), json.dumps(event("1"))
    assert track.post("/api/v2/batch", content=f'{{"batch": [{fits}, {small}]}}'.encode()).status_code == 200
    answer = track.post("/api/v2/batch", content=f'{{ "batch" :\n[ {small} , {large}]}}'.encode())
    assert answer.status_code == status
    assert answer.json()["errors"][0]["batch_index"] == 1
    larger = padded(33_000)
    assert track.post("/api/v2/batch", content=f'{{"x": 1, "batch": [{larger}]}}'.encode()).status_code == status
    assert track.post("/api/v2/entity", content=fits.encode()).status_code == 200
    assert track.post("/api/v2/entity", content=large.encode()).status_code == status
    assert emulator.workspace.counts()["events"] == 3


def test_a_body_that_says_batch_twice_is_measured_by_the_last(track: httpx.Client, emulator: serve.Running) -> None:
    """As JSON readers take it."""
    one, two = json.dumps(event("1")), padded(20_000)
    body = f'{{"batch": [{one}], "batch": [{two}, {two}]}}'.encode()
    assert track.post("/api/v2/batch", content=body).status_code == 200
    assert emulator.workspace.counts()["events"] == 2


@pytest.mark.parametrize("status", [400, 413])
def test_a_batch_over_512000_bytes_refuses_the_whole_request(
    track: httpx.Client, emulator: serve.Running, status: int
) -> None:
    """The limit itself is accepted."""
    emulator.workspace.configure({"oversize_status": status})
    body = json.dumps({"batch": [event("1")]}).encode()
    assert track.post("/api/v2/batch", content=body.ljust(512_000)).status_code == 200
    assert track.post("/api/v2/batch", content=body.ljust(512_001)).status_code == status
    assert emulator.workspace.counts()["events"] == 1


def test_a_batch_sent_again_adds_nothing(track: httpx.Client, emulator: serve.Running) -> None:
    """Events with known ULIDs are ignored, with 200."""
    body = {"batch": [identify("1", city="Riga"), event("1", id=ULID)]}
    assert [track.post("/api/v2/batch", json=body).status_code for _ in range(3)] == [200] * 3
    counts = emulator.workspace.counts()
    assert (counts["people"], counts["events"], counts["duplicates"]) == (1, 1, 2)


def test_lone_surrogates_pass_through(track: httpx.Client, emulator: serve.Running) -> None:
    """JSON can hold half a character; it must not break an answer."""
    raw = b'{"batch":[{"type":"person","action":"identify","identifiers":{"id":"1"},"attributes":{"n":"\\ud83d"}}]}'
    assert track.post("/api/v2/batch", content=raw).status_code == 200
    assert httpx.get(f"{emulator.url}/_control/person?id=1").json()["customer"]["attributes"]["n"] == "\ud83d"


def test_the_region_endpoint_names_region_and_workspace(track: httpx.Client, emulator: serve.Running) -> None:
    """Its url is the emulator's own, so that no client is led to the real service."""
    emulator.workspace.configure({"region": "us", "workspace_id": 7})
    assert track.get("/api/v1/accounts/region").json() == {"url": emulator.url, "region": "us", "environment_id": 7}


def test_an_unknown_path_is_404(track: httpx.Client) -> None:
    """In the Track API's own error shape."""
    answer = track.post("/api/v2/nothing", json={})
    assert (answer.status_code, answer.json()) == (404, {"meta": {"error": "not found"}})


# v1 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "value"),
    [
        ("brand1%3A12345", "id", "brand1:12345"),
        ("a%2Fb%3Fc%23d%25e", "id", "a/b?c#d%e"),
        ("%C3%A9%2B%20x", "id", "é+ x"),
        ("a+b", "id", "a+b"),
        ("P%2Bx%40example.com", "email", "p+x@example.com"),
        ("not@mail", "id", "not@mail"),
    ],
)
def test_a_v1_path_is_decoded_once_and_its_kind_guessed(
    track: httpx.Client, emulator: serve.Running, path: str, kind: str, value: str
) -> None:
    """An encoded slash is part of the identifier; what looks like an email is one."""
    answer = track.put(f"/api/v1/customers/{path}", json={"city": "Riga"})
    assert (answer.status_code, answer.content) == (200, b"{}\n")
    assert attributes(emulator, kind, value)["city"] == "Riga"


def test_a_v1_path_may_name_a_cio_id(track: httpx.Client, emulator: serve.Running) -> None:
    """With its prefix; v2 takes it bare."""
    track.put("/api/v1/customers/1", json={})
    person = emulator.workspace.find("id", "1")
    assert person is not None
    track.put(f"/api/v1/customers/cio_{person.cio_id}", json={"id": "2"})
    assert attributes(emulator, "id", "2") == {"id": "2"}


def test_v1_identify_takes_its_special_keys_out_of_the_attributes(track: httpx.Client, emulator: serve.Running) -> None:
    """`_timestamp`, `_update` and relationships steer, they are not stored."""
    relation = {"identifiers": {"object_type_id": "1", "object_id": "brand1"}, "relationship_attributes": {"role": "x"}}
    relations = {"action": "add_relationships", "relationships": [relation]}
    track.put("/api/v1/customers/1", json={"city": "Riga", "_timestamp": 2_000_000_000, "cio_relationships": relations})
    track.put("/api/v1/customers/1", json={"city": "Oslo", "_timestamp": 1_999_999_999})
    track.put("/api/v1/customers/2", json={"city": "Oslo", "_update": True})
    assert attributes(emulator, "id", "1") == {"id": "1", "city": "Riga"}
    assert emulator.workspace.counts()["people"] == 1


def test_v1_events_carry_type_data_and_id(track: httpx.Client, emulator: serve.Running) -> None:
    """The payload key is `data`; the id dedups like v2's; names are trimmed."""
    body = {"name": " deposit ", "id": ULID, "timestamp": 1767225600, "data": {"amount": 5}}
    for _ in range(2):
        assert track.post("/api/v1/customers/1/events", json=body).content == b"{}\n"
    track.post("/api/v1/customers/1/events", json={"name": "/lobby", "type": "page"})
    track.post("/api/v1/customers/1/events", json={"name": "Lobby", "type": "screen"})
    assert track.post("/api/v1/customers/1/events", json={"name": "Lobby", "type": "telegram"}).status_code == 400
    track.post("/api/v1/events", json={"name": "seen", "anonymous_id": "anon", "data": {}})
    track.post("/api/v1/events", json={"name": "invited", "data": {"recipient": "p@example.com"}})
    with emulator.workspace.reading() as state:
        listed = [(entry.name, entry.action, entry.customer_id, entry.anonymous_id) for entry in state.ledger.events]
        assert state.ledger.events[0].attributes == {"amount": 5}
    assert listed == [
        ("deposit", "event", "1", None),
        ("/lobby", "page", "1", None),
        ("Lobby", "screen", "1", None),
        ("seen", "event", None, "anon"),
        ("invited", "event", None, None),
    ]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("customers/1/events", {"name": ""}, "event name must not be blank"),
        ("customers/1/events", {"name": "n" * 101}, "event name cannot be longer than 100 bytes"),
        ("customers/1/events", {"name": "n", "data": 1}, "event data must be a hash"),
        (
            "customers/1/events",
            {"name": "n", "data": {"x": "x" * 100_000}},
            "event data cannot be longer than 100000 bytes",
        ),
        ("merge_customers", {"primary": {"id": ""}}, "id attribute cannot be an empty string"),
        ("merge_customers", {"primary": {"id": 1}}, "id attribute must be a string value"),
    ],
)
def test_v1_errors_are_the_published_messages(track: httpx.Client, path: str, body: Json, message: str) -> None:
    """As a list under `meta`, with 400."""
    answer = track.post(f"/api/v1/{path}", json=body)
    assert (answer.status_code, answer.json()) == (400, {"meta": {"errors": [message]}})


def test_v1_attributes_have_the_published_limits(track: httpx.Client) -> None:
    """300 attributes, names of 150 bytes, values of 1000 bytes."""
    bodies = ({f"a{n}": 1 for n in range(301)}, {"n" * 151: 1}, {"x": "x" * 1001})
    messages = [track.put("/api/v1/customers/1", json=body).json()["meta"]["errors"][0] for body in bodies]
    assert messages == [
        "cannot identify more than 300 attributes in one request",
        "attribute name cannot be longer than 150 bytes",
        "value for attribute 'x' cannot be longer than 1000 bytes",
    ]


def test_an_unreadable_v1_body_is_400(track: httpx.Client) -> None:
    """In v1's error shape."""
    answer = track.put("/api/v1/customers/1", content=b"{")
    assert (answer.status_code, answer.json()) == (400, {"meta": {"errors": ["malformed JSON"]}})


def test_v1_delete_suppress_and_unsuppress_answer_200_for_anybody(track: httpx.Client, emulator: serve.Running) -> None:
    """A suppressed person stays away until unsuppressed."""
    track.put("/api/v1/customers/1", json={"email": "p@example.com"})
    for method, path in (
        ("DELETE", "customers/unknown"),
        ("POST", "customers/1/suppress"),
        ("PUT", "customers/p%40example.com"),
    ):
        assert track.request(method, f"/api/v1/{path}", json={}).status_code == 200
    assert emulator.workspace.counts()["people"] == 0
    track.post("/api/v1/customers/1/unsuppress")
    track.put("/api/v1/customers/1", json={})
    assert attributes(emulator, "id", "1") == {"id": "1"}


def test_v1_devices_are_added_and_deleted(track: httpx.Client, emulator: serve.Running) -> None:
    """Tokens are percent-decoded too; the platform is checked."""
    device = {"id": "tok/en", "platform": "ios", "last_used": 1767225600}
    assert track.put("/api/v1/customers/1/devices", json={"device": device}).status_code == 200
    person = emulator.workspace.find("id", "1")
    assert person is not None
    assert list(person.devices) == ["tok/en"]
    assert track.put("/api/v1/customers/1/devices", json={"device": {"id": "t"}}).status_code == 400
    assert track.delete("/api/v1/customers/1/devices/tok%2Fen").status_code == 200
    assert person.devices == {}


def test_v1_merge_keeps_the_primary(track: httpx.Client, emulator: serve.Running) -> None:
    """The secondary is gone."""
    track.put("/api/v1/customers/1", json={"city": "Riga"})
    track.put("/api/v1/customers/2", json={"age": 30})
    assert track.post("/api/v1/merge_customers", json={"primary": {"id": "1"}, "secondary": {"id": "2"}}).is_success
    assert attributes(emulator, "id", "1") == {"id": "1", "city": "Riga", "age": "30"}
    assert emulator.workspace.find("id", "2") is None


def test_manual_segments_gain_and_lose_members(track: httpx.Client, emulator: serve.Running) -> None:
    """Ids that match nobody are ignored; 1 to 1000 ids; the segment must exist."""
    number = emulator.workspace.create_segment("excluded").id
    track.put("/api/v1/customers/1", json={"email": "p@example.com"})
    path = f"/api/v1/segments/{number}"
    assert track.post(f"{path}/add_customers", json={"ids": ["1", "nobody"]}).content == b"{}\n"
    person = emulator.workspace.find("id", "1")
    assert person is not None
    assert person.segments == {number}
    gone = track.post(f"{path}/remove_customers", params={"id_type": "email"}, json={"ids": ["P@example.com"]})
    assert (gone.status_code, person.segments) == (200, set())
    for ids in ([], ["x"] * 1001, "1"):
        assert track.post(f"{path}/add_customers", json={"ids": ids}).status_code == 400
    assert track.post("/api/v1/segments/99/add_customers", json={"ids": ["1"]}).status_code == 404


def test_the_unauthenticated_endpoints_take_anything(emulator: serve.Running) -> None:
    """Metrics, push events, forms and `/auth`, which says nothing about credentials."""
    assert httpx.post(f"{emulator.url}/api/v1/metrics", json={"delivery_id": "d"}).content == b"{}\n"
    assert httpx.post(f"{emulator.url}/api/v1/push/events", json={}).status_code == 200
    assert httpx.post(f"{emulator.url}/api/v1/forms/f/submit", json={}).status_code == 204
    assert httpx.get(f"{emulator.url}/auth").status_code == 200
