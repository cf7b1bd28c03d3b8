"""`/v1/segments` over HTTP and `connector segments ...`: what a marketer's tools say to the store."""

from __future__ import annotations

import csv
import io
import json
import socket
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
import yaml

from connector import app as application, config
from connector.metrics import Metrics
from connector.segments.templates import templates
from connector.service import Service
from connector.web import segments as pages
from connector.web.server import WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.store.database import Database

Look = Any
Command = Any
TOKEN: Final = "a-token-that-nobody-guesses"
DEPOSITORS: Final = {
    "operator": "AND",
    "conditions": [{"type": "trait", "field": "deposit_count", "op": ">", "value": 0}],
}
_PLAYERS: Final = """
    insert into crm.tenants (tenant, base_currency) values ('kaasino', 'EUR');
    insert into crm.players (tenant, brand_id, external_id, deposit_count, first_name)
    select 'kaasino', 'mycasino', g::text, g % 3, 'Ana' from generate_series(1, 30) g;
    insert into crm.players (tenant, brand_id, external_id, deposit_count) values ('other', 'mycasino', '1', 5);
    create table if not exists crm.player_contacts (
        player_id bigint primary key references crm.players, tenant text not null, email text, phone text,
        email_match text collate "C", phone_match text collate "C");
    insert into crm.player_contacts (player_id, tenant, email, phone)
    select player_id, tenant, external_id || '@example.com', '+346000000' || external_id from crm.players
    where tenant = 'kaasino';
"""


@pytest.fixture
def document(store: Database) -> dict[str, Any]:
    """Give a configuration over a store with players."""
    with store.connect() as connection:
        connection.execute(_PLAYERS.encode())
    source = {"name": "casino", "url": "postgresql://reader@replica.example.com/casino", "streams": {"deposits": {}}}
    return {"tenant": "kaasino", "store": {"url": store.url}, "sources": [source], "web": {"token": TOKEN}}


# Over HTTP ----------------------------------------------------------------------------------------------------------


