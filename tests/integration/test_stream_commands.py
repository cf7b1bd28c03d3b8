"""`connector stream ...`: what a person answers takes effect once, beside the daemon and without it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from connector import app as application, backfill, cli
from connector.errors import Misconfigured, Superseded
from connector.store import answers, checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.cycle import Cycle

House = Any
Command = Any


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a runner of commands through the entry point; returns exit code and what was printed."""

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

    return run


@pytest.fixture
def settled(house: House) -> House:
    """Give a house whose forty bets and deposits are final and remembered."""
    house.bets(1, 40)
    house.deposits(1, 40)
    house.settle()
    return house


@pytest.fixture
def one(house_on: Callable[[str], House]) -> House:
    """Give such a house on PostgreSQL."""
    house: House = house_on("postgresql")
    house.bets(1, 40)
    house.deposits(1, 40)
    house.settle()
    return house


def keys(*ranges: tuple[int, int]) -> list[str]:
    return [f"{number}" for first, last in ranges for number in range(first, last + 1)]


def revision(house: House, stream: str) -> int:
    ((number,),) = house.look(f"select revision from crm.checkpoints where stream = '{stream}'")
    return int(number)


# accept -------------------------------------------------------------------------------------------------------------


def test_another_server_with_the_same_data_is_accepted(settled: House, command: Command) -> None:
    """The rows that were final are compared first; marks, generation and totals stay."""
    settled.look("update crm.checkpoints set servers = '{postgresql:4711}'")
    before = settled.money()
    assert set(settled.once()) == {"deposits", "casino_bets"}
    code, told = command(settled, "stream", "accept", "casino_bets")
    assert code == 0
    assert "of 4 remembered rows are there as they were; the last row stands at 40" in told
    assert command(settled, "stream", "accept", "deposits")[0] == 0
    settled.bets(41, 42)
    assert settled.once() == {}
    assert settled.stored("casino_bets") == keys((1, 42))
    ((servers, generation),) = settled.look(
        "select cardinality(servers), generation from crm.checkpoints where stream = 'casino_bets'"
    )
    assert (servers, generation) == (2, 0)
    assert [row[:2] for row in settled.money()] == [row[:2] for row in before]


def test_data_that_does_not_match_is_not_accepted(settled: House, command: Command) -> None:
    """Unless a person insists: then it is taken as it is, and the stream goes on from its marks."""
    settled.look("update crm.checkpoints set servers = '{postgresql:4711}'")
    settled.operator.execute("delete from casino_bets_rows")
    settled.bets(1, 50, user="8", minutes=90)
    code, told = command(settled, "stream", "accept", "casino_bets")
    assert code == 1
    assert "nothing shows that this is the data that was read" in told
    assert "0 of 5 remembered rows are there as they were, 5 have other content" in told
    assert revision(settled, "casino_bets") == 0
    assert command(settled, "stream", "accept", "casino_bets", "--yes")[0] == 0
    assert set(settled.once()) == {"deposits"}
    assert settled.stored("casino_bets") == keys((1, 50))


def test_what_is_accepted_already_is_left_alone(one: House, command: Command) -> None:
    """Nothing to answer, nothing changed."""
    code, told = command(one, "stream", "accept", "deposits")
    assert (code, "it is accepted already" in told) == (0, True)
    assert revision(one, "deposits") == 0


def test_a_server_about_which_nothing_is_known_is_not_accepted(one: House, command: Command) -> None:
    """Without rows to compare it is the person who answers for it."""
    one.look("update crm.checkpoints set servers = '{postgresql:4711}', samples = '[]'")
    assert command(one, "stream", "accept", "deposits")[0] == 1
    assert command(one, "stream", "accept", "deposits", "--yes")[0] == 0
    assert set(one.once()) == {"casino_bets"}


# wait ---------------------------------------------------------------------------------------------------------------


