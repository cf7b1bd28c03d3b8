"""The commands as processes: exit codes, messages for people, `status --json`, and how the daemon starts and ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import structlog
import yaml

from connector import app as application, cli, clock, config
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.emulators import serve
    from connector.store.database import Database

OperatorDatabase = Any
Look = Any
DEPOSITS: Final = (
    "dt_finalized timestamptz, ext_brand_id text, user_ext_id text, transaction_id text, transaction_date timestamptz, "
    "deposit_amount numeric, currency text"
)
USERS: Final = (
    "dt_update timestamptz, ext_brand_id text, user_ext_id text, core_account_status text, core_registration_date "
    "timestamptz, core_user_language text, core_wallet_currency text"
)
STOPS_WITHIN_SECONDS: Final = 10.0


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What it told on standard error without log lines, checked to be written for people."""
        assert "Traceback" not in self.err + self.out
        lines = [line for line in self.err.splitlines() if not line.startswith("{")]
        return "\n".join(lines)


class Site:
    """A configuration file and what it points to."""

    def __init__(
        self, path: Path, operator: OperatorDatabase, store: Database, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.path = path
        self.capsys = capsys
        self.operator = operator
        self.document: dict[str, Any] = {
            "store": {"url": store.url},
            "tenant": "kaasino",
            "sources": [
                {
                    "name": "casino",
                    "url": operator.url,
                    "wait": "100ms",
                    "streams": {"user_profile": {}, "deposits": {}},
                }
            ],
            "web": None,
        }

    @property
    def source(self) -> dict[str, Any]:
        """The configuration of the only source."""
        found: dict[str, Any] = self.document["sources"][0]
        return found

    def deliver_to(self, emulator: serve.Running, **changes: Any) -> None:
        """Add a destination."""
        self.document["destinations"] = [
            {
                "name": "customerio",
                "kind": "customerio_track",
                "url": emulator.url,
                "site_id": "s",
                "api_key": "k",
                **changes,
            }
        ]

    def command(self, *arguments: str) -> list[str]:
        """Return the command line, the configuration written."""
        self.path.write_text(yaml.safe_dump(self.document))
        return [sys.executable, "-m", "connector", *arguments, "--config", str(self.path)]

    def process(self, *arguments: str) -> Ended:
        """Run a command to its end in a process of its own."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=90, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments: str) -> Ended:
        """Run a command to its end in this process, through the same entry point."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        self.capsys.readouterr()
        code: Any = 0
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["connector", *self.command(*arguments)[3:]])
                cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            structlog.reset_defaults()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)

    def deposit(self, *keys: str) -> None:
        """Add deposits of now, and their player."""
        now = clock.now()
        self.operator.fill("deposits", [(now, "kaasino", "7", key, now, "10.00", "EUR") for key in keys])


@pytest.fixture
def site(
    tmp_path: Path,
    operator_of: Callable[[str], OperatorDatabase],
    store: Database,
    capsys: pytest.CaptureFixture[str],
) -> Site:
    """Give a configuration of two streams on a casino with one player and no deposits."""
    operator = operator_of("postgresql")
    operator.execute(f"create table deposits ({DEPOSITS})", f"create table user_profile ({USERS})")
    operator.execute("insert into user_profile values (now(), 'kaasino', '7', 'ACTIVE', now(), 'EN', 'EUR')")
    return Site(tmp_path / "config.yaml", operator, store, capsys)


