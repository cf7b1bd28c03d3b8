"""What goes wrong on the wire, over real HTTP: credentials, rate limits, errors, resets, delays, redirects."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from connector.emulators import serve
from connector.emulators.options import Faults, Json, Options

if TYPE_CHECKING:
    from collections.abc import Iterator

BEARER = {"authorization": "Bearer app-key"}
SLOW_SECONDS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[serve.Running]:
    with serve.start(seed=1) as running:
        yield running


@pytest.fixture
def emulator(server: serve.Running) -> serve.Running:
    server.workspace.configure(asdict(Options()))
    server.workspace.wipe()
    assert httpx.patch(f"{server.url}/_control/faults", json={**asdict(Faults()), "app_rate": None}).is_success
    return server


@pytest.fixture
def track(emulator: serve.Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=emulator.url, auth=("site", "key"), trust_env=False) as client:
        yield client


def go_wrong(emulator: serve.Running, **faults: Any) -> None:
    assert httpx.patch(f"{emulator.url}/_control/faults", json=faults).is_success


def batch(number: int = 0) -> Json:
    identifiers = {"id": str(number)}
    return {"batch": [{"type": "person", "action": "event", "identifiers": identifiers, "name": "deposit_confirmed"}]}


def accepted(emulator: serve.Running) -> int:
    count: int = emulator.workspace.counts()["events"]
    return count


# Credentials --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", [None, ("site", ""), ("", "key"), "Basic", "Basic %%%", "Bearer x", "Basic c2l0ZQ=="])
def test_track_without_a_key_pair_is_401(emulator: serve.Running, auth: tuple[str, str] | str | None) -> None:
    """In the v1 error shape, on every endpoint, and nothing is applied."""
    headers = {"authorization": auth} if isinstance(auth, str) else {}
    pair = auth if isinstance(auth, tuple) else None
    with httpx.Client(base_url=emulator.url, auth=pair, headers=headers, trust_env=False) as client:
        for answer in (client.post("/api/v2/batch", json=batch()), client.get("/api/v1/accounts/region")):
            assert (answer.status_code, answer.json()) == (401, {"meta": {"error": "Unauthorized request"}})
    assert accepted(emulator) == 0


def test_set_credentials_are_the_only_ones(emulator: serve.Running) -> None:
    """Track and App keys are different credentials; neither opens the other API."""
    emulator.workspace.configure({"site_id": "site", "api_key": "key", "app_key": "app"})
    batch_url, app_url = f"{emulator.url}/api/v2/batch", f"{emulator.url}/v1/segments"
    for pair, status in ((("site", "key"), 200), (("site", "other"), 401), (("other", "key"), 401)):
        assert httpx.post(batch_url, json=batch(), auth=pair).status_code == status
    for token, status in (("app", 200), ("key", 401)):
        assert httpx.get(app_url, headers={"authorization": f"Bearer {token}"}).status_code == status


def test_the_app_api_without_a_bearer_is_401(emulator: serve.Running) -> None:
    """In the App API's error list, with its code."""
    answer = httpx.get(f"{emulator.url}/v1/segments", auth=("site", "key"))
    assert answer.status_code == 401
    assert answer.json() == {"errors": [{"detail": "unauthorized", "status": "401", "code": "invalid_credentials"}]}


# Rate limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "header"), [(2, "2"), (0.5, "0.5"), (None, None)])
def test_track_answers_429_beyond_its_rate(after: float | None, header: str | None) -> None:
    """With `Retry-After` or without; what is refused is not applied."""
    with serve.start(faults=Faults(rate=0.001, retry_after=after)) as running:
        path = f"{running.url}/api/v2/batch"
        answers = [httpx.post(path, json=batch(), auth=("site", "key")) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 429, 429]
        assert answers[1].headers.get("retry-after") == header
        assert accepted(running) == 1


