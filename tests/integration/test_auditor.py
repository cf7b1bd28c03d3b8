"""The light audit: it runs by itself at quiet times, a little at a time, and stands in nobody's way."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import structlog
import yaml

from connector import app as application, auditor, clock, config
from connector.store import lease as leases
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.auditor import Auditor
    from connector.store.database import Database

Look = Any
USERS: Final = """
    create view user_profile as select timestamptz '2026-01-01' as dt_update, 'kaasino' as ext_brand_id, user_ext_id,
        'ACTIVE' as core_account_status, timestamptz '2025-01-01' as core_registration_date, 'EN' as core_user_language,
        'EUR' as core_wallet_currency from generate_series(1, 3) as user_ext_id
"""
DEPOSITS: Final = (
    "create table deposits (dt_finalized timestamptz, ext_brand_id text, user_ext_id text, transaction_id text, "
    "transaction_date timestamptz, deposit_amount numeric, currency text)"
)
BETS: Final = (
    "create table casino_bets (id bigint primary key, ext_brand_id text, user_ext_id text, type text, bet_date "
    "timestamptz, bet_amount numeric, currency text, game_id text, game_name text)"
)


class Casino:
    """An operator whose deposits are a minute old or more, and a configuration that reads them."""

    def __init__(self, operator: Any, store: Database) -> None:
        self.operator, self.store = operator, store
        operator.execute(USERS, DEPOSITS, BETS)
        self.document: dict[str, Any] = {
            "tenant": "kaasino",
            "store": {"url": store.url},
            "web": None,
            "sources": [
                {
                    "name": "casino",
                    "url": operator.url,
                    "lateness": "1s",
                    "lateness_max": "2s",
                    "wait": "50ms",
                    "streams": {"user_profile": {}, "deposits": {}},
                }
            ],
        }

    @property
    def settings(self) -> config.Config:
        """The configuration."""
        return config.parse(self.document, streams=list(STREAMS))

    def deposit(self, *keys: str, minutes: float = 5.0) -> None:
        """Add deposits that were stamped so long ago."""
        at = clock.now() - timedelta(minutes=minutes)
        self.operator.fill("deposits", [(at, "kaasino", "1", key, at, "10.00", "EUR") for key in keys])

    def read(self) -> None:
        """Let the daemon's one-shot form read everything, and say that it has just done so."""
        assert application.build(self.settings, once=True).run_once(threading.Event()) == {}

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run the daemon's loops in this process."""
        stopping = threading.Event()
        thread = threading.Thread(target=application.build(self.settings).run, args=(stopping,))
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def auditor(self) -> Auditor:
        """Return the source's light audit, without the rest of the daemon."""
        (made,) = application.build(self.settings).auditors
        return made


@pytest.fixture
def casino(operator_of: Callable[[str], Any], store: Database) -> Casino:
    return Casino(operator_of("postgresql"), store)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audit the last hour again and again, without a rest."""
    monkeypatch.setattr(auditor, "KINDS", {"hour": (3600, 0)})
    monkeypatch.setattr(auditor, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(auditor, "DUTY", 1.0)


@pytest.fixture
def said() -> Iterator[list[Any]]:
    """Give the log lines."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def settle(loop: Auditor, look: Look, stream: str = "deposits") -> dict[str, Any]:
    """Let the light audit finish one run over a stream; return its result."""
    query = "select * from crm.audits where stream = %s order by audit_id desc limit 1"
    before = look(query, stream)
    for _ in range(200):
        loop.run_once()
        if look(query, stream) != before:
            found: dict[str, Any] = look(query, stream)[0]
            return found
    raise AssertionError("no audit ended")