def test_a_stream_that_waits_goes_on_when_the_data_is_back(settled: House, command: Command) -> None:
    """It is not stopped, and tells on status what it waits for; the answer is forgotten when it is fulfilled."""
    settled.operator.execute("delete from casino_bets_rows")
    assert settled.state("casino_bets")[0] == "running"
    assert set(settled.once()) == {"casino_bets"}
    assert settled.state("casino_bets")[0] == "stopped"
    assert command(settled, "stream", "wait", "casino_bets")[0] == 0
    assert settled.state("casino_bets")[1].startswith("waits: as answered")
    assert set(settled.once()) == {"casino_bets"}
    state, error = settled.state("casino_bets")
    assert (state, error.startswith("waits: stream casino_bets: casino_bets is empty")) == ("running", True)
    settled.bets(1, 41)
    assert settled.once() == {}
    assert settled.state("casino_bets") == ("running", None)
    assert settled.look("select answer from crm.checkpoints where stream = 'casino_bets'") == [(None,)]
    settled.operator.execute("delete from casino_bets_rows")
    assert settled.once()
    assert settled.state("casino_bets")[0] == "stopped"


def test_waiting_needs_no_source(one: House, command: Command, closed_port: int) -> None:
    """The source may be what is broken."""
    one.source["url"] = f"postgresql://reader@127.0.0.1:{closed_port}/casino"
    assert command(one, "stream", "wait", "deposits")[0] == 0
    code, told = command(one, "stream", "reset", "deposits")
    assert (code, "could not count" in told) == (0, True)


# reset --------------------------------------------------------------------------------------------------------------


def test_a_reset_reads_again_and_changes_no_total(settled: House, command: Command) -> None:
    """From a value on or from the beginning; a row that came far too late is found by it."""
    before = settled.money()
    events = settled.look("select * from crm.event_rows order by seq")
    code, told = command(settled, "stream", "reset", "casino_bets", "--from", "31")
    assert (code, "10 row(s)" in told) == (0, True)
    assert settled.look("select seen_cursor, sealed_cursor from crm.checkpoints where stream = 'casino_bets'") == [
        ("30", "30")
    ]
    assert "40 row(s)" in command(settled, "stream", "reset", "deposits")[1]
    assert settled.once() == {}
    assert settled.look("select * from crm.event_rows order by seq") == events
    assert settled.money() == before
    assert settled.look("select seen_cursor from crm.checkpoints where stream = 'casino_bets'") == [("40",)]
    settled.bets(0, 0)
    assert command(settled, "stream", "reset", "casino_bets")[0] == 0
    assert settled.once() == {}
    assert settled.stored("casino_bets") == keys((0, 40))
    assert [(who, bets - 1) for who, _, _, bets in settled.money()] == [(who, bets) for who, _, _, bets in before]


def test_a_reset_never_goes_forward(one: House, command: Command) -> None:
    """Rows between would be left out."""
    one.bets(41, 60)
    code, told = command(one, "stream", "reset", "casino_bets", "--from", "55")
    assert (code, "would be left out" in told) == (2, True)
    code, told = command(one, "stream", "reset", "casino_bets", "--from", "yesterday")
    assert (code, "'yesterday' is no id of cursor id" in told) == (2, True)
    assert revision(one, "casino_bets") == 0


# new-generation -----------------------------------------------------------------------------------------------------


def test_a_new_generation_counts_exactly_the_rows_that_are_there(settled: House, command: Command) -> None:
    """On top of what was counted; the same keys are other events, each with an identity of its own."""
    settled.operator.execute("delete from casino_bets_rows")
    settled.bets(1, 25, user="7", minutes=90)
    assert set(settled.once()) == {"casino_bets"}
    code, told = command(settled, "stream", "new-generation", "casino_bets")
    assert code == 2
    assert "25 row(s) will be counted anew" in told
    assert "add --yes" in told
    assert revision(settled, "casino_bets") == 0
    code, told = command(settled, "stream", "new-generation", "casino_bets", "--yes")
    assert code == 0
    assert settled.once() == {}
    assert settled.once() == {}
    assert settled.stored("casino_bets") == sorted(keys((1, 40), (1, 25)), key=int)
    assert settled.look(
        "select generation, count(*) from crm.events where stream = 'casino_bets' group by 1 order by 1"
    ) == [
        (0, 40),
        (1, 25),
    ]
    assert settled.look("select total_wagered, bet_count from crm.players") == [(6500, 65)]
    entries = settled.look("select subject, details::jsonb ->> 'rows' from crm.audit_log where action like 'stream.%'")
    assert entries == [("casino.casino_bets", "25")]  # what was asked about and not done is no entry


