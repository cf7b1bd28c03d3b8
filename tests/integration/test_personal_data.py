"""What a person is called and reached by goes from the view to the API, and to no log, listing or message."""

from __future__ import annotations

import base64
import json
import signal
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import httpx
import psycopg
import pytest
import structlog
import yaml
from prometheus_client import generate_latest

from connector import app as application, cli, contacts, tenancy
from connector.emulators.options import Faults
from connector.errors import Halted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from connector.emulators import serve
    from connector.store.database import Database

Look = Any
KEYS: Final = "\n".join(f"{name} {base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("1", "match")))
COLUMNS: Final = (
    *("dt_update", "ext_brand_id", "user_ext_id", "core_account_status", "core_registration_date"),
    *("core_user_language", "core_wallet_currency", "mail_address", "user_phone", "user_first_name", "user_last_name"),
    *("user_birthdate", "tags"),
)
LONG_AGO: Final = "2026-01-05 12:00:00+00"
CIPHERTEXT: Final = "U2FsdGVkX1+34600000000Zm9vYmFy=="
#: A good one, one with fields that can't be read, one that the API refuses, one without status, and two that share.
PEOPLE: Final[dict[str, dict[str, str | None]]] = {
    "1": {},
    "2": {"user_phone": "Isadora.2@example.com", "user_birthdate": "Isadora", "tags": "[Isadora"},
    "3": {},
    "4": {"core_account_status": None},
    "5": {"mail_address": CIPHERTEXT, "user_phone": CIPHERTEXT},
    "6": {"mail_address": "ISADORA.1@EXAMPLE.COM"},
}
#: Parts of names, addresses and numbers of all these people; ids, ciphertext and masks hold none of them.
PERSONAL: Final = ("isadora", "quixote", "@example", "600777", CIPHERTEXT.lower())


def person(name: str, **changes: str | None) -> tuple[str | None, ...]:
    """Return a row of user_profile."""
    row: dict[str, str | None] = {
        **dict.fromkeys(COLUMNS),
        "dt_update": LONG_AGO,
        "ext_brand_id": "kaasino",
        "user_ext_id": name,
        "core_account_status": "ACTIVE",
        "core_registration_date": LONG_AGO,
        "core_user_language": "ES",
        "core_wallet_currency": "EUR",
        "mail_address": f"Isadora.{name}@example.com",
        "user_phone": f"+3460077700{name}",
        "user_first_name": f"Isadora{name}",
        "user_last_name": f"Quixote{name}",
        **changes,
    }
    return tuple(row.values())


class House:
    """An operator's users, a store, an API that refuses one of them, and commands that are listened to."""

    def __init__(self, operator: Any, store: Database, emulator: serve.Running, path: Path, capsys: Any) -> None:
        self.operator, self.store, self.emulator, self.path, self.capsys = operator, store, emulator, path, capsys
        self.said: list[str] = []
        columns = ", ".join(f"{name} text" for name in COLUMNS[1:])
        operator.execute(f"create table people (dt_update timestamptz, {columns})")
        operator.execute("create view user_profile as select * from people")
        operator.fill("people", [person(name, **changes) for name, changes in PEOPLE.items()])
        faults = {**asdict(Faults()), "refuse_ids": ["kaasino:3"]}
        assert httpx.patch(f"{emulator.url}/_control/faults", json=faults).is_success

    def configure(self, keys: str | None) -> None:
        """Write the configuration."""
        users = {"columns": {"user_email": "mail_address"}}
        source = {"name": "casino", "url": self.operator.url, "streams": {"user_profile": users}}
        destination = {"name": "customerio", "kind": "customerio_track", "url": self.emulator.url}
        document: dict[str, Any] = {
            "tenant": "kaasino",
            "store": {"url": self.store.url},
            "sources": [source],
            "destinations": [{**destination, "site_id": "s", "api_key": "k"}],
            "web": None,
        }
        if keys is not None:
            document["personal_data"] = {"keys": keys}
        self.path.write_text(yaml.safe_dump(document))

    def run(self, *words: str) -> int:
        """Run a command through the entry point; what it says is kept."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.capsys.readouterr()
        code: Any = 0
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["connector", *words, "--config", str(self.path)])
                patch.setenv("COLUMNS", "300")
                cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            structlog.reset_defaults()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        self.said += self.capsys.readouterr()
        return int(code)

    def once(self) -> int:
        """Run to the heads, saying as much as can be said."""
        return self.run("run", "--once", "--log-level", "debug")

    def leaks(self) -> set[str]:
        """Return what is personal in all that was said."""
        said = "\n".join(self.said).lower()
        return {part for part in PERSONAL if part in said}


@pytest.fixture(params=[None, KEYS], ids=["plain", "encrypted"])
def house(
    request: pytest.FixtureRequest,
    operator_of: Callable[[str], Any],
    store: Database,
    emulator: serve.Running,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> House:
    """Give such a house, with and without keys."""
    made = House(operator_of("postgresql"), store, emulator, tmp_path / "config.yaml", capsys)
    made.configure(request.param)
    return made


def test_contacts_reach_the_api_as_the_source_wrote_them(house: House, look: Look) -> None:
    """Encrypted in the store or not, the operator's own ciphertext too; refused ones lie masked where there are keys."""
    assert house.once() == 0
    sent = {}
    for name in PEOPLE:
        found = house.emulator.workspace.find("id", f"kaasino:{name}")
        sent[name] = found and {key: found.attributes.get(key) for key in ("email", "phone", "first_name")}
    assert sent["1"] == {"email": "Isadora.1@example.com", "phone": "+34600777001", "first_name": "Isadora1"}
    assert sent["5"] == {"email": CIPHERTEXT, "phone": CIPHERTEXT, "first_name": "Isadora5"}
    assert (sent["3"], sent["4"]) == (None, None)
    keys = tenancy.keys_of(application.load_config(house.path))
    (letter,) = look("select payload, message from crm.dead_letters")
    masked = ("I***@e***.com", "+34******03")
    told = (letter["payload"]["attributes"]["email"], letter["payload"]["attributes"]["phone"])
    assert told == (masked if keys else ("Isadora.3@example.com", "+34600777003"))
    raws = {row["raw"]["mail_address"] for row in look("select raw from crm.quarantine where external_id = '4'")}
    assert raws == {"I***@e***.com" if keys else "Isadora.4@example.com"}
    stored = look("select email, email_match from crm.player_contacts join crm.players using (player_id)")
    assert {str(row["email"])[:7] for row in stored} == ({"enc:v1:"} if keys else {"Isadora", "ISADORA", "U2FsdGV"})
    house.operator.execute("update people set core_account_status = 'ACTIVE' where user_ext_id = '4'")
    house.run("quarantine", "retry", "--all")
    (row,) = look("select k.* from crm.player_contacts k join crm.players using (player_id) where external_id = '4'")
    assert contacts.opened(row, "kaasino", keys)["email"] == "Isadora.4@example.com"
    assert row["key_id"] == (1 if keys else 0)


def test_nothing_personal_is_said_whatever_goes_wrong(house: House, look: Look) -> None:
    """Rows and items refused, the store and the source failing with a row in their mouths; every command, metrics too."""
    assert house.once() == 0
    refused = [row["id"] for row in look("select id from crm.quarantine")]
    assert (len(refused) >= 3, look("select count(*) as n from crm.dead_letters")) == (True, [{"n": 1}])
    with psycopg.connect(house.store.url, autocommit=True) as connection:
        connection.execute("alter table crm.players add constraint never check (first_name <> 'Isadora the Third')")
    house.operator.execute(
        "update people set user_first_name = 'Isadora the Third', dt_update = dt_update + interval '1 day'"
        " where user_ext_id = '1'"
    )
    assert house.once() == 1
    assert "CheckViolation" in house.said[-1]
    house.operator.execute(
        "create or replace view user_profile as select dt_update, ext_brand_id, user_ext_id,"
        " core_account_status, core_registration_date, core_user_language, core_wallet_currency,"
        " mail_address, user_phone, (user_first_name::int)::text as user_first_name, user_last_name,"
        " user_birthdate, tags from people"
    )
    assert house.once() != 0
    assert "invalid input syntax for type integer: ..." in "\n".join(house.said)
    words = [["status"], ["status", "--json"], ["check"], ["check", "--json"], ["players", "conflicts"]]
    words += [["quarantine", "list", "--all"], ["quarantine", "list", "--all", "--rows", "--json"], ["keys", "show"]]
    words += [["players", "show", "kaasino", name, *more] for name in ("1", "5") for more in ((), ("--json",))]
    words += [["quarantine", "retry", "--all"]]
    for line in words:
        house.run(*line)
    assert "I***@e***.com" in "\n".join(house.said)
    assert house.leaks() == set()
    assert house.run("players", "show", "kaasino", "1", "--personal") == 0
    assert house.leaks() == {"isadora", "quixote", "@example", "600777"}


def test_metrics_and_the_status_page_name_nobody(house: House) -> None:
    """Streams and destinations, and how many."""
    settings = application.load_config(house.path)
    app = application.build(settings, once=True)
    app.run_once(threading.Event())
    with application.reading(settings) as store:
        house.said.append(json.dumps(application.report(store, settings), default=str))
    house.said.append(generate_latest(app.metrics.registry).decode())
    assert "customerio" in house.said[0]
    assert house.leaks() == set()


def test_a_destination_stops_at_contacts_that_it_has_no_key_for(house: House, writer: Any) -> None:
    """A daemon with an older file, beside one that has rotated: it says which key, and sends nothing without contacts."""
    house.configure(KEYS)
    app = application.build(application.load_config(house.path))
    newer = base64.b64encode(bytes([7]) * 32).decode()
    writer.keys = contacts.parse(f"{KEYS}\n2 {newer}")
    writer.profiles({"external_id": "9", "email": "Isadora.9@example.com"})
    stopped = set()
    for relay in app.relays:
        try:
            relay.run_once()
        except Halted as error:
            stopped.add(error.message)
    app.close()
    assert stopped == {"contacts are encrypted with key 2, which is not known here"}
    assert house.emulator.workspace.counts()["people"] == 0
