"""The emulator as a process and as a file: the command, its stop, the state it keeps, TLS, the official client."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import customerio
import httpx
import pytest
from typer.testing import CliRunner

from connector import clock
from connector.cli import emulate
from connector.emulators import serve, tls
from connector.emulators.options import Faults, Json, Options
from connector.emulators.snapshot import Keeper
from connector.emulators.workspace import Workspace
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ULID = "01KDVDNA00RDWPKPGF5Y6A5GTE"
START_SECONDS = 20
RUN = "from connector.cli.emulate import app; app()"


@contextmanager
def command(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `emulate customerio` on a free port; yield the process and its ready line."""
    arguments = [sys.executable, "-c", RUN, "customerio", "--listen", "127.0.0.1:0", *flags]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            watchdog.cancel()
            process.kill()


def address(ready: str) -> str:
    found = re.search(r"https?://[^ ]+", ready)
    assert found, ready
    return found.group()


def event(identity: str, **rest: object) -> Json:
    return {"type": "person", "action": "event", "identifiers": {"id": identity}, "name": "deposit", **rest}


def send(url: str, *items: Json) -> httpx.Response:
    return httpx.post(f"{url}/api/v2/batch", json={"batch": items}, auth=("site", "key"))


# The command --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_when_it_is_ready_and_saves_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """One line with the url and how to get in; exit code 0; what was accepted is known after the restart."""
    state = tmp_path / "state.json"
    with command("--state", str(state)) as (process, ready):
        assert "any site id and key" in ready
        assert "any bearer" in ready
        assert send(address(ready), event("1", id=ULID)).status_code == 200
        process.send_signal(number)
        assert process.wait(START_SECONDS) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    with command("--state", str(state)) as (process, ready):
        send(address(ready), event("1", id=ULID))
        counts = httpx.get(f"{address(ready)}/_control/counts").json()
        assert (counts["events"], counts["duplicates"]) == (1, 1)


def test_flags_and_settings_reach_the_workspace() -> None:
    """Every knob has a flag or goes by `--set`."""
    flags = ("--site-id", "s", "--api-key", "k", "--region", "us", "--workspace-id", "7", "--rate", "50", "--id-only")
    further = ("--set", "dedup_window=60", "--set", "app_rate=null", "--set", "webhooks.attempts=3")
    with command(*flags, *further) as (_, ready):
        assert "Track: s:k" in ready
        url = address(ready)
        assert httpx.get(f"{url}/api/v1/accounts/region").status_code == 401
        shown = httpx.get(f"{url}/api/v1/accounts/region", auth=("s", "k")).json()
        assert (shown["region"], shown["environment_id"]) == ("us", 7)
        state = httpx.get(f"{url}/_control/state").json()
        assert (state["options"]["id_only"], state["options"]["dedup_window"]) == (True, 60)
        assert (state["faults"]["rate"], state["faults"]["app_rate"]) == (50, None)
        assert httpx.get(f"{url}/_control/webhooks").json()["settings"]["attempts"] == 3


@pytest.mark.parametrize(
    "flags",
    [
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1:99999"],
        ["--listen", "256.0.0.1:0"],
        ["--region", "moon"],
        ["--error-rate", "2"],
        ["--set", "colour=1"],
        ["--set", "rate"],
        ["--tls-cert", "cert.pem"],
        ["--tls-cert", "missing.pem", "--tls-key", "missing.pem"],
        ["--state", "missing/state.json"],
    ],
)
def test_a_mistake_in_a_flag_is_one_line_and_exit_code_2(flags: list[str]) -> None:
    """With a remedy, and without a traceback."""
    result = CliRunner().invoke(emulate.app, ["customerio", "--listen", "127.0.0.1:0", *flags])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


