"""A person that was erased stays so, whatever reads, replays, repairs or loads again; and no byte of theirs is left."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import structlog
import yaml
from psycopg.rows import dict_row
from typer.testing import CliRunner

from connector import app as application, config
from connector.cli import app
from connector.store import embedded
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.emulators import serve

OperatorDatabase = Any
NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
EMAIL, PHONE, FIRST, LAST = "zebulon.q@example.com", "+34600123457", "Zebulon", "Quastenflosser"
#: As the person is spelled anywhere.
TRACES: Final = ("zebulon.q@example", "600123457", "Zebulon", "Quastenflosser", "zebu_login", "zebu-device")
_SETTINGS: Final = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB"}
_TABLES: Final = {
    "user_profile": "dt_update timestamptz, ext_brand_id text, user_ext_id text, core_account_status text,"
    " core_registration_date timestamptz, core_user_language text, core_wallet_currency text, core_username text,"
    " user_first_name text, user_last_name text, user_email text, user_phone text, user_country text, tags text,"
    " anonymous_id text, core_is_email_disabled_by_platform boolean, primary key (ext_brand_id, user_ext_id)",
    "deposits": "dt_finalized timestamptz, ext_brand_id text, user_ext_id text, transaction_id text primary key,"
    " transaction_date timestamptz, deposit_amount text, currency text, note text",
    "erasures": "dt_update timestamptz, ext_brand_id text, user_ext_id text, mode text,"
    " primary key (ext_brand_id, user_ext_id)",
}


@dataclass
class Firm:
    """An operator, an embedded store in a directory of its own, and an API."""

    operator: OperatorDatabase
    directory: Path
    path: Path
    emulator: serve.Running
    store: embedded.Server

    @property
    def settings(self) -> config.Config:
        """The configuration, also written to `path`."""
        streams = {"user_profile": {}, "deposits": {"extra": ["note"]}, "erasures": {}}
        destination = {"name": "customerio", "kind": "customerio_track", "url": self.emulator.url}
        document = {
            "tenant": "kaasino",
            "store": {"url": f"embedded:{self.directory}"},
            "web": None,
            "sources": [{"name": "casino", "url": self.operator.url, "lateness": "1s", "streams": streams}],
            "destinations": [{**destination, "site_id": "s", "api_key": "k"}],
        }
        self.path.write_text(yaml.safe_dump(document))
        return config.parse(document, streams=list(STREAMS))

    def user(self, player: str = "7", *, at: datetime = NOON) -> None:
        """Add or touch a user; 7 is the person that this is about."""
        self.operator.execute(f"delete from user_profile_rows where user_ext_id = '{player}'")
        person = ("zebu_login", FIRST, LAST, EMAIL, PHONE, "ES", "vip", "zebu-device")
        other = ("ann", "Ann", "Other", "ann@example.com", None, "ES", "vip", "device-8")
        account = (str(at), "kaasino", player, "ACTIVE", str(NOON), "EN", "EUR")
        self.operator.fill("user_profile_rows", [(*account, *(person if player == "7" else other), False)])

    def deposit(self, key: str, *, player: str = "7", at: datetime = NOON, amount: str = "10.50") -> None:
        """Add a deposit, with a note that names the player."""
        row = (str(at), "kaasino", player, key, str(at), amount, "EUR", f"paid by {FIRST} {LAST}")
        self.operator.fill("deposits_rows", [row])

    def read(self) -> None:
        """Let the daemon read and deliver everything."""
        assert application.build(self.settings, once=True).run_once(threading.Event()) == {}

    def command(self, *words: str, code: int = 0) -> str:
        """Run a command and return what it printed."""
        assert self.settings
        done = CliRunner().invoke(app, [*words, "--config", str(self.path)])
        structlog.reset_defaults()  # the command's log went to a stream that is closed by now
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Ask the store."""
        with psycopg.connect(self.store.url("crm"), row_factory=dict_row) as connection:
            return connection.execute(query.encode()).fetchall()

    def change(self, *statements: str) -> None:
        """Change the store behind the connector's back."""
        with psycopg.connect(self.store.url("crm")) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows_with(self, trace: str) -> list[str]:
        """Return the tables of the store, statistics too, that hold a text anywhere."""
        tables = self.ask("select schemaname || '.' || tablename as name from pg_tables where schemaname = 'crm'")
        names = [*(row["name"] for row in tables), "pg_stats"]
        wanted = trace.replace("'", "''").lower()
        return [
            name for name in names if self.ask(f"select from {name} t where strpos(lower(t::text), '{wanted}') > 0")
        ]

    def files_with(self, trace: str) -> list[str]:
        """Return the files of the store, its logs too, that hold a text anywhere."""
        wanted, found = trace.encode(), []
        for file in self.directory.rglob("*"):
            try:
                content = file.read_bytes() if file.is_file() else b""
            except FileNotFoundError:
                continue
            if wanted in content:
                found.append(str(file.relative_to(self.directory)))
        return found