@pytest.mark.usefixtures("at_once")
def test_a_row_that_comes_later_than_any_lateness_is_found_by_itself(
    casino: Casino, look: Look, wait: Callable[..., Any]
) -> None:
    """Nobody asks: the daemon puts it into the store, once, counts it as late and widens the window."""
    casino.deposit("d1", minutes=20)
    casino.deposit("d2", minutes=1)
    with casino.daemon():
        wait(lambda: look("select * from crm.audits where stream = 'deposits' and missing = 0"), what="a clean audit")
        casino.deposit("late", minutes=10)
        wait(lambda: look("select * from crm.events where key = 'late'"), what="the late row is found")
        wait(lambda: look("select * from crm.audits where stream = 'deposits' and repaired = 1"), what="its result")
        wait(
            lambda: (
                look("select missing from crm.audits where stream = 'deposits' order by audit_id desc limit 1")
                == [{"missing": 0}]
            ),
            what="the next audit is clean again",
        )
    assert [row["key"] for row in look("select key from crm.events order by key")] == ["d1", "d2", "late"]
    assert look("select late_rows, lateness from crm.checkpoints where stream = 'deposits'") == [
        {"late_rows": 1, "lateness": 2.0}
    ]
    assert look("select * from crm.leases where expires_at > now()") == []


@pytest.mark.usefixtures("at_once")
def test_only_the_last_hour_is_looked_at(casino: Casino, look: Look) -> None:
    """Rows and gaps from before are left to longer audits."""
    casino.deposit("old", minutes=300)
    casino.deposit("d1", minutes=30)
    casino.deposit("d2", minutes=1)
    casino.read()
    look("with d as (delete from crm.event_rows where key in ('old', 'd1') returning 1) select count(*) from d")
    loop = casino.auditor()
    result = settle(loop, look)
    loop.close()
    assert (result["kind"], result["rows"], result["missing"], result["repaired"]) == ("hour", 2, 1, 1)
    assert [row["key"] for row in look("select key from crm.events order by key")] == ["d1", "d2"]


@pytest.mark.usefixtures("at_once")
def test_an_hour_of_ids_begins_where_their_business_time_says(casino: Casino, look: Look) -> None:
    """It is searched for, not scanned for; a few more rows than that do no harm."""
    casino.document["sources"][0]["streams"] = {"casino_bets": {"start": "beginning"}}
    casino.operator.execute(
        "insert into casino_bets select g, 'kaasino', '1', 'bet', now() - (20000 - g) * interval '1 second', 1, 'EUR',"
        " 'g', 'G' from generate_series(1, 20000) g"
    )
    casino.read()
    look(
        "update crm.checkpoints set sealed_cursor = '20000', sealed_key = '{20000}', sealed_mark = 20000"
        " where stream = 'casino_bets' returning 1"
    )
    loop = casino.auditor()
    result = settle(loop, look, "casino_bets")
    loop.close()
    assert 3600 <= result["rows"] <= 3600 + 300
    assert result["missing"] == 0


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "busy",
    [
        "lag_seconds = 300",
        "state = 'paused'",
        "polled_at = now() - interval '1 minute'",
    ],
)
def test_a_source_that_is_behind_is_left_in_peace(casino: Casino, look: Look, busy: str) -> None:
    """Until it has caught up."""
    casino.deposit("d1")
    casino.read()
    look(f"update crm.checkpoints set {busy} returning 1")
    loop = casino.auditor()
    for _ in range(20):
        assert not loop.run_once().busy
    assert look("select * from crm.audits") == []
    look("update crm.checkpoints set lag_seconds = 0, state = 'running', polled_at = now() returning 1")
    assert settle(loop, look)["rows"] == 1
    loop.close()