def _address() -> str:
    """Return an address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _served(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/health").is_success
    return False


@pytest.fixture
def client_of(store: Database, document: dict[str, Any], wait: Any) -> Iterator[Callable[..., httpx.Client]]:
    """Give a maker of clients of the pages, with or without a token configured."""
    with ExitStack() as stack:

        def make(token: str | None = TOKEN) -> httpx.Client:
            address, desk = _address(), application.segment_desk(store, config.parse(document))
            mounted = pages.routes(desk, token)
            web = WebServer(address, registry=Metrics().registry, stuck=list, status=dict, mounted=mounted)
            web.start()
            stack.callback(web.stop)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            client = stack.enter_context(httpx.Client(base_url=f"http://{address}", headers=headers))
            wait(lambda: _served(client), what="the pages are served")
            return client

        yield make


@pytest.fixture
def client(client_of: Callable[..., httpx.Client]) -> httpx.Client:
    """Give a client that knows the token."""
    return client_of()


def test_the_process_serves_segments_beside_its_health(document: dict[str, Any], wait: Any) -> None:
    """On `web.listen`, changed with `web.token`."""
    listen, said = _address(), {"name": "Depositors", "definition": DEPOSITORS}
    app = application.build(config.parse({**document, "web": {"listen": listen, "token": TOKEN}}))
    web = app._web(Service([], app.metrics))
    assert web is not None
    try:
        with httpx.Client(base_url=f"http://{listen}") as client:
            wait(lambda: _served(client), what="the pages are served")
            assert client.post("/v1/segments", json=said).status_code == 401
            answer = client.post("/v1/segments", json=said, headers={"Authorization": f"Bearer {TOKEN}"})
            assert (answer.status_code, answer.json()["name"]) == (201, "Depositors")
    finally:
        web.stop()
        app.close()


def test_a_segment_lives_over_http(client: httpx.Client, look: Look) -> None:
    """Looked at, made, refreshed, read, changed, taken away."""
    seen = client.post("/v1/segments/preview", json={"definition": DEPOSITORS}).json()
    assert (seen["estimate"], seen["exact"], len(seen["sample"])) == (20, True, 10)
    made = client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS})
    assert (made.status_code, made.json()["refresh_strategy"], made.json()["members"]) == (201, "realtime", None)
    path = f"/v1/segments/{made.json()['id']}"
    done = client.post(f"{path}/refresh", json={}).json()
    assert done == {"members": 20, "entered": 20, "left": 0, "first": True}
    shown = client.get(path).json()
    assert (shown["members"], shown["definition"], shown["name"]) == (20, DEPOSITORS, "Depositors")
    assert client.get("/v1/segments").json()["segments"] == [shown]
    changed = client.patch(path, json={"refresh_strategy": "scheduled", "schedule": "0 6 * * 1"})
    assert (changed.status_code, changed.json()["schedule"], changed.json()["revision"]) == (200, "0 6 * * 1", 1)
    assert changed.json()["next_refresh_at"] is not None
    assert client.delete(path).json() == {"members": 20}
    assert client.get(path).status_code == 404
    assert look("select from crm.players where segment_ids <> '{}'") == []


def test_members_come_page_by_page_without_names_and_contacts(client: httpx.Client) -> None:
    """Each once; the last page says that it is."""
    made = client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS}).json()
    client.post(f"/v1/segments/{made['id']}/refresh", json={})
    found, after = [], 0
    while after is not None:
        page = client.get(f"/v1/segments/{made['id']}/players", params={"after": after, "limit": 7}).json()
        found += page["players"]
        after = page["after"]
    assert [row["external_id"] for row in found] == [str(number) for number in range(1, 31) if number % 3]
    assert "Ana" not in json.dumps(found)
    assert "example.com" not in json.dumps(found)


def test_mistakes_come_with_their_paths(client: httpx.Client) -> None:
    """All of them, 422; a name that is used is 409, what is not there 404."""
    bad = {"operator": "AND", "conditions": [{"type": "trait", "field": "deposits", "op": "~", "value": 1}, 5]}
    answer = client.post("/v1/segments", json={"name": "", "definition": bad})
    assert answer.status_code == 422
    assert [mistake["path"] for mistake in answer.json()["mistakes"]] == [
        "name",
        "conditions[0].field",
        "conditions[1]",
    ]
    assert client.post("/v1/segments/preview", json={"definition": bad}).status_code == 422
    assert client.post("/v1/segments/preview", json={}).status_code == 422
    made = client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS})
    assert client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS}).status_code == 409
    assert client.patch(f"/v1/segments/{made.json()['id']}", json={"nme": "x"}).json()["mistakes"][0]["path"] == "nme"
    for method, path in (
        ("GET", "/v1/segments/999"),
        ("GET", f"/v1/segments/{2**70}"),
        ("GET", "/v1/segments/999/players"),
        ("DELETE", "/v1/segments/999"),
    ):
        assert client.request(method, path).status_code == 404, path
    assert client.post("/v1/segments/999/refresh", json={}).status_code == 404
    assert client.patch("/v1/segments/999", json={"name": "x"}).status_code == 404


NO_PAGES: Final = [{"limit": "x"}, {"limit": "1001"}, {"after": "-1"}, {"after": str(2**63)}]


def test_a_page_is_asked_for_in_numbers(client: httpx.Client) -> None:
    """Whole ones, in bounds."""
    made = client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS}).json()
    for asked in NO_PAGES:
        assert client.get(f"/v1/segments/{made['id']}/players", params=asked).status_code == 422, asked


NO_SEGMENTS: Final = [
    (b"", 400),
    (b"{", 400),
    (b"\xff", 400),
    (b"[]", 400),
    (b"[" * 100_000, 400),
    (b'{"definition": {"operator": "AND", "conditions": ' + b"[" * 900 + b"]" * 900 + b"}}", 422),
    (b'{"name": "' + b"x" * 300_000 + b'"}', 413),
    (b'{"name": "\\u0000", "definition": null}', 422),
    (b'{"name": "\\ud800", "definition": {"operator": "\\ud800"}}', 422),
    (b'{"\\ud800": NaN}', 422),
]


def test_what_is_no_segment_is_refused(client: httpx.Client) -> None:
    """With an answer, whatever was sent."""
    for content, status in NO_SEGMENTS:
        answer = client.post("/v1/segments", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, content[:80]
        assert answer.json()["error"]


WRITING: Final = (
    ("POST", "/v1/segments"),
    ("POST", "/v1/segments/preview"),
    ("PATCH", "/v1/segments/1"),
    ("DELETE", "/v1/segments/1"),
    ("POST", "/v1/segments/1/refresh"),
)


def test_nothing_is_changed_without_the_token(client_of: Callable[..., httpx.Client], look: Look) -> None:
    """Wrong, in part, of another scheme or not there: 401; without one in the configuration: 403 with the remedy."""
    said = {"name": "Depositors", "definition": DEPOSITORS}
    client, closed = client_of(), client_of(None)
    assert client.post("/v1/segments", json=said).status_code == 201
    for method, path in WRITING:
        for header in ("", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", TOKEN):
            answer = client.request(method, path, json=said, headers={"Authorization": header})
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), (method, path, header)
        refused = closed.request(method, path, json=said)
        assert (refused.status_code, "web.token" in refused.json()["error"]) == (403, True), (method, path)
    assert closed.get("/v1/segments").json()["segments"][0]["name"] == "Depositors"
    assert [row["refreshed_at"] for row in look("select * from crm.segments")] == [None]


FORMS: Final = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""]


def test_a_form_of_a_web_page_is_refused(client: httpx.Client, look: Look) -> None:
    """Even with the token: JSON can't be posted across origins unasked."""
    said = json.dumps({"name": "Depositors", "definition": DEPOSITORS})
    for kind in FORMS:
        assert client.post("/v1/segments", content=said, headers={"Content-Type": kind}).status_code == 415, kind
    assert look("select from crm.segments") == []