# The state file -----------------------------------------------------------------------------------------------------


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """People, suppression, segments, activities, events, ids, counters, pending and anonymous operations."""
    state = tmp_path / "state.json"
    people: list[Json] = [
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "1"},
            "attributes": {"email": "p@example.com", "a": 1},
            "cio_relationships": [{"identifiers": {"object_type_id": "1", "object_id": "b"}}],
        },
        {
            "type": "person",
            "action": "add_device",
            "identifiers": {"id": "1"},
            "device": {"token": "t", "platform": "ios"},
        },
        {"type": "person", "action": "suppress", "identifiers": {"id": "gone"}},
        event("1", id=ULID, timestamp=1),
        {"type": "person", "action": "event", "identifiers": {"anonymous_id": "anon"}, "name": "seen"},
    ]
    with serve.start(state_file=state) as running:
        number = running.workspace.create_segment("excluded").id
        send(running.url, *people)
        running.workspace.change_membership(number, ["1"], kind="id", join=True)
        running.workspace.configure({"visibility_delay": 3600})
        send(running.url, event("later"))
        before = httpx.get(f"{running.url}/_control/person?id=1").json()
        counts = running.workspace.counts()
    with serve.start(state_file=state) as running:
        assert httpx.get(f"{running.url}/_control/person?id=1").json() == before
        assert running.workspace.counts() == counts
        assert counts["pending"] == 1
        running.workspace.settle()
        send(
            running.url,
            event("1", id=ULID),
            event("gone"),
            {"type": "person", "action": "identify", "identifiers": {"email": "P@example.com"}, "attributes": {"b": 2}},
            {
                "type": "person",
                "action": "identify",
                "identifiers": {"id": "2"},
                "attributes": {"anonymous_id": "anon"},
            },
        )
        listed = httpx.get(f"{running.url}/_control/events").json()["events"]
        assert [(row["seq"], row["name"], row["customer_id"]) for row in listed] == [
            (1, "deposit", "1"),
            (2, "seen", "2"),
            (3, "deposit", "later"),
        ]
        person = running.workspace.find("id", "1")
        assert person is not None
        assert (person.attributes["b"], person.segments) == ("2", {number})
        assert (running.workspace.counts()["people"], running.workspace.counts()["duplicates"]) == (3, 1)


def test_activities_of_a_person_deleted_after_a_restart_are_marked(tmp_path: Path) -> None:
    """The person's log and the workspace's share their lines, before and after."""
    state = tmp_path / "state.json"
    with serve.start(state_file=state) as running:
        send(running.url, event("1"))
    with serve.start(state_file=state) as running:
        send(running.url, {"type": "person", "action": "delete", "identifiers": {"id": "1"}})
        answer = httpx.get(f"{running.url}/v1/activities", headers={"authorization": "Bearer x"})
        assert answer.json()["activities"] == []


def test_the_state_is_saved_while_running_when_it_changed(tmp_path: Path) -> None:
    """A killed process loses seconds, not the day; nothing but the file itself is left beside it."""
    state = tmp_path / "state.json"
    with serve.start(state_file=state, save_seconds=0.02) as running:
        send(running.url, event("1"))
        deadline = clock.monotonic() + 10
        while not json.loads(state.read_text())["events"]:
            assert clock.monotonic() < deadline
            clock.sleep(0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_the_state_is_replaced_whole_and_only_after_a_change(tmp_path: Path) -> None:
    """A reader has the old file or the new one; an idle emulator does not write."""
    state, workspace = tmp_path / "state.json", Workspace()
    keeper = Keeper(workspace, state, every=60)
    first = state.stat().st_ino
    with state.open() as old:
        keeper.save()
        assert state.stat().st_ino == first
        workspace.accept([event(str(number)) for number in range(2500)])
        keeper.save()
        assert state.stat().st_ino != first
        assert json.load(old)["events"] == []
    restored = Workspace()
    Keeper(restored, state, every=60)
    assert restored.counts() == workspace.counts()
    assert restored.find("id", "2499") is not None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"version": 99}', '{"version": 1}', "null", '"text"', "\u00ff" * 3]
)
def test_a_broken_state_file_is_named_with_a_remedy_and_left_alone(tmp_path: Path, content: str) -> None:
    """The emulator does not start, and does not overwrite what a person may want to mend."""
    state = tmp_path / "state.json"
    state.write_text(content, encoding="latin-1")
    with pytest.raises(Misconfigured, match="state file") as caught:
        serve.start(state_file=state)
    assert caught.value.hint
    assert state.read_text(encoding="latin-1") == content


def test_a_state_file_with_a_damaged_part_is_refused(tmp_path: Path) -> None:
    """Not only its outermost shape is looked at."""
    state = tmp_path / "state.json"
    with serve.start(state_file=state) as running:
        send(running.url, event("1"))
    whole = json.loads(state.read_text())
    for name in whole:
        state.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(Misconfigured):
            serve.start(state_file=state)
    for name, damage in (("people", [{}]), ("events", [[1]]), ("suppressed", [[1, 2, 3]]), ("next_serial", "x")):
        state.write_text(json.dumps({**whole, name: damage}))
        with pytest.raises(Misconfigured):
            serve.start(state_file=state)


