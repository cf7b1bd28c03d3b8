"""`connector backfill` as an operator runs it: the first load, ends of every kind, what it says, and what it verifies."""

from __future__ import annotations

import functools
import itertools
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector import app as application, backfill, cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

House = Any
Command = Any
BETS: Final = 60
HISTORY: Final = ("--stream", "casino_bets", "--all")
REFUSED: Final[list[tuple[tuple[str, ...], str]]] = [
    ((), "either --all, or --from and/or --to"),
    (("--stream", "deposits"), "either --all, or --from and/or --to"),
    (("--all", "--from", "1"), "either --all, or --from and/or --to"),
    (("--from", "1"), "name it with --stream"),
    (("--stream", "deposits", "--stream", "casino_bets", "--from", "1"), "name it with --stream"),
    (("--stream", "casino_bets", "--from", "9", "--to", "1"), "--from is the first"),
    (("--stream", "bets", "--all"), "configured are: casino_bets, deposits, user_profile"),
    (("--all", "--source", "other"), "one of: casino"),
]
BEGAN: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def house(house_on: Callable[[str], House]) -> House:
    """Give a house whose bets and deposits were there before the connector came."""
    made = house_on("postgresql")
    made.user("7", BEGAN)
    made.bets(1, BETS)
    made.deposits(1, 20)
    made.source["streams"] = {"user_profile": {}, "deposits": {}, "casino_bets": {}}
    return made


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[House], Command]]:
    """Give a maker of runners of commands, by the house: they return exit code and what was printed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(house: House, *words: str) -> tuple[int, str]:
        assert house.settings
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["connector", *words, "--config", str(house.path)])
        monkeypatch.setattr("connector.logs.configure", lambda **_: None)
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out + err

    yield lambda house: functools.partial(run, house)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def command(house: House, run_command: Callable[[House], Command]) -> Command:
    """Give the runner of the house."""
    return run_command(house)


def _bets(house: House) -> Counter[str]:
    return Counter(house.stored("casino_bets"))


def _all(last: int = BETS) -> Counter[str]:
    return Counter(str(number) for number in range(1, last + 1))


# The first load -----------------------------------------------------------------------------------------------------


def test_the_first_load_is_everything_but_bets(house: House, command: Command) -> None:
    """Users and payments in full; bets count from now on, and are loaded when they are asked for."""
    code, said = command("backfill", "--all")
    assert code == 0, said
    assert "casino_bets: from now on" in said
    assert "deposits: 20 rows in 1 of 1 ranges (beginning to history); " in said
    assert (len(house.stored("deposits")), house.stored("casino_bets")) == (20, [])
    assert house.look("select sum(deposit_count) from crm.players") == [(20,)]
    code, said = command("backfill", *HISTORY)
    assert (code, _bets(house)) == (0, _all()), said
    house.settle()
    assert (len(house.stored("deposits")), _bets(house)) == (20, _all())
    assert house.look("select deposit_count, bet_count from crm.players") == [(20, BETS)]


def test_a_finished_job_says_so(house: House, command: Command) -> None:
    """It is not read again, and that is no failure."""
    house.settle()
    code, said = command("backfill", *HISTORY)
    assert (code, "verified, 60 rows: number of rows, sum of amounts and digest of keys agree" in said) == (0, True), (
        said
    )
    house.operator.execute("drop view casino_bets cascade", "create view casino_bets as select * from casino_bets_rows")
    code, said = command("backfill", *HISTORY)
    assert (code, "casino_bets: loaded and verified already" in said) == (0, True), said


def test_a_command_that_can_not_be_meant_is_refused(command: Command) -> None:
    """Each with what to write instead."""
    for words, remedy in REFUSED:
        code, said = command("backfill", *words)
        assert (code, remedy in said) == (2, True), said


def test_a_stream_that_cannot_be_read_does_not_keep_others_waiting(house: House, command: Command) -> None:
    """The night's load goes on without it; the exit code tells of it."""
    house.source["streams"]["withdrawals"] = {}
    code, said = command("backfill", "--stream", "withdrawals", "--stream", "deposits", "--all")
    assert code == 2
    assert "withdrawals: view withdrawals of stream withdrawals is not there" in said
    assert len(house.stored("deposits")) == 20