def test_a_store_that_is_away_is_said(client: httpx.Client, store: Database) -> None:
    """503: try again."""
    with store.connect() as connection:
        connection.execute("alter table crm.segments rename to segments_away")
        connection.execute("create view crm.segments as select * from crm.segments_away where pg_sleep(0) is null")
        name = store.url.rpartition("/")[2]
        connection.execute(f"alter database {name} set default_transaction_read_only = on".encode())
    answer = client.post("/v1/segments", json={"name": "Depositors", "definition": DEPOSITORS})
    assert (answer.status_code, "standby" in answer.json()["error"]) == (503, True)


# By command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Give a runner of commands through the entry point; returns exit code and what was printed."""
    from connector import cli

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))

    def run(*words: str, given: str = "") -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["connector", "segments", *words, "--config", str(path)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        monkeypatch.setenv("COLUMNS", "200")
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out + err

    return run


def test_a_segment_lives_by_command(command: Command, tmp_path: Path) -> None:
    """Of a file, of standard input or of a template; by name or number."""
    file = tmp_path / "depositors.json"
    file.write_text(json.dumps(DEPOSITORS))
    assert "no segment yet" in command("list")[1]
    assert command("preview", "--file", str(file))[1].startswith("20 players\n")
    code, told = command("create", "Depositors", "--file", str(file), "--description", "who paid", "--json")
    assert (code, json.loads(told)["description"]) == (0, "who paid")
    number = str(json.loads(told)["id"])
    assert command("refresh", "Depositors") == (0, "20 members: 20 entered, 0 left\n")
    assert json.loads(command("refresh", number, "--json")[1])["entered"] == 0
    assert json.loads(command("show", number, "--json")[1])["members"] == 20
    assert '"deposit_count"' in command("show", "Depositors")[1]
    assert "Depositors" in command("list")[1]
    assert [row["name"] for row in json.loads(command("list", "--json")[1])] == ["Depositors"]
    assert command("create", "DEP 1", "--template", "dep-1", "--refresh-strategy", "on_demand")[0] == 0
    assert json.loads(command("preview", "DEP 1", "--json")[1])["estimate"] == 10
    assert "revision 2" in command("edit", "DEP 1", "--template", "dep-2", "--name", "DEP 2")[1]
    assert "revision 3" in command("edit", "DEP 2", "--file", "-", given=json.dumps(DEPOSITORS))[1]
    assert command("delete", "Depositors", "--yes") == (0, "taken away; 20 players were in it\n")
    assert command("delete", "DEP 2")[0] == 2
    assert [row["name"] for row in json.loads(command("list", "--json")[1])] == ["DEP 2"]


def test_contacts_are_exported_only_when_asked_for(command: Command) -> None:
    """As CSV or a JSON object a line."""
    command("create", "Depositors", "--file", "-", given=json.dumps(DEPOSITORS))
    command("refresh", "Depositors")
    rows = list(csv.DictReader(io.StringIO(command("export", "Depositors")[1])))
    assert rows[:2] == [{"brand": "mycasino", "external_id": "1"}, {"brand": "mycasino", "external_id": "2"}]
    assert len(rows) == 20
    lines = command("export", "Depositors", "--format", "jsonl")[1].splitlines()
    assert json.loads(lines[0]) == {"brand": "mycasino", "external_id": "1"}
    personal = {"email": "1@example.com", "phone": "+3460000001"}
    told = command("export", "Depositors", "--format", "jsonl", "--personal")[1].splitlines()[0]
    assert json.loads(told) == {"brand": "mycasino", "external_id": "1", **personal}
    (row, *_) = csv.DictReader(io.StringIO(command("export", "Depositors", "--personal")[1]))
    assert row["email"] == "1@example.com"


def test_every_template_makes_a_segment(command: Command) -> None:
    """By its name, and of what is printed of it."""
    listed, told = command("templates")[1], json.loads(command("templates", "--json")[1])
    for name in templates():
        assert name in listed
        assert json.loads(command("templates", name)[1]) == told[name]["definition"]
        assert command("create", name, "--template", name)[0] == 0
    printed = command("templates", "high-rollers")[1]
    assert command("create", "Printed", "--file", "-", given=printed)[0] == 0
    assert command("refresh", "vip-candidates")[0] == 0


MISTAKEN: Final = [
    (("show", "Depositers"), "did you mean 'Depositors'?"),
    (("refresh", "99"), "there is no segment '99'"),
    (("create", "Depositors", "--template", "dep-1"), "another segment is named 'Depositors'"),
    (("create", "x", "--template", "dep-9"), "there is no template 'dep-9'"),
    (("create", "x"), "say where the definition is"),
    (("create", "x", "--template", "dep-1", "--file", "y.json"), "say where the definition is"),
    (("create", "x", "--file", "/nowhere.json"), "cannot read /nowhere.json"),
    (("create", "x", "--file", "-"), "is not JSON"),
    (("create", "x", "--template", "dep-1", "--schedule", "daily"), "schedule: write five fields"),
    (("create", "x", "--template", "dep-1", "--refresh-strategy", "hourly"), "refresh_strategy: 'hourly' is none"),
    (("edit", "Depositors"), "nothing is to be changed"),
    (("preview",), "say where the definition is"),
]


def test_a_mistake_is_one_message_with_its_remedy(command: Command) -> None:
    """Exit code 2, nothing changed."""
    command("create", "Depositors", "--file", "-", given=json.dumps(DEPOSITORS))
    for words, said in MISTAKEN:
        code, told = command(*words)
        assert (code, said in told, "Traceback" in told) == (2, True, False), told
    assert len(json.loads(command("list", "--json")[1])) == 1


def test_a_wrong_definition_is_told_by_its_paths(command: Command) -> None:
    """On the terminal as over HTTP."""
    bad = {"operator": "AND", "conditions": [{"type": "trait", "field": "deposits", "op": "=", "value": 1}]}
    code, told = command("create", "x", "--file", "-", given=json.dumps(bad))
    assert (code, "conditions[0].field: 'deposits' is no field: did you mean" in told) == (2, True)
