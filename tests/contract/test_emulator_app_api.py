"""The emulated App API over real HTTP: reading people, activities and segments back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from connector.emulators import serve
from connector.emulators.options import Faults, Json, Options

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[serve.Running]:
    with serve.start(faults=Faults(app_rate=None)) as running:
        yield running


@pytest.fixture
def emulator(server: serve.Running) -> serve.Running:
    server.workspace.configure(asdict(Options()))
    server.workspace.wipe()
    return server


@pytest.fixture
def app(emulator: serve.Running) -> Iterator[httpx.Client]:
    headers = {"authorization": "Bearer app-key"}
    with httpx.Client(base_url=emulator.url, headers=headers, trust_env=False) as client:
        yield client


def identify(emulator: serve.Running, identity: str, **attributes: Any) -> str:
    item = {"type": "person", "action": "identify", "identifiers": {"id": identity}, "attributes": attributes}
    assert emulator.workspace.accept([item]) == []
    person = emulator.workspace.find("id", identity)
    assert person is not None
    return person.cio_id


def track(emulator: serve.Running, identity: str, name: str) -> None:
    item = {"type": "person", "action": "event", "identifiers": {"id": identity}, "name": name}
    assert emulator.workspace.accept([item]) == []


def walk(app: httpx.Client, path: str, key: str, *, body: Json | None = None, **query: Any) -> list[list[Any]]:
    """Return all pages of a listing."""
    pages, start = [], ""
    while True:
        sent = {**query, **({"start": start} if start else {})}
        answer = app.get(path, params=sent) if body is None else app.post(path, params=sent, json=body)
        assert answer.status_code == 200
        pages.append(answer.json()[key])
        start = answer.json()["next"]
        if not start:
            return pages


def test_a_person_reads_back_with_text_booleans_and_timestamps(app: httpx.Client, emulator: serve.Running) -> None:
    """Attributes are text, `unsubscribed` is a boolean at customer level, timestamps are integers."""
    cio_id = identify(emulator, "a/1", email="p@example.com", balance=12.5, unsubscribed=True)
    customer = app.get("/v1/customers/a%2F1/attributes").json()["customer"]
    assert customer["id"] == "a/1"
    assert customer["identifiers"] == {"cio_id": cio_id, "id": "a/1", "email": "p@example.com"}
    assert customer["attributes"]["balance"] == "12.5"
    assert customer["attributes"]["cio_id"] == cio_id
    assert customer["unsubscribed"] is True
    assert isinstance(customer["timestamps"]["balance"], int)
    assert customer["devices"] == []


@pytest.mark.parametrize("prefix", ["/v1", "/v1/api"])
def test_a_person_is_found_by_every_kind_of_identifier(app: httpx.Client, emulator: serve.Running, prefix: str) -> None:
    """The legacy path answers too; a cio_id may bear its prefix or not."""
    cio_id = identify(emulator, "1", email="p@example.com", phone="+37120000000")
    for kind, value in (
        ("id", "1"),
        ("email", "P@example.com"),
        ("phone", "%2B37120000000"),
        ("cio_id", f"cio_{cio_id}"),
        ("cio_id", cio_id),
    ):
        answer = app.get(f"{prefix}/customers/{value}/attributes?id_type={kind}")
        assert answer.json()["customer"]["identifiers"]["cio_id"] == cio_id
    assert app.get(f"{prefix}/customers/1/attributes?id_type=shoe").status_code == 400


def test_somebody_unknown_is_404_in_the_error_list(app: httpx.Client) -> None:
    """`status` is a string, and the detail carries a reference."""
    answer = app.get("/v1/customers/nobody/attributes")
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["status"]) == (404, "404")
    assert error["detail"].startswith("not found (reference ")


def test_search_by_email_needs_its_plus_encoded(app: httpx.Client, emulator: serve.Running) -> None:
    """Unencoded it is a blank, and the answer empty but no error."""
    cio_id = identify(emulator, "1", email="p+x@example.com")
    found = app.get("/v1/customers?email=P%2Bx@example.com").json()
    assert found == {"results": [{"cio_id": cio_id, "id": "1", "email": "p+x@example.com"}]}
    assert app.get("/v1/customers?email=p+x@example.com").json() == {"results": []}
    assert app.get("/v1/customers").status_code == 400


def test_search_in_an_id_only_workspace_finds_everybody_with_that_email(
    app: httpx.Client, emulator: serve.Running
) -> None:
    """There an email is an attribute like another."""
    emulator.workspace.configure({"id_only": True})
    identify(emulator, "1", email="p@example.com")
    identify(emulator, "2", email="p@example.com")
    assert [row["id"] for row in app.get("/v1/customers?email=p@example.com").json()["results"]] == ["1", "2"]


def test_many_people_are_read_at_once_and_unknown_ones_left_out(app: httpx.Client, emulator: serve.Running) -> None:
    """1 to 100 ids."""
    identify(emulator, "1")
    identify(emulator, "2")
    answer = app.post("/v1/customers/attributes", json={"ids": ["2", "nobody", "1"]}).json()
    assert [entry["customer"]["id"] for entry in answer["customers"]] == ["2", "1"]
    for ids in ([], ["x"] * 101, None):
        assert app.post("/v1/customers/attributes", json={"ids": ids}).status_code == 400


def test_people_are_filtered_and_paged(app: httpx.Client, emulator: serve.Running) -> None:
    """Pages follow `next` until it is empty; nobody is listed twice or left out."""
    for number in range(7):
        identify(emulator, str(number), unsubscribed=number % 2 == 0)
    condition = {"attribute": {"field": "unsubscribed", "operator": "eq", "value": "true"}}
    pages = walk(app, "/v1/customers", "ids", body={"filter": condition}, limit=3)
    assert pages == [["0", "2", "4"], ["6"]]
    answer = app.post("/v1/customers", json={"filter": condition}).json()
    assert answer["next"] == ""
    assert [entry["id"] for entry in answer["identifiers"]] == answer["ids"] == ["0", "2", "4", "6"]


def test_filters_combine(app: httpx.Client, emulator: serve.Running) -> None:
    """and, or, not, segment, attribute with eq and exists."""
    number = emulator.workspace.create_segment("vips").id
    identify(emulator, "1", city="Riga")
    identify(emulator, "2", city="Oslo")
    identify(emulator, "3")
    emulator.workspace.change_membership(number, ["2", "3"], kind="id", join=True)
    segment = {"segment": {"id": number}}
    riga = {"attribute": {"field": "city", "operator": "eq", "value": "Riga"}}
    somewhere = {"attribute": {"field": "city", "operator": "exists"}}
    for condition, expected in (
        (segment, ["2", "3"]),
        ({"and": [segment, somewhere]}, ["2"]),
        ({"or": [segment, riga]}, ["1", "2", "3"]),
        ({"not": somewhere}, ["3"]),
    ):
        assert app.post("/v1/customers", json={"filter": condition}).json()["ids"] == expected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {}},
        {"filter": {"and": []}},
        {"filter": {"and": [], "or": []}},
        {"filter": {"attribute": {"field": "x", "operator": "gt", "value": "1"}}},
        {"filter": {"segment": {"id": "x"}}},
        {"filter": {"moon": 1}},
    ],
)
def test_an_unreadable_filter_is_400(app: httpx.Client, body: Json) -> None:
    """With the App API's error list."""
    answer = app.post("/v1/customers", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["status"]) == (400, "400")