def test_it_rests_nine_times_as_long_as_it_worked(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of its own work: one step, then nothing until ten times its length has passed."""
    casino.deposit(*(f"d{n}" for n in range(10)))
    casino.read()
    now, steps = [1000.0], [0]
    real = auditor.audit.Audit.step

    def slow(self: Any) -> bool:
        steps[0] += 1
        now[0] += 2.0
        return real(self)

    monkeypatch.setattr(auditor.audit.Audit, "step", slow)
    monkeypatch.setattr(auditor.clock, "monotonic", lambda: now[0])
    loop = casino.auditor()
    while steps[0] == 0:
        now[0] += 10.0
        loop.run_once()
    for _ in range(17):
        now[0] += 1.0
        loop.run_once()
    assert steps[0] == 1
    now[0] += 1.1
    while steps[0] == 1:
        loop.run_once()
        now[0] += 1.0
    loop.close()


@pytest.mark.usefixtures("at_once")
def test_a_second_login_that_is_refused_is_said_once(
    casino: Casino, look: Look, said: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail goes on, nothing fails, and it is not tried again at once."""
    tried: list[str] = []
    real = auditor.audit.open_stream
    monkeypatch.setattr(auditor.audit, "open_stream", lambda desk, name: (tried.append(name), real(desk, name))[1])
    casino.deposit("d1")
    casino.read()
    with psycopg.connect(casino.operator.owner, autocommit=True) as owner:
        owner.execute("alter role reader connection limit 0")
        try:
            loop = casino.auditor()
            for _ in range(20):
                loop.run_once()
        finally:
            owner.execute("alter role reader connection limit -1")
    assert [line["event"] for line in said if line["log_level"] == "warning"] == ["audit.refused"]
    assert sorted(tried) == ["deposits", "user_profile"]
    assert look("select * from crm.audits") == []
    loop.close()


@pytest.mark.usefixtures("at_once")
def test_an_audit_that_takes_too_long_is_given_up_until_the_next_one(
    casino: Casino, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no failure of the daemon, and no result on status."""
    casino.deposit("d1")
    casino.read()
    monkeypatch.setattr(auditor.audit.Audit, "_there", lambda *_: (_ for _ in ()).throw(auditor.Transient("too slow")))
    loop = casino.auditor()
    result = settle(loop, look)
    loop.close()
    assert (result["error"], result["finished_at"]) == ("too slow", None)


def test_another_process_has_the_lease(casino: Casino, store: Database) -> None:
    """Then this one stands by."""
    casino.deposit("d1")
    casino.read()
    with store.connect() as other:
        assert leases.acquire(other, "kaasino/audit:casino", holder="another process") is not None
        assert casino.auditor().run_once().standby


def test_the_command_says_what_it_found(casino: Casino, look: Look, tmp_path: Path, capsys: Any) -> None:
    """One line a stream, or one object; exit 1 while something is missing, 0 when all is repaired; status tells it."""
    casino.deposit("d1", "d2", "d3")
    casino.read()
    look("with d as (delete from crm.event_rows where key = 'd2' returning 1) select count(*) from d")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(casino.document))
    run = _Commands(str(path), capsys)

    code, out = run("audit")
    assert (code, out.count("\n")) == (1, 2)
    assert "deposits: 3 rows" in out
    assert "1 missing, repair with --repair" in out
    code, out = run("audit", "--stream", "deposits", "--repair", "--json")
    result = json.loads(out)
    assert (code, result["ok"], list(result["streams"])) == (0, True, ["deposits"])
    assert {
        name: result["streams"]["deposits"][name] for name in ("rows", "missing", "repaired", "gone", "changed")
    } == {
        "rows": 3,
        "missing": 1,
        "repaired": 1,
        "gone": 0,
        "changed": 0,
    }
    code, out = run("audit", "--stream", "deposits", "--from", "2020-01-01")
    assert (code, "3 rows" in out, "nothing missing" in out) == (0, True, True)

    _, out = run("status", "--json")
    told = json.loads(out)["streams"]
    assert set(told["deposits"]["audit"]) == {"kind", "at", "rows", "missing", "repaired", "gone", "changed"}
    assert told["deposits"]["audit"]["kind"] == "command"
    _, out = run("status")
    assert "deposits: audited 0 min ago: nothing missing" in out


def test_mistakes_are_told_with_a_remedy(casino: Casino, tmp_path: Path, capsys: Any) -> None:
    """Exit 2 for names and bounds that are none; a stream that never ran is no clean one."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(casino.document))
    run = _Commands(str(path), capsys)
    assert run("audit", "--stream", "depositts")[0] == 2
    assert run("audit", "--source", "other")[0] == 2
    assert run("audit", "--from", "2026-01-01")[0] == 2
    code, out = run("audit", "--stream", "deposits")
    assert (code, "nothing of it is sealed yet" in out) == (1, True)
    casino.deposit("d1")
    casino.read()
    assert run("audit", "--stream", "deposits", "--from", "yesterday")[0] == 2


class _Commands:
    """Runs commands in this process, through their entry point."""

    def __init__(self, path: str, capsys: Any) -> None:
        self.path, self.capsys = path, capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Return exit code and output."""
        from connector import cli

        self.capsys.readouterr()
        code: Any = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["connector", *arguments, "--config", self.path])
            try:
                cli.main()
            except SystemExit as end:
                code = end.code or 0
            finally:
                structlog.reset_defaults()
        return int(code), self.capsys.readouterr().out