# In process ---------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_named_with_a_remedy() -> None:
    """And stopping twice does no harm."""
    with serve.start() as running:
        port = int(running.url.rpartition(":")[2])
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}"):
            serve.start(port=port)
        running.stop()
        assert not running.alive


def test_many_clients_at_once_lose_nothing() -> None:
    """Eight threads, each with its own connection, and every event is accepted once."""
    with serve.start() as running:

        def work(thread: int) -> None:
            with httpx.Client(base_url=running.url, auth=("site", "key")) as client:
                for number in range(10):
                    items = [event(f"{thread}-{number}") for _ in range(20)]
                    assert client.post("/api/v2/batch", json={"batch": items}).status_code == 200

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = running.workspace.counts()
        assert (counts["events"], counts["people"]) == (1600, 80)


# TLS and the official client ----------------------------------------------------------------------------------------


@pytest.fixture
def secure() -> Iterator[serve.Running]:
    certificate = tls.self_signed(now=clock.now())
    options = Options(site_id="site", api_key="key", app_key="app")
    with serve.start(options, faults=Faults(app_rate=None), certificate=certificate) as running:
        yield running


def official(running: serve.Running) -> customerio.CustomerIO:
    """Return the vendor's Track client, which always speaks https, aimed at the emulator."""
    assert running.certificate is not None
    host, _, port = running.url.removeprefix("https://").partition(":")
    client = customerio.CustomerIO("site", "key", host=host, port=int(port), retries=2)
    client.http.trust_env = False  # a certificate bundle named in the environment would win over this one
    client.http.verify = str(running.certificate.cert_file)
    return client


def test_a_self_signed_certificate_is_private_and_discarded(secure: serve.Running) -> None:
    """Clients that trust it verify the loopback address; its files go with the server."""
    pair = secure.certificate
    assert pair is not None
    assert stat.S_IMODE(pair.key_file.stat().st_mode) == 0o600
    assert secure.url.startswith("https://127.0.0.1:")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{secure.url}/auth")
    secure.stop()
    assert not pair.cert_file.exists()


def test_the_official_track_client_works(secure: serve.Running) -> None:
    """Identify, track, devices, suppress, merge, delete and batch do what they say."""
    with official(secure) as client:
        client.identify(id="brand1:1", email="p@example.com", balance=12.5, gone=float("nan"))
        client.track("brand1:1", "deposit", {"amount": 5}, id=ULID, timestamp=1767225600)
        client.track("brand1:1", "deposit", {"amount": 5}, id=ULID)
        client.backfill("brand1:1", "old", 1, amount=1)
        client.track_anonymous("anon", "seen")
        client.pageview("brand1:1", "/lobby")
        client.add_device("brand1:1", "token/1", "ios")
        client.delete_device("brand1:1", "token/1")
        client.identify(id="other/2", city="Riga")
        client.merge_customers("id", "brand1:1", "id", "other/2")
        client.suppress("blocked")
        client.identify(id="blocked")
        client.unsuppress("blocked")
        client.identify(id="dropped")
        client.delete("dropped")
    person = secure.workspace.find("id", "brand1:1")
    assert person is not None
    assert person.attributes == {"id": "brand1:1", "email": "p@example.com", "balance": "12.5", "city": "Riga"}
    counts = secure.workspace.counts()
    assert (counts["people"], counts["events"], counts["duplicates"]) == (1, 4, 1)


def test_the_official_batch_sees_partial_success(secure: serve.Running) -> None:
    """It returns the 207 and does not raise."""
    with official(secure) as client:
        answer = client.batch([event("1", id=ULID), {**event("1"), "name": ""}])
    assert answer.status_code == 207
    assert [error["batch_index"] for error in answer.json()["errors"]] == [1]


def test_the_official_client_survives_a_reset_by_its_retry_and_our_dedup(secure: serve.Running) -> None:
    """The event was applied before the connection broke; the retry is a duplicate."""
    secure.workspace.faults.script[:] = ["reset", "503"]
    with official(secure) as client:
        client.track("1", "deposit", id=ULID)
    counts = secure.workspace.counts()
    assert (counts["events"], counts["duplicates"]) == (1, 1)


def test_the_official_client_raises_on_wrong_keys(secure: serve.Running) -> None:
    """With the status in its message."""
    with official(secure) as client:
        client.http.auth = ("site", "wrong")
        with pytest.raises(customerio.CustomerIOException, match="401"):
            client.identify(id="1")