def test_what_happened_since_is_live_in_a_new_generation(settled: House, command: Command) -> None:
    """The table was loaded again under new ids, and went on: what the old generation had sends nothing twice."""
    settled.operator.execute("delete from casino_bets_rows", "delete from deposits_rows")
    settled.bets(11, 50)
    settled.deposits(1, 50)
    for stream in ("casino_bets", "deposits"):
        assert command(settled, "stream", "new-generation", stream, "--yes")[0] == 0
    settled.bets(51, 52)
    assert settled.once() == {}
    live = "select key from crm.events where stream = '{}' and generation = 1 and not history order by occurred_at"
    assert settled.look(live.format("casino_bets")) == [(str(number),) for number in range(41, 53)]
    assert settled.look(live.format("deposits")) == [(f"d{number}",) for number in range(41, 51)]


def test_a_new_generation_can_begin_where_the_old_data_ends(settled: House, command: Command) -> None:
    """An older backup came back: only the ids drawn again are counted anew."""
    settled.operator.execute("delete from casino_bets_rows where id > 30")
    settled.bets(31, 45, minutes=90)
    assert set(settled.once()) == {"casino_bets"}
    code, told = command(settled, "stream", "new-generation", "casino_bets", "--from", "31", "--yes")
    assert (code, "15 row(s)" in told) == (0, True)
    assert settled.once() == {}
    assert settled.look("select bet_count from crm.players") == [(55,)]


def test_a_backfill_of_the_old_generation_ends(one: House, command: Command) -> None:
    """Its next page is not written, or its rows would count in both; a new job begins at the beginning."""
    one.look("delete from crm.event_rows")
    with application.desk(one.settings, source=None, stream="casino_bets") as desk:
        stream = backfill.open_stream(desk, "casino_bets")
        job = backfill.prepare(desk, stream, since=None, until=None)

        def answer(progress: backfill.Progress) -> None:
            if progress.rows:
                assert command(one, "stream", "new-generation", "casino_bets", "--yes")[0] == 0

        with pytest.raises(Superseded):
            backfill.run(desk, stream, job, send_to={}, report=answer, stopped=lambda: False)
    assert one.look("select count(*) from crm.backfill_ranges") == [(0,)]
    assert one.stored("casino_bets") == keys((1, 7))


# Beside the daemon --------------------------------------------------------------------------------------------------


def answered_in_hand(cycle: Cycle, house: House, monkeypatch: pytest.MonkeyPatch, *, at: str) -> list[str]:
    """Have a stream put back to its beginning while a page that was just read is in the daemon's hands."""
    assert cycle.desk is not None
    desk, read, stored = cycle.desk, cycle.desk.reader.read, []

    def reading(view: Any, *arguments: Any, **options: Any) -> Any:
        page = read(view, *arguments, **options)
        if view.name == "casino_bets" and page.last is not None and page.last.cursor == at and not stored:
            with house.store.connect() as connection:
                checkpoint = checkpoints.load(connection, desk.tenant, desk.source.name, "casino_bets")
                assert checkpoint is not None
                answers.reset(connection, checkpoint, None)
            stored.append(at)
        return page

    monkeypatch.setattr(desk.reader, "read", reading)
    return stored