@pytest.fixture
def daemon(site: Site, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Give a starter of daemons on the site's configuration."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / f"daemon{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(site.command("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


# Mistakes -----------------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_the_nearest_known_one(site: Site) -> None:
    """Exit 2, every mistake at once with its path."""
    site.document["tennant"] = "x"
    site.source["latenes"] = "2m"
    site.source["streams"]["deposits"] = {"curser": {"column": "id", "kind": "id"}}
    ended = site.process("run", "--once")
    assert ended.code == 2
    for told in (
        "tennant",
        "'tenant'",
        "sources[0].latenes",
        "'lateness'",
        "curser",
        "'cursor'",
    ):
        assert told in ended.message, told


def test_an_unknown_stream_is_named_with_the_nearest_known_one(site: Site) -> None:
    """Exit 2, as for any other unknown name."""
    site.source["streams"]["depositts"] = {}
    ended = site.run("run", "--once")
    assert ended.code == 2
    assert "depositts" in ended.message
    assert "'deposits'" in ended.message


def test_a_missing_variable_and_file_are_named(site: Site) -> None:
    """Exit 2 with the name of the variable, or of the file that holds the secret."""
    site.source["url"] = "${REPLICA_URL}"
    ended = site.run("run", "--once")
    assert ended.code == 2
    assert "REPLICA_URL is not set" in ended.message
    del site.source["url"]
    site.source["url_file"] = "/nonexistent/replica"
    ended = site.run("status")
    assert (ended.code, "/nonexistent/replica" in ended.message) == (2, True)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (DEPOSITS.replace("deposit_amount", "value"), ("deposit_amount", "missing", "value")),
        (DEPOSITS.replace("transaction_id", "reference"), ("no usable row key", "transaction_id", "reference")),
        (DEPOSITS.replace("dt_finalized", "settled_at"), ("dt_finalized", "settled_at")),
    ],
    ids=["column", "key", "cursor"],
)
def test_a_view_that_lacks_something_stops_its_stream_alone(
    site: Site, look: Look, columns: str, told: tuple[str, ...]
) -> None:
    """Exit 1 naming stream, what is missing and what the view has; the other streams are read."""
    site.operator.execute("drop table deposits", f"create table deposits ({columns})")
    ended = site.run("run", "--once")
    assert ended.code == 1
    for text in ("casino.deposits", *told):
        assert text in ended.message, text
    assert [row["external_id"] for row in look("select external_id from crm.players")] == ["7"]


def test_a_stream_that_never_started_stands_on_status(site: Site) -> None:
    """With its error, as a stream that stopped later does."""
    site.operator.execute("drop table deposits")
    assert site.run("run", "--once").code == 1
    report = json.loads(site.run("status", "--json").out)
    assert report["streams"]["deposits"]["state"] == "stopped"
    assert "deposits" in report["streams"]["deposits"]["error"]


