"""The control endpoint and the reporting webhooks, over real HTTP."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import httpx
import pytest

from connector.emulators import EMULATORS, ledger, serve
from connector.emulators.options import Faults, Json, Options
from connector.emulators.webhooks import Settings, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[serve.Running]:
    with serve.start(faults=Faults(slow=0.001), seed=1) as running:
        yield running


@pytest.fixture
def emulator(server: serve.Running) -> serve.Running:
    server.workspace.configure(asdict(Options()))
    httpx.post(f"{server.url}/_control/wipe")
    httpx.delete(f"{server.url}/_control/faults")
    return server


@pytest.fixture
def control(emulator: serve.Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{emulator.url}/_control", trust_env=False) as client:
        yield client


def send(emulator: serve.Running, *items: Json) -> httpx.Response:
    return httpx.post(f"{emulator.url}/api/v2/batch", json={"batch": items}, auth=("site", "key"))


def event(identity: str, name: str, **rest: object) -> Json:
    return {"type": "person", "action": "event", "identifiers": {"id": identity}, "name": name, **rest}


def test_the_registry_starts_an_emulator_by_name() -> None:
    """The handle is a context manager with a url."""
    with EMULATORS["customerio"]() as running:
        assert httpx.get(f"{running.url}/_control/counts").json()["people"] == 0


def test_counts_tell_what_was_accepted_refused_and_ignored(control: httpx.Client, emulator: serve.Running) -> None:
    """Duplicates, outcomes, names and requests each have their counter."""
    first = event("1", "deposit", id=ledger.ulid(1, "1"))
    send(emulator, first, first, event("2", "bet"), event("2", ""))
    counts = control.get("counts").json()
    assert {name: counts[name] for name in ("people", "events", "duplicates", "accepted", "refused", "requests")} == {
        "people": 2,
        "events": 2,
        "duplicates": 1,
        "accepted": 3,
        "refused": 1,
        "requests": 1,
    }
    assert counts["events_by_name"] == {"deposit": 1, "bet": 1}
    assert counts["actions"] == {"person.event": 3}


def test_requests_are_counted_by_route_and_outcome(control: httpx.Client, emulator: serve.Running) -> None:
    """A cut connection counts as `reset`, a foreign path as not routed."""
    send(emulator, event("1", "x"))
    send(emulator, event("1", ""))
    control.patch("faults", json={"script": ["reset"]})
    with pytest.raises(httpx.NetworkError):
        send(emulator, event("1", "x"))
    httpx.get(f"{emulator.url}/moon", auth=("site", "key"))
    assert control.get("requests").json() == {
        "total": 4,
        "by_route": {"v2_batch": {"200": 1, "207": 1, "reset": 1}, "track: not routed": {"404": 1}},
    }


def test_accepted_events_are_listed_whole_filtered_and_paged(control: httpx.Client, emulator: serve.Running) -> None:
    """Each with its number, its person and whether it may trigger campaigns; `next` goes into `after`."""
    old = event("1", "deposit", id="x", timestamp=1, attributes={"amount": 5})
    send(emulator, old, *(event("2", "bet") for _ in range(4)))
    (listed,) = control.get("events?name=deposit").json()["events"]
    assert (listed["id"], listed["customer_id"], listed["timestamp"]) == ("x", "1", 1)
    assert (listed["attributes"], listed["can_trigger"]) == ({"amount": 5}, False)
    assert len(control.get("events?customer_id=2&can_trigger=true").json()["events"]) == 4
    first = control.get("events?limit=3").json()
    rest = control.get(f"events?limit=3&after={first['next']}").json()
    assert [row["seq"] for row in first["events"] + rest["events"]] == [1, 2, 3, 4, 5]
    assert rest["next"] is None
    for query in ("after=x", "colour=red"):
        assert control.get(f"events?{query}").status_code == 400


def test_a_person_is_shown_in_full(control: httpx.Client, emulator: serve.Running) -> None:
    """With activities, event count and what else no API shows."""
    who = {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {"email": "p@example.com"}}
    send(emulator, who, event("1", "deposit"))
    shown = control.get("person?email=p%40example.com").json()
    assert shown["customer"]["id"] == "1"
    assert (shown["event_count"], [row["type"] for row in shown["activities"]]) == (1, ["event", "attribute_change"])
    assert control.get("person?id=2").status_code == 404
    assert control.get("person").status_code == 400


def test_suppressed_identifiers_are_listed(control: httpx.Client, emulator: serve.Running) -> None:
    """Id and email alike."""
    send(emulator, {"type": "person", "action": "suppress", "identifiers": {"email": "P@example.com"}})
    assert control.get("suppressed").json() == {"suppressed": [{"kind": "email", "value": "p@example.com"}]}


def test_options_change_while_running_and_secrets_stay_inside(control: httpx.Client, emulator: serve.Running) -> None:
    """Keys can be set and are never shown."""
    emulator.workspace.configure({"api_key": "very-secret", "site_id": "site"})
    answer = control.patch("options", json={"partial_status": 200, "forget_events": 2})
    assert (answer.json()["partial_status"], answer.json()["forget_events"]) == (200, 2)
    assert "very-secret" not in answer.text + control.get("state").text
    refused = control.patch("options", json={"partial_status": 201, "visibility_delay": 5})
    assert (refused.status_code, refused.json()) == (400, {"error": "partial_status must be one of 200, 207"})
    assert control.get("options").json()["visibility_delay"] == 0
    assert control.patch("options", content=b"{").status_code == 400


def test_faults_reset_to_those_of_the_start(control: httpx.Client) -> None:
    """Not to none."""
    assert control.patch("faults", json={"slow": 9, "error_rate": 1, "script": ["500"]}).json()["slow"] == 9
    reset = control.delete("faults").json()
    assert (reset["slow"], reset["error_rate"], reset["script"]) == (0.001, 0, [])


def test_wiping_forgets_people_events_and_ids(control: httpx.Client, emulator: serve.Running) -> None:
    """The same event is accepted again."""
    item = event("1", "deposit", id=ledger.ulid(1, "1"))
    send(emulator, item)
    assert control.post("wipe").content == b"{}\n"
    send(emulator, item)
    counts = control.get("counts").json()
    assert (counts["events"], counts["duplicates"], counts["requests"]) == (1, 0, 1)


def test_no_fault_touches_the_control_endpoint(control: httpx.Client) -> None:
    """Or nobody could end it."""
    control.patch("faults", json={"error_rate": 1, "redirect_status": 301, "targets": ["track", "app"]})
    assert control.get("counts").status_code == 200


# Webhooks -----------------------------------------------------------------------------------------------------------


class Receiver:
    """A webhook endpoint that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[Json, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.changed = threading.Condition()

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self.changed:
            self.got.append((json.loads(body), headers, body))
            self.changed.notify_all()
            return self.answers.pop(0) if self.answers else 200

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=10)

    @property
    def ids(self) -> list[str]:
        return [body["event_id"] for body, _, _ in self.got]


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(kept.take({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the signature of the library
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield kept, f"http://127.0.0.1:{server.server_address[1]}/hook"
        server.shutdown()
        thread.join()


def test_an_unsubscribe_is_reported_by_a_signed_webhook(receiver: tuple[Receiver, str]) -> None:
    """The signature covers version, timestamp and the raw body."""
    kept, url = receiver
    with serve.start(webhooks=Settings(url=url, signing_key="key")) as running:
        who = {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": {"unsubscribed": True}}
        send(running, who)
        kept.wait(lambda: len(kept.got) == 1)
    body, headers, raw = kept.got[0]
    assert (body["object_type"], body["metric"], body["data"]["customer_id"]) == ("customer", "unsubscribed", "1")
    expected = signature("key", timestamp=int(headers["x-cio-timestamp"]), body=raw)
    assert headers["x-cio-signature"] == expected


def test_a_failed_webhook_is_retried_and_holds_back_the_next(receiver: tuple[Receiver, str]) -> None:
    """In order, until it is taken; then the queue goes on."""
    kept, url = receiver
    kept.answers = [500, 503, 200]
    with serve.start(webhooks=Settings(url=url, retry_after=0, long_wait=0)) as running:
        for name in ("a", "b"):
            httpx.post(f"{running.url}/_control/webhooks/events", json={"event_id": name})
        kept.wait(lambda: len(kept.got) == 4)
        assert kept.ids == ["a", "a", "a", "b"]


def test_a_webhook_is_given_up_after_its_attempts(receiver: tuple[Receiver, str]) -> None:
    """And the next one goes out."""
    kept, url = receiver
    kept.answers = [500, 500, 200]
    with serve.start(webhooks=Settings(url=url, retry_after=0, long_wait=0, attempts=2)) as running:
        for name in ("a", "b"):
            httpx.post(f"{running.url}/_control/webhooks/events", json={"event_id": name})
        kept.wait(lambda: kept.ids == ["a", "a", "b"])
        assert httpx.get(f"{running.url}/_control/webhooks").json()["counts"]["given_up"] == 1


def test_webhooks_are_doubled_and_out_of_order_on_demand(receiver: tuple[Receiver, str]) -> None:
    """A consumer has to dedupe by event id and cannot trust the order."""
    kept, url = receiver
    kept.answers = [503]
    settings = Settings(url=url, retry_after=0.3, duplicate_rate=1, overtake_rate=1)
    with serve.start(webhooks=settings, seed=1) as running:
        httpx.post(f"{running.url}/_control/webhooks/events", json={"event_id": "first"})
        kept.wait(lambda: len(kept.got) == 1)
        for name in ("a", "b", "c"):
            httpx.post(f"{running.url}/_control/webhooks/events", json={"event_id": name})
        kept.wait(lambda: len(kept.got) == 9)
    assert sorted(kept.ids) == sorted(["first"] * 3 + ["a"] * 2 + ["b"] * 2 + ["c"] * 2)
    assert [name for name in kept.ids if name != "first"] != ["a", "a", "b", "b", "c", "c"]


def test_a_pretended_delivery_is_reported_with_its_person(receiver: tuple[Receiver, str]) -> None:
    """What a campaign would have done, without one."""
    kept, url = receiver
    with serve.start() as running:
        assert httpx.patch(f"{running.url}/_control/webhooks", json={"url": url}).json()["settings"]["url"] == url
        send(running, event("1", "deposit"))
        delivery = {
            "customer_id": "1",
            "object_type": "email",
            "metric": "clicked",
            "delivery_id": "d",
            "data": {"x": 1},
        }
        assert httpx.post(f"{running.url}/_control/deliveries", json=delivery).status_code == 200
        kept.wait(lambda: len(kept.got) == 1)
        for wrong in ({}, {**delivery, "customer_id": "nobody"}, {**delivery, "data": []}):
            assert httpx.post(f"{running.url}/_control/deliveries", json=wrong).status_code == 400
    assert kept.got[0][0]["metric"] == "clicked"
    assert kept.got[0][0]["data"] == {
        "customer_id": "1",
        "identifiers": {"cio_id": "a3000001", "id": "1", "email": None},
        "delivery_id": "d",
        "recipient": None,
        "x": 1,
    }