def test_activities_come_newest_first_by_ten_and_at_most_a_hundred(app: httpx.Client, emulator: serve.Running) -> None:
    """Pages join without gap or repetition, for one person and for the workspace."""
    emulator.workspace.configure({"activities_per_person": 500})
    for number in range(110):
        track(emulator, "1", f"e{number}")
    for path in ("/v1/customers/1/activities", "/v1/activities"):
        assert len(app.get(path).json()["activities"]) == 10
        pages = walk(app, path, "activities", limit=1000)
        assert [len(page) for page in pages] == [100, 10]
        assert [row["name"] for page in pages for row in page] == [f"e{number}" for number in reversed(range(110))]
        assert len({row["id"] for page in pages for row in page}) == 110


def test_activities_are_filtered_by_type_name_and_person(app: httpx.Client, emulator: serve.Running) -> None:
    """A change goes by the attribute's name."""
    identify(emulator, "1", city="Riga")
    identify(emulator, "1", city="Oslo", age=3)
    identify(emulator, "2", email="p@example.com")
    track(emulator, "1", "deposit")
    rows = app.get("/v1/customers/1/activities?type=attribute_change&name=city").json()["activities"]
    assert [row["data"]["city"] for row in rows] == [{"from": "Riga", "to": "Oslo"}, {"from": "", "to": "Riga"}]
    assert rows[0]["customer_id"] == "1"
    assert [row["type"] for row in app.get("/v1/activities?name=deposit").json()["activities"]] == ["event"]
    by_email = app.get("/v1/activities?customer_id=p@example.com&id_type=email").json()["activities"]
    assert [row["customer_id"] for row in by_email] == ["2"]