def test_an_unreachable_replica_is_unhealthy(site: Site, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 3 after some patience, here cut short."""
    monkeypatch.setattr(application, "_PATIENCE_SECONDS", 0.5)
    site.source["url"] = f"postgresql://reader@127.0.0.1:{closed_port}/casino"
    ended = site.run("run", "--once")
    assert ended.code == 3
    assert "source casino" in ended.message
    assert "refused" in ended.message


def test_wrong_credentials_of_the_replica_are_a_mistake(site: Site) -> None:
    """Exit 2, and the password is not told."""
    site.source["url"] = site.source["url"].replace("reading-only", "wrong-word")
    ended = site.run("run", "--once")
    assert ended.code == 2
    assert "refused the login" in ended.message
    assert "wrong-word" not in ended.err + ended.out


def test_an_unreachable_store_is_unhealthy(site: Site, closed_port: int) -> None:
    """Exit 3 from every command that needs it; a wrong password is a mistake: exit 2."""
    url = site.document["store"]["url"]
    site.document["store"]["url"] = f"postgresql://crm@127.0.0.1:{closed_port}/crm"
    for command in (("run", "--once"), ("status", "--json"), ("store", "migrate")):
        ended = site.run(*command)
        assert (ended.code, "the store is not available" in ended.message) == (3, True), command
    site.document["store"]["url"] = url.replace("postgres:", "postgres:wrong-word-")
    ended = site.run("run", "--once")
    assert (ended.code, "refused the login" in ended.message, "wrong-word" in ended.err) == (2, True, False)


def test_a_store_without_a_schema_is_unhealthy_until_it_is_migrated(site: Site, postgres: Any) -> None:
    """`status` changes nothing and says what to do; `store migrate` does it."""
    site.document["store"]["url"] = postgres.create("never_migrated")
    ended = site.run("status")
    assert (ended.code, "store migrate" in ended.message) == (3, True)
    ended = site.run("store", "migrate")
    assert (ended.code, "revision" in ended.out) == (0, True)
    assert site.run("status").code == 0
    postgres.drop("never_migrated")


def test_another_base_currency_is_refused(site: Site) -> None:
    """Totals of two currencies can't be added: exit 2."""
    assert site.run("run", "--once").code == 0
    site.document["base_currency"] = "USD"
    ended = site.run("run", "--once")
    assert (ended.code, "base_currency" in ended.message) == (2, True)


def test_hours_that_are_over_do_not_keep_a_run_from_ending(site: Site) -> None:
    """`run --once` outside a stream's hours leaves that stream out."""
    hour = (clock.now().hour + 2) % 24
    site.source["streams"]["deposits"] = {"hours": f"{hour:02}:00-{hour:02}:30"}
    stopping = threading.Event()
    app = application.build(config.parse(site.document, streams=list(STREAMS)), once=True)
    run = threading.Thread(target=app.run_once, args=(stopping,))
    run.start()
    run.join(20)
    ended = not run.is_alive()
    stopping.set()
    run.join()
    assert ended


# Status -------------------------------------------------------------------------------------------------------------


def test_status_has_the_promised_shape(site: Site, emulator: serve.Running) -> None:
    """`status --json` is one object of streams and destinations with exactly the documented keys and types."""
    site.deliver_to(emulator)
    site.operator.execute("insert into deposits values (null, 'kaasino', '7', 'open', now(), 1, 'EUR')")
    site.operator.execute(
        "insert into deposits values (now() + interval '1 hour', 'kaasino', '7', 'later', now(), 1, 'EUR')"
    )
    site.operator.execute("insert into deposits values (now(), 'kaasino', '7', 'bad', now(), -1, 'EUR')")
    site.deposit("d1", "d2")
    assert site.run("run", "--once").code == 0
    ended = site.run("status", "--json")
    assert ended.code == 0
    report = json.loads(ended.out)

    assert set(report) == {"streams", "destinations"}
    assert set(report["streams"]) == {"user_profile", "deposits"}
    deposits = report["streams"]["deposits"]
    shape = {
        "state": str,
        "error": type(None),
        "rows": int,
        "seen": str,
        "sealed": (str, type(None)),
        "lag_seconds": (int, float),
        "null_cursors": int,
        "future_rows": int,
        "quarantined": int,
        "audit": type(None),
    }
    for stream in report["streams"].values():
        assert set(stream) == set(shape)
        assert {name for name, kind in shape.items() if not isinstance(stream[name], kind)} == set()
    assert (deposits["state"], deposits["rows"]) == ("running", 2)
    assert (deposits["null_cursors"], deposits["future_rows"], deposits["quarantined"]) == (1, 1, 1)
    assert 0 <= deposits["lag_seconds"] < 60
    destination = report["destinations"]["customerio"]
    assert set(destination) >= {"state", "error", "pending", "accepted", "refused"}
    assert (destination["state"], destination["error"]) == ("running", None)
    assert (destination["pending"], destination["refused"]) == (0, 0)
    assert destination["accepted"] == emulator.workspace.counts()["accepted"] == 1
    assert site.run("status").code == 0


def test_status_tells_people_what_waits_for_a_rate_and_who_counts_otherwise(site: Site) -> None:
    """By currency; the shape that scripts rely on is the same."""
    site.deposit("d1", "d2", "d3")
    site.operator.execute("update deposits set currency = 'GBP' where transaction_id <> 'd1'")
    site.operator.execute(
        "create table player_totals (as_of timestamptz, ext_brand_id text, user_ext_id text, total_deposited numeric)",
        "insert into player_totals values (now(), 'kaasino', '7', 1000)",
    )
    site.source["streams"]["player_totals"] = {}
    assert site.run("run", "--once").code == 0
    told = " ".join(site.run("status").out.split())
    assert "2 event(s) wait for their base amount: there is no rate for GBP" in told
    assert "player_totals: 1 player(s) have other totals there than their events add up to" in told
    report = json.loads(site.run("status", "--json").out)
    assert set(report) == {"streams", "destinations"}
    assert report["streams"]["player_totals"]["lag_seconds"] is not None
    site.document["fx"] = {"fixed": {"GBP": "1.17"}}
    assert site.run("run", "--once").code == 0
    assert "wait for their base amount" not in site.run("status").out


def test_a_destination_that_refuses_the_key_ends_a_run_with_1(site: Site, emulator: serve.Running, look: Look) -> None:
    """Reading goes on: the rows are in the store, and status says what stopped."""
    emulator.workspace.configure({"site_id": "other", "api_key": "other"})
    site.deliver_to(emulator)
    site.deposit("d1")
    ended = site.run("run", "--once")
    assert ended.code == 1
    assert "customerio" in ended.message
    assert "credentials" in ended.message
    assert [row["key"] for row in look("select key from crm.event_rows")] == ["d1"]
    report = json.loads(site.run("status", "--json").out)["destinations"]["customerio"]
    assert report["state"] == "stopped"
    assert "401" in report["error"]


def test_the_embedded_store_needs_no_server(site: Site, directory: Path) -> None:
    """It is started for the run, keeps what was read, and is stopped with it."""
    site.document["store"]["url"] = f"embedded:{directory / 'embedded'}"
    site.deposit("d1")
    assert site.process("run", "--once").code == 0
    assert not (directory / "embedded" / "pgdata" / "postmaster.pid").exists()
    report = json.loads(site.run("status", "--json").out)
    assert report["streams"]["deposits"]["rows"] == 1


# The daemon ---------------------------------------------------------------------------------------------------------


def test_the_daemon_reads_until_it_is_told_to_stop(
    site: Site,
    daemon: Callable[[], subprocess.Popen[bytes]],
    look: Look,
    wait: Callable[..., Any],
    emulator: serve.Running,
) -> None:
    """Rows arrive as they are written; SIGTERM ends it within 10 s with exit 0, its leases given back."""
    site.deliver_to(emulator, events=["deposit_confirmed"])
    process = daemon()
    wait(lambda: look("select * from crm.checkpoints where stream = 'deposits'"), what="the daemon reads")
    site.deposit("d1")
    wait(lambda: emulator.workspace.counts()["events"] == 1, what="the deposit is delivered")
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOPS_WITHIN_SECONDS) == 0
    assert look("select * from crm.leases where expires_at > now()") == []