def test_the_app_api_answers_429_beyond_ten_requests_a_second(emulator: serve.Running) -> None:
    """With the documented detail and a `Retry-After` of whole seconds; Track goes on."""
    go_wrong(emulator, app_rate=10)
    with httpx.Client(base_url=emulator.url, headers=BEARER, trust_env=False) as app:
        answers = [app.get("/v1/segments") for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(answers) - len(refused) >= 10
    assert refused[0].json()["errors"][0]["detail"].startswith("rate limited to 10 requests per 1s (reference ")
    assert refused[0].headers["retry-after"] == "1"


# Errors, resets, delays ---------------------------------------------------------------------------------------------


def test_errors_come_at_their_rate_and_apply_nothing(track: httpx.Client, emulator: serve.Running) -> None:
    """Every status of the list occurs; the App API is spared unless named."""
    go_wrong(emulator, error_rate=1)
    statuses = {track.post("/api/v2/batch", json=batch()).status_code for _ in range(40)}
    assert (statuses, accepted(emulator)) == ({500, 502, 503}, 0)
    assert httpx.get(f"{emulator.url}/v1/segments", headers=BEARER).status_code == 200
    go_wrong(emulator, targets=["track", "app"], error_statuses=[503])
    answer = httpx.get(f"{emulator.url}/v1/segments", headers=BEARER)
    assert (answer.status_code, answer.json()["errors"][0]["status"]) == (503, "503")


def test_an_error_may_come_after_applying(track: httpx.Client, emulator: serve.Running) -> None:
    """The client cannot tell, only dedup helps."""
    go_wrong(emulator, script=["500"], error_applies=True)
    assert track.post("/api/v2/batch", json=batch()).status_code == 500
    assert accepted(emulator) == 1


@pytest.mark.parametrize(("step", "applied"), [("reset", 1), ("reset_before", 0)])
def test_a_reset_cuts_the_connection_after_or_before_applying(
    track: httpx.Client, emulator: serve.Running, step: str, applied: int
) -> None:
    """The client sees a broken connection and no status; the next request works."""
    go_wrong(emulator, script=[step])
    with pytest.raises(httpx.NetworkError):
        track.post("/api/v2/batch", json=batch())
    assert accepted(emulator) == applied
    assert track.post("/api/v2/batch", json=batch()).status_code == 200


def test_resets_come_at_their_rate(track: httpx.Client, emulator: serve.Running) -> None:
    """Each after its request was applied."""
    go_wrong(emulator, reset_rate=1)
    for _ in range(3):
        with pytest.raises(httpx.NetworkError):
            track.post("/api/v2/batch", json=batch())
    assert accepted(emulator) == 3


def test_a_slow_answer_lets_the_client_time_out_after_applying(track: httpx.Client, emulator: serve.Running) -> None:
    """Other requests are answered meanwhile."""
    go_wrong(emulator, slow=SLOW_SECONDS)
    with pytest.raises(httpx.ReadTimeout):
        track.post("/api/v2/batch", json=batch(), timeout=0.2)
    assert accepted(emulator) == 1
    began = time.monotonic()
    assert httpx.get(f"{emulator.url}/_control/counts").json()["events"] == 1
    assert time.monotonic() - began < SLOW_SECONDS


def test_a_script_is_followed_once_step_by_step(track: httpx.Client, emulator: serve.Running) -> None:
    """A request takes a step; after the last one everything is well."""
    go_wrong(emulator, script=["503", "ok", "429", "413", "307"], retry_after=3)
    answers = [track.post("/api/v2/batch", json=batch()) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [503, 200, 429, 413, 307, 200, 200]
    assert answers[2].headers["retry-after"] == "3"
    assert accepted(emulator) == 3


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_other_regions_host_redirects_even_without_credentials(emulator: serve.Running, status: int) -> None:
    """To the same path of the right host; nothing is applied."""
    go_wrong(emulator, redirect_status=status, redirect_to="https://eu.example.com")
    answer = httpx.post(f"{emulator.url}/api/v2/batch", json=batch())
    assert (answer.status_code, answer.headers["location"]) == (status, "https://eu.example.com/api/v2/batch")
    assert accepted(emulator) == 0


def test_named_events_and_people_are_refused_on_demand(track: httpx.Client, emulator: serve.Running) -> None:
    """As permanent errors of single items, for tests of dead letters."""
    go_wrong(emulator, refuse_names=["bad"], refuse_ids=["7"])
    items = [*batch(1)["batch"], *batch(7)["batch"], {**batch(1)["batch"][0], "name": "bad"}]
    answer = track.post("/api/v2/batch", json={"batch": items})
    assert [(error["batch_index"], error["field"]) for error in answer.json()["errors"]] == [
        (1, "identifiers.id"),
        (2, "name"),
    ]


def test_writes_become_readable_after_the_visibility_delay(track: httpx.Client, emulator: serve.Running) -> None:
    """Accepted at once, invisible until settled."""
    emulator.workspace.configure({"visibility_delay": 3600})
    assert track.post("/api/v2/batch", json=batch(1)).status_code == 200
    with httpx.Client(base_url=emulator.url, headers=BEARER, trust_env=False) as app:
        assert app.get("/v1/customers/1/attributes").status_code == 404
        assert app.post("/_control/settle").json() == {"applied": 1}
        assert app.get("/v1/customers/1/attributes").status_code == 200
