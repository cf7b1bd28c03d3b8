"""`connector players ...`: what waits for an answer, the answer, and one player."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
import yaml

from connector.normalised import REPORTED, Normalised
from connector.store.commit import Batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from connector.store.database import Database

Writer = Any
Look = Any
Command = Any


@pytest.fixture
def command(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Give a runner of commands through the entry point; returns exit code and what was printed."""
    from connector import cli

    source = {"name": "casino", "url": "postgresql://reader@replica.example.com/casino", "streams": {"deposits": {}}}
    document = {"tenant": "kaasino", "store": {"url": store.url}, "sources": [source]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["connector", "players", *words, "--config", str(path)])
        monkeypatch.setenv("COLUMNS", "200")
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out + err

    return run


@pytest.fixture
def pair(writer: Writer, look: Look) -> dict[str, int]:
    """Give two accounts of one address, by their ids at the operator."""
    for name in ("anas-first", "anas-second"):
        writer.profiles({"external_id": name, "email": "ana@example.com", "first_name": "Ana"})
    rows = look("select external_id, player_id from crm.players")
    return {row["external_id"]: row["player_id"] for row in rows}


def test_conflicts_are_listed_without_what_is_shared(command: Command, pair: dict[str, int]) -> None:
    """Ids and brands, and by what they are alike: no address, no name."""
    code, told = command("conflicts", "--json")
    assert code == 0
    (found,) = json.loads(told)
    assert (found["player_id"], found["other_id"], found["matched_by"], found["status"]) == (
        *(pair["anas-second"], pair["anas-first"]),
        *("email", "conflict"),
    )
    code, table = command("conflicts")
    assert "kaasino:anas-second" in table
    assert "ana@example.com" not in told + table


@pytest.mark.parametrize("answer", ["distinct", "same"])
def test_an_answer_takes_a_conflict_off_the_list(
    command: Command, pair: dict[str, int], look: Look, answer: str
) -> None:
    """In whichever order the two are named; what was answered stands in the store."""
    numbers = [str(pair[name]) for name in ("anas-first", "anas-second")]
    assert command("resolve", *numbers, f"--{answer}") == (0, "answered; its status is active again\n")
    assert look("select resolution from crm.player_conflicts where resolved_at is not null") == [{"resolution": answer}]
    assert {row["status"] for row in look("select status from crm.players")} == {"active"}
    assert command("conflicts") == (0, "no two accounts share a contact that was not answered for\n")
    code, told = command("resolve", *numbers, f"--{answer}")
    assert (code, "in no open conflict" in told) == (2, True)


@pytest.mark.parametrize("words", [(), ("--distinct", "--same")])
def test_an_answer_says_one_thing(command: Command, pair: dict[str, int], look: Look, words: tuple[str, ...]) -> None:
    """Nothing is assumed."""
    code, told = command("resolve", *(str(number) for number in pair.values()), *words)
    assert (code, "say what they are" in told) == (2, True)
    assert look("select from crm.player_conflicts where resolved_at is not null") == []


def test_a_player_is_shown_masked_and_whole_on_demand(command: Command, pair: dict[str, int]) -> None:
    """By brand and id as they are written."""
    code, told = command("show", "kaasino", "anas-first", "--json")
    assert (code, json.loads(told)["player_id"]) == (0, pair["anas-first"])
    code, lines = command("show", "kaasino", "anas-first")
    assert (code, "a***@e***.com" in lines, "None" in lines) == (0, True, False)
    assert not {"ana@example.com", "Ana"} & set(f"{told} {lines}".replace('"', " ").split())
    for words in (("--personal",), ("--personal", "--json")):
        code, told = command("show", "kaasino", "anas-first", *words)
        assert (code, "ana@example.com" in told, "a***" in told) == (0, True, False)
    code, told = command("show", "kaasino", "Anas-First")
    assert (code, "has no player" in told) == (2, True)


def test_totals_that_differ_are_listed(command: Command, writer: Writer) -> None:
    """The operator's number and how far ours was from it; nobody, where they agree."""
    writer.profiles({"external_id": "7"})
    writer.events({"key": "d1", "external_id": "7"})
    assert "no player's totals differ" in command("totals")[1]
    told = {"brand_id": "kaasino", "external_id": "7", "as_of": datetime(2026, 2, 1, tzinfo=UTC), "deposit_count": 3}
    reported = pl.DataFrame([{**dict.fromkeys(REPORTED), **told}], schema=REPORTED)
    writer.commit(Batch(writer.checkpoint, Normalised(reported=reported)))
    assert "kaasino:7 as of 2026-02-01 00:00: deposit_count 3 (+2)" in command("totals")[1]
    (row,) = json.loads(command("totals", "--json")[1])
    assert row["totals"] == {"deposit_count": {"theirs": 3, "by": 2}}