def test_a_page_in_hand_is_not_written_after_an_answer(one: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is opened again where the answer says; nothing is lost, nothing doubled."""
    with one.running() as cycle:
        cycle.run_once()
        one.bets(41, 47)
        stored = answered_in_hand(cycle, one, monkeypatch, at="47")
        assert cycle.run_once().busy
        assert stored == ["47"]
        assert one.stored("casino_bets") == keys((1, 40))
        assert one.look("select seen_cursor from crm.checkpoints where stream = 'casino_bets'") == [(None,)]
        one.wait(lambda: (cycle.run_once(), len(one.stored("casino_bets")) == 47)[1], what="the page, read again")
        assert cycle.failures == {}
    assert one.stored("casino_bets") == keys((1, 47))
    assert one.look("select bet_count from crm.players") == [(47,)]


def test_an_idle_stream_notices_an_answer(one: House, command: Command) -> None:
    """Nothing is read, so nothing is committed; it is noticed all the same."""
    with one.running() as cycle:
        one.wait(lambda: (cycle.run_once(), not cycle.run_once().busy)[1], what="the daemon idles")
        assert command(one, "stream", "reset", "deposits")[0] == 0
        seen = "select seen_cursor is not null from crm.checkpoints where stream = 'deposits'"
        assert one.look(seen) == [(False,)]
        one.wait(lambda: (cycle.run_once(), one.look(seen) == [(True,)])[1], what="it has read again")
    assert len(one.stored("deposits")) == 40


def test_a_command_in_a_running_generation_counts_rows_once(settled: House, command: Command) -> None:
    """The daemon reads on in the new generation, though it had opened the stream in the old one."""
    with settled.running() as cycle:
        cycle.run_once()
        settled.operator.execute("delete from casino_bets_rows")
        settled.bets(41, 50, minutes=90)
        assert command(settled, "stream", "new-generation", "casino_bets", "--yes")[0] == 0
        settled.bets(51, 60, minutes=90)
        settled.wait(lambda: (cycle.run_once(), len(settled.stored("casino_bets")) == 60)[1], what="all bets")
        for _ in range(3):
            cycle.run_once()
    assert settled.look(
        "select generation, count(*) from crm.events where stream = 'casino_bets' group by 1 order by 1"
    ) == [
        (0, 40),
        (1, 20),
    ]


# Names --------------------------------------------------------------------------------------------------------------


def test_an_unknown_stream_is_answered_with_the_known_ones(one: House, command: Command) -> None:
    """Exit 2, one message."""
    code, told = command(one, "stream", "wait", "bets")
    assert (code, "no stream is named 'bets'" in told, "casino_bets, deposits" in told) == (2, True, True)


def test_names_are_those_of_status(one: House, command: Command) -> None:
    """`source.stream`, or --source, where two sources have such a stream; status says `source.stream` then too."""
    twin = {**one.source, "name": "other"}
    first, document = one.source, one.settings
    several = document.model_copy(update={"sources": [*document.sources, document.sources[0].model_copy(update=twin)]})
    with pytest.raises(Misconfigured, match=r"more than one stream is named 'deposits'") as ambiguous:
        application.stream_of(several, "deposits")
    assert "casino.deposits, casino.casino_bets, other.deposits" in ambiguous.value.hint
    assert application.stream_of(several, "other.deposits") == ("other", "deposits")
    assert application.stream_of(several, "deposits", "other") == ("other", "deposits")
    assert first["name"] == "casino"
    assert command(one, "stream", "wait", "casino.deposits")[0] == 0
    code, told = command(one, "status", "--json")
    assert code == 0
    assert json.loads(told)["streams"]["deposits"]["error"].startswith("waits: as answered")


def test_a_stream_that_never_started_has_nothing_to_answer(house_on: Callable[[str], House], command: Command) -> None:
    """Exit 2."""
    house = house_on("postgresql")
    code, told = command(house, "stream", "wait", "deposits")
    assert (code, "has not started yet" in told) == (2, True)