def test_a_silent_api_does_not_keep_the_daemon_from_stopping(
    site: Site, daemon: Callable[[], subprocess.Popen[bytes]], wait: Callable[..., Any], emulator: serve.Running
) -> None:
    """Within 10 s of SIGTERM it is gone, a request in flight or not."""
    emulator.workspace.faults.slow = 60.0
    site.deliver_to(emulator)
    process = daemon()
    wait(lambda: emulator.workspace.counts()["people"] == 1 or _asked(emulator), what="a request hangs")
    process.send_signal(signal.SIGTERM)
    process.wait(STOPS_WITHIN_SECONDS)
    emulator.workspace.faults.slow = 0.0


def _asked(emulator: serve.Running) -> bool:
    return bool(emulator._server.server_state.connections)


def test_a_second_daemon_takes_over_from_a_killed_one(
    site: Site, daemon: Callable[[], subprocess.Popen[bytes]], look: Look, wait: Callable[..., Any]
) -> None:
    """It writes nothing while the first lives, and reads on within 10 s of its end; no row is lost or doubled."""
    first = daemon()
    site.deposit("d1")
    wait(lambda: look("select * from crm.event_rows"), what="the first daemon reads")
    (holder,) = look("select holder, epoch from crm.leases where name like '%%source:%%'")
    second = daemon()
    wait(
        lambda: look(
            "select pid from pg_stat_activity where application_name = 'connector' and query like '%%crm.leases%%'"
        ),
        what="looks",
    )
    site.deposit("d2")
    wait(lambda: len(look("select * from crm.event_rows")) == 2, what="the first daemon goes on")
    assert look("select holder, epoch from crm.leases where name like '%%source:%%'") == [holder]

    first.kill()
    killed = clock.monotonic()
    site.deposit("d3")
    wait(
        lambda: len(look("select * from crm.event_rows")) == 3,
        what="the second daemon reads",
        seconds=STOPS_WITHIN_SECONDS,
    )
    assert clock.monotonic() - killed < STOPS_WITHIN_SECONDS
    (now,) = look("select holder, epoch from crm.leases where name like '%%source:%%'")
    assert now["holder"] != holder["holder"]
    assert now["epoch"] > holder["epoch"]
    assert second.poll() is None
    assert sorted(row["key"] for row in look("select key from crm.event_rows")) == ["d1", "d2", "d3"]
    second.send_signal(signal.SIGTERM)
    assert second.wait(STOPS_WITHIN_SECONDS) == 0


def test_a_lost_store_is_survived(
    site: Site, daemon: Callable[[], subprocess.Popen[bytes]], look: Look, wait: Callable[..., Any]
) -> None:
    """Sessions that are cut come back by themselves, and reading goes on."""
    process = daemon()
    site.deposit("d1")
    wait(lambda: look("select * from crm.event_rows"), what="the daemon reads")
    with psycopg.connect(site.document["store"]["url"], autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'connector'"
        )
    site.deposit("d2")
    wait(lambda: len(look("select * from crm.event_rows")) == 2, what="the daemon reads on")
    assert process.poll() is None