def test_a_stream_without_history_says_so(house: House, command: Command) -> None:
    house.operator.execute("delete from deposits_rows")
    code, said = command("backfill", "--stream", "deposits", "--all")
    assert (code, "deposits: there is no history to load (beginning to history)" in said) == (0, True), said


# Ends ---------------------------------------------------------------------------------------------------------------


def _started(house: House, *words: str) -> subprocess.Popen[str]:
    """Start the command as a process of its own."""
    assert house.settings
    arguments = [sys.executable, "-m", "connector", "backfill", "--config", str(house.path), *words]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_goes_on_after_any_end(
    house: House, command: Command, wait: Callable[..., Any], how: signal.Signals
) -> None:
    """Each page was committed with its range's position; a killed process holds nothing back."""
    house.settle()
    process = _started(house, *HISTORY, "--max-rate", "5", "--workers", "2")
    try:
        wait(lambda: len(_bets(house)) >= 5, what="some pages are committed")
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 1), err
    assert ("the same command goes on where it was" in out) == (how == signal.SIGTERM)
    before = _bets(house)
    assert 5 <= sum(before.values()) < BETS
    assert before <= _all()
    code, said = command("status")
    assert (code, "casino_bets: backfill of beginning to history is at" in said) == (0, True), said

    def again() -> bool:
        code, said = command("backfill", *HISTORY)
        return code == 0 and "verified, 60 rows" in said

    wait(again, what="the lease of the killed process is free, and the job is done")
    assert _bets(house) == _all()
    assert house.look("select bet_count from crm.players") == [(BETS,)]
    assert "backfill" not in command("status")[1]


# Beside the daemon --------------------------------------------------------------------------------------------------


def test_beside_the_daemon_no_row_is_lost_doubled_or_taken_for_history(house: House, command: Command) -> None:
    """A bet is committed after every page, and the daemon polls after every third, beside the other worker.

    Most of these bets are there, and unread, when the load reaches its end: it leaves them to the daemon.
    """
    with house.running() as cycle:
        cycle.run_once()
        live = itertools.count(BETS + 1)

        def meanwhile(_: Any) -> None:
            number = next(live)
            house.operator.execute(
                "insert into casino_bets_rows values"
                f" ({number}, 'kaasino', '7', 'BET', now(), 1, null, 'EUR', 'g1', 'Lemons')"
            )
            if number % 3 == 0:
                cycle.run_once()

        with application.desks(house.settings, source=None, stream="casino_bets", workers=2) as (one, other):
            stream = backfill.open_stream(one, "casino_bets")
            job = backfill.prepare(one, stream, since=None, until=None)
            nothing = {"send_to": {}, "stopped": lambda: False, "others": [other]}
            assert backfill.run(one, stream, job, report=meanwhile, **nothing).done
        last = next(live) - 1
        house.wait(lambda: (cycle.run_once(), len(_bets(house)) == last)[1], what="the tail has read all")
    assert _bets(house) == _all(last)
    spans = "select history, min(key::int), max(key::int) from crm.events where stream = 'casino_bets' group by 1"
    assert sorted(house.look(spans)) == [(False, BETS + 1, last), (True, 1, BETS)]
    assert house.look("select bet_count, total_wagered from crm.players") == [(last, last * 100)]
    code, said = command("backfill", *HISTORY)
    assert (code, "verified, 60 rows" in said) == (0, True), said