def test_activities_of_deleted_people_show_on_demand(app: httpx.Client, emulator: serve.Running) -> None:
    """Without `deleted=true` they are left out."""
    identify(emulator, "1", city="Riga")
    emulator.workspace.accept([{"type": "person", "action": "delete", "identifiers": {"id": "1"}}])
    assert app.get("/v1/activities").json()["activities"] == []
    assert len(app.get("/v1/activities?deleted=true").json()["activities"]) == 1


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "start=x", "start=YWZ0ZXI6eA=="])
def test_unreadable_paging_is_400(app: httpx.Client, query: str) -> None:
    """A limit is a positive number, a start is a token of an earlier answer."""
    assert app.get(f"/v1/activities?{query}").status_code == 400


def test_manual_segments_are_made_read_counted_listed_and_deleted(app: httpx.Client, emulator: serve.Running) -> None:
    """A segment without members counts zero; a person lists its segments."""
    made = app.post("/v1/segments", json={"segment": {"name": "excluded", "description": "no promotions"}}).json()
    segment = made["segment"]
    path = f"/v1/segments/{segment['id']}"
    assert (segment["type"], segment["state"], segment["progress"]) == ("manual", "finished", None)
    assert app.get("/v1/segments").json() == {"segments": [segment]}
    assert app.get(path).json() == {"segment": segment}
    assert app.get(f"{path}/customer_count").json() == {"count": 0}
    for number in range(5):
        identify(emulator, str(number))
    emulator.workspace.change_membership(segment["id"], ["4", "3", "2", "1"], kind="id", join=True)
    assert app.get(f"{path}/customer_count").json() == {"count": 4}
    assert walk(app, f"{path}/membership", "ids", limit=3) == [["1", "2", "3"], ["4"]]
    expected = [{"id": segment["id"], "name": "excluded", "description": "no promotions"}]
    assert app.get("/v1/customers/4/segments").json() == {"segments": expected}
    emulator.workspace.accept([{"type": "person", "action": "suppress", "identifiers": {"id": "1"}}])
    assert app.get(f"{path}/customer_count").json() == {"count": 3}
    assert app.delete(path).status_code == 204
    assert app.get(path).status_code == 404
    assert app.get("/v1/customers/4/segments").json() == {"segments": []}
    assert app.post("/v1/segments", json={"segment": {"name": " "}}).status_code == 400


def test_relationships_preferences_and_messages_are_readable(app: httpx.Client, emulator: serve.Running) -> None:
    """Messages exist only as deliveries that the control endpoint pretends."""
    identify(emulator, "1", email="p@example.com", **{"cio_subscription_preferences.topics.topic_1": False})
    link = [{"identifiers": {"object_type_id": "1", "object_id": "b1"}, "relationship_attributes": {"role": "x"}}]
    emulator.workspace.accept(
        [{"type": "person", "action": "add_relationships", "identifiers": {"id": "1"}, "cio_relationships": link}]
    )
    (relation,) = app.get("/v1/customers/1/relationships").json()["cio_relationships"]
    assert (relation["identifiers"]["object_id"], relation["relationship_attributes"]) == ("b1", {"role": "x"})
    shown = app.get("/v1/customers/1/subscription_preferences").json()["customer"]
    assert [(topic["name"], topic["subscribed"]) for topic in shown["topics"]] == [("topic_1", False)]
    assert app.get("/v1/customers/1/messages").json() == {"messages": [], "next": ""}
    for number in range(3):
        delivery = {"customer_id": "1", "object_type": "email", "metric": "sent", "delivery_id": f"d{number}"}
        assert app.post("/_control/deliveries", json=delivery).status_code == 200
    pages = walk(app, "/v1/customers/1/messages", "messages", limit=2)
    assert [[message["id"] for message in page] for page in pages] == [["d0", "d1"], ["d2"]]
    assert app.get("/v1/customers/1/messages?end_ts=1").json()["messages"] == []


def test_an_unsubscribe_by_delivery_reaches_its_person(app: httpx.Client, emulator: serve.Running) -> None:
    """Without credentials; an unknown delivery changes nobody."""
    identify(emulator, "1")
    delivery = {"customer_id": "1", "object_type": "email", "metric": "sent", "delivery_id": "d/1"}
    app.post("/_control/deliveries", json=delivery)
    for path in ("unknown", "d%2F1"):
        assert httpx.post(f"{emulator.url}/unsubscribe/{path}", json={"unsubscribe": True}).status_code == 200
    assert app.get("/v1/customers/1/attributes").json()["customer"]["unsubscribed"] is True


def test_there_are_no_campaigns(app: httpx.Client) -> None:
    """The list is empty, an id is unknown."""
    assert app.get("/v1/campaigns").json() == {"campaigns": []}
    assert app.get("/v1/campaigns/1").status_code == 404