@pytest.fixture
def firm(
    operator_of: Callable[[str], OperatorDatabase], directory: Path, tmp_path: Path, emulator: serve.Running
) -> Iterator[Firm]:
    """Give an operator with three empty views, on PostgreSQL."""
    operator = operator_of("postgresql")
    for name, columns in _TABLES.items():
        operator.execute(f"create table {name}_rows ({columns})", f"create view {name} as select * from {name}_rows")
    place = directory / f"store-{operator.url.rpartition('/')[2]}"
    server = embedded.start(place, settings=_SETTINGS)
    try:
        yield Firm(operator, place, tmp_path / "config.yaml", emulator, server)
    finally:
        server.stop()


def test_nothing_of_a_person_is_left_and_nothing_brings_it_back(firm: Firm) -> None:
    """Erased, then read, replayed, audited, loaded and retried again: no row, statistic, file or log has a trace."""
    firm.user()
    firm.user("8")
    for number in range(3):
        firm.deposit(f"d{number}")
    firm.deposit("bad", amount="-1")
    firm.read()
    assert all(firm.rows_with(trace) for trace in TRACES)

    said = firm.command("forget", "kaasino:7", "--yes")
    assert "kaasino:7: erased" in said
    assert "no remnant is left" in said
    assert [firm.files_with(trace) for trace in TRACES] == [[]] * len(TRACES)
    firm.user(at=NOON + timedelta(seconds=1))
    firm.deposit("d3", at=NOON + timedelta(seconds=5))
    firm.read()
    firm.command("replay", "--destination", "customerio", "--yes")
    firm.change("delete from crm.event_rows where key = 'd1'", "delete from crm.player_changes")
    firm.command("audit", "--repair")
    firm.command("quarantine", "retry", "--all", code=1)
    firm.command("backfill", "--stream", "user_profile", "--from", "2026-01-01", "--to", "2026-12-31")
    firm.read()
    firm.command("store", "compact")
    for trace in TRACES:
        assert firm.rows_with(trace) == [], trace
        assert firm.files_with(trace) == [], trace
    (player,) = firm.ask("select * from crm.players where external_id = '7'")
    assert (player["status"], player["marketable"], player["erased_at"] is None) == ("deleted", False, False)
    keys = firm.ask("select key, amount, properties from crm.events where external_id = '7' order by key")
    assert [(row["key"], str(row["amount"]), row["properties"]) for row in keys] == [
        (f"d{number}", "10.5", {}) for number in range(4)
    ]
    with firm.emulator.workspace.reading() as state:
        assert state.people.is_suppressed("id", "kaasino:7")
        assert [person.attributes["first_name"] for person in state.people.by_cio_id.values()] == ["Ann"]


def test_an_erasure_may_come_by_a_view_and_before_its_player(firm: Firm) -> None:
    """The stream erases whatever the mode; a person it names first is known as erased when the profile comes."""
    firm.operator.fill("erasures_rows", [(str(NOON), "kaasino", "7", "Anonymise"), (str(NOON), "kaasino", "9", None)])
    firm.read()
    firm.user()
    firm.user("8")
    firm.deposit("d1")
    firm.read()
    assert [firm.rows_with(trace) for trace in TRACES] == [[]] * len(TRACES)
    erased = firm.ask("select external_id, mode, requested_by from crm.erasures join crm.players using (player_id)")
    assert {(row["external_id"], row["mode"], row["requested_by"]) for row in erased} == {
        ("7", "anonymise", "erasures"),
        ("9", "delete", "erasures"),
    }
    firm.operator.execute("update user_profile_rows set dt_update = dt_update + interval '1 hour'")
    firm.read()
    assert firm.rows_with(FIRST) == []
    entries = firm.ask("select action, actor from crm.audit_log where action = 'erasure'")
    assert [(row["action"], row["actor"]) for row in entries] == [("erasure", "erasures")] * 2


def test_forgetting_again_is_told_and_harmless(firm: Firm) -> None:
    """One erasure, one entry of the audit log; a name that is no account is refused."""
    firm.user()
    firm.read()
    firm.command("forget", "kaasino:7", "--yes")
    assert "erased before" in firm.command("forget", "kaasino:7", "--yes")
    assert len(firm.ask("select from crm.erasures")) == 1
    assert len(firm.ask("select from crm.audit_log where action = 'erasure'")) == 1
    firm.command("forget", "kaasino", "--yes", code=1)