# Verification -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        ("delete from crm.event_rows where key in ('7', '31')", "2 row(s) missing from the store"),
        ("update crm.event_rows set amount = amount + 1 where key = '31'", "1 row(s) with another amount"),
    ],
)
def test_a_planted_difference_is_found_and_its_remedy_mends_it(
    house: House, command: Command, monkeypatch: pytest.MonkeyPatch, plant: str, said: str
) -> None:
    """The command that is printed does what is missing; the same backfill then verifies."""
    house.settle()
    run = backfill.run

    def spoilt(*arguments: Any, **named: Any) -> Any:
        done = run(*arguments, **named)
        house.look(plant)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "run", spoilt)
        code, told = command("backfill", *HISTORY)
    assert (code, "DIFFERS from the source" in told, said in told) == (1, True, True), told
    remedy = told.partition("remedy: connector ")[2].splitlines()[0].partition(";")[0]
    assert remedy == 'audit --stream casino_bets --source casino --from "1" --to "60" --repair'
    assert command(*remedy.replace('"', "").split())[0] == 0
    code, told = command("backfill", *HISTORY)
    assert (code, "verified, 60 rows" in told) == (0, True), told
    assert _bets(house) == _all()


def test_users_are_verified_by_their_stamps(house: House, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who has changed since is no difference; one who is not there is."""
    for number in range(10):
        house.user(f"u{number}", BEGAN + timedelta(hours=number))
    house.settle()
    words = ("backfill", "--stream", "user_profile", "--from", "2026-01-05 12:00:00", "--to")
    run = backfill.run

    def spoilt(*arguments: Any, **named: Any) -> Any:
        done = run(*arguments, **named)
        house.look("update crm.players set is_stub = true where external_id = 'u3'")
        house.user("u2", BEGAN + timedelta(days=1))
        return done

    with monkeypatch.context() as patch:
        patch.setattr(backfill, "run", spoilt)
        code, said = command(*words, "2026-01-05 18:00:00")
    assert (code, "DIFFERS from the source: 1 row(s) missing" in said) == (1, True), said
    code, said = command(*words, "2026-01-05 19:00:00")
    assert (code, "every user's stamp agree with the source" in said) == (0, True), said


def test_rows_that_are_not_final_are_left_to_the_daemon(house: House, command: Command) -> None:
    """What may still appear late can't be verified: it is said, and no failure."""
    house.source |= {"lateness": "10m", "lateness_max": "10m"}
    house.operator.execute("update deposits_rows set dt_finalized = now() - interval '1 minute'")
    code, said = command("backfill", "--stream", "deposits", "--all")
    assert (code, "none of its rows is final yet" in said) == (0, True), said
    assert len(house.stored("deposits")) == 20


def test_lines_tell_how_far_it_is_where_there_is_no_terminal(
    house: House, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line has rows, rows a second and the time left."""
    house.settle()
    monkeypatch.setattr("connector.cli.bars._LINE_SECONDS", 0.01)
    code, said = command("backfill", *HISTORY)
    lines = [line for line in said.splitlines() if line.endswith(" left")]
    assert (code, lines != []) == (0, True), said
    assert all(line.startswith("casino_bets: ") and " rows/s, " in line for line in lines)


def test_a_terminal_gets_a_bar(house: House, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn on standard error; the result stands on standard output."""
    house.settle()
    monkeypatch.setattr("connector.cli.bars.sys.stderr.isatty", lambda: True, raising=False)
    code, said = command("backfill", *HISTORY)
    assert (code, "━" in said, "verified, 60 rows" in said) == (0, True, True), said


@pytest.mark.parametrize("dialect", ["mysql", "standby", "odbc"])
def test_history_of_any_server_is_loaded_in_ranges_and_verified(
    house_on: Callable[[str], House],
    run_command: Callable[[House], Command],
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
) -> None:
    """Cursors of both kinds, ranges that are cut, two workers."""
    house = house_on(dialect)
    monkeypatch.setattr(backfill, "MOST_ROWS", 20)
    house.bets(1, BETS)
    house.deposits(1, BETS)
    house.source["streams"] = {"deposits": {}, "casino_bets": {}}
    house.settle()
    words = ("--stream", "deposits", "--stream", "casino_bets", "--all", "--workers", "2")
    code, said = run_command(house)("backfill", *words)
    assert (code, said.count("; verified, 60 rows: ")) == (0, 2), said
    assert (len(house.stored("deposits")), _bets(house)) == (BETS, _all())
    ((cut,),) = house.look("select count(*) from crm.backfill_ranges where ordinal > 0 and rows > 0")
    assert cut >= 2 * 2
