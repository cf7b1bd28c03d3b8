"""The operators' SQL in views/: it parses in its own dialect and shows the columns that the streams ask for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import sqlglot
from sqlglot import expressions as exp

from connector.demo.casino import views_directory
from connector.streams import STREAMS

if TYPE_CHECKING:
    from pathlib import Path

DIALECTS: Final = {"postgresql": "postgres", "mysql": "mysql", "sqlserver": "tsql"}
VIEWS: Final = views_directory()
SCRIPTS: Final = sorted(VIEWS.glob("*/*.sql"))
FILES: Final = {
    *("touched_at", "user_profile", "user_labels", "deposits", "withdrawals"),
    *("casino_bets", "casino_wins_separate", "casino_win_per_bet", "indexes", "role"),
    *("sport_bet_open", "sport_bet_selection_open", "sport_bet_settled", "sport_bet_selection_settled"),
    *("failed_deposits", "bonuses"),
    *("fx_rates", "player_totals", "erasures"),
}
#: View -> (stream, mode, cursor, key).
SHOWN: Final = {
    "user_profile": ("user_profile", None, "dt_update", ("ext_brand_id", "user_ext_id")),
    "user_tags": ("user_tags", None, "dt_update", ("ext_brand_id", "user_ext_id", "tag")),
    "user_groups": ("user_groups", None, "dt_update", ("ext_brand_id", "user_ext_id", "group_code")),
    "deposits": ("deposits", None, "dt_finalized", ("transaction_id",)),
    "withdrawals": ("withdrawals", None, "dt_finalized", ("transaction_id", "withdrawal_status")),
    "casino_bets": ("casino_bets", "single_table", "id", ("id",)),
    "casino_bets_separate": ("casino_bets", "separate", "id", ("id",)),
    "casino_wins": ("casino_wins", "wins", "id", ("id",)),
    "casino_win_per_bet": ("casino_bets", "win_per_bet", "dt", ("bet_id",)),
    "sport_bet_open": ("sport_bet_open", None, "id", ("id",)),
    "sport_bet_selection_open": ("sport_bet_selection_open", None, "id", ("id",)),
    "sport_bet_settled": ("sport_bet_settled", None, "id", ("id",)),
    "sport_bet_selection_settled": ("sport_bet_selection_settled", None, "id", ("id",)),
    "failed_deposits": ("failed_deposits", None, "dt_finalized", ("transaction_id",)),
    "bonuses": ("bonuses", None, "id", ("id",)),
    "fx_rates": ("fx_rates", None, "dt_update", ("base", "currency", "valid_from")),
    "erasures": ("erasures", None, "dt_update", ("ext_brand_id", "user_ext_id")),
    "player_totals": ("player_totals", None, "as_of", ("ext_brand_id", "user_ext_id")),
}
#: What sqlglot keeps as raw text: users, grants and procedural code are each server's own.
RAW: Final = re.compile(r"(create|alter) (or \w+ )?(role|user|login|trigger|function)|grant ", re.IGNORECASE)


def _name(script: Path) -> str:
    return f"{script.parent.name}/{script.stem}"


def _statements(script: Path) -> list[exp.Expr]:
    dialect = DIALECTS[script.parent.name]
    text = script.read_text(encoding="utf-8")
    batches = re.split(r"(?mi)^go$", text) if dialect == "tsql" else [text]
    return [statement for batch in batches for statement in sqlglot.parse(batch, read=dialect) if statement is not None]


def _views(script: Path) -> dict[str, list[str]]:
    created = [s for s in _statements(script) if isinstance(s, exp.Create) and s.kind == "VIEW"]
    return {s.this.name: [name.lower() for name in s.expression.named_selects] for s in created}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_the_same_files(dialect: str) -> None:
    """A DBA finds the same set of scripts whatever the server."""
    assert {script.stem for script in (VIEWS / dialect).glob("*.sql")} == FILES


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_script_parses_in_its_dialect(script: Path) -> None:
    """Every statement is SQL of its server, and what the parser can't read is of the few kinds it need not."""
    statements = _statements(script)

    assert statements
    for statement in statements:
        if isinstance(statement, exp.Command):
            assert RAW.search(statement.sql(comments=False)), statement.sql()


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_script_says_what_it_is_and_what_to_adapt(script: Path) -> None:
    """The comment on top names the server and has a word on adapting."""
    head = script.read_text(encoding="utf-8").split("\n\n")[0]

    assert head.startswith("--")
    assert {"postgresql": "PostgreSQL", "mysql": "MySQL", "sqlserver": "SQL Server"}[script.parent.name] in head
    assert "Adapt:" in head


@pytest.mark.parametrize("dialect", DIALECTS)
def test_views_show_what_the_streams_require(dialect: str) -> None:
    """Each view has every required column of its stream and mode, under its name or an alias, and cursor and key."""
    views = {name: columns for s in (VIEWS / dialect).glob("*.sql") for name, columns in _views(s).items()}

    assert views.keys() == SHOWN.keys()
    for view, (stream, mode, cursor, key) in SHOWN.items():
        columns = views[view]
        assert len(set(columns)) == len(columns)
        assert {cursor, *key} <= set(columns)
        for column in STREAMS[stream].columns_for(mode):
            assert not column.required or {column.name, *column.aliases} & set(columns), (view, column.name)


@pytest.mark.parametrize("view", SHOWN)
def test_dialects_show_the_same_columns(view: str) -> None:
    """The view has the same columns in the same order on every server."""
    shown = [columns for script in SCRIPTS for name, columns in _views(script).items() if name == view]

    assert len(shown) == len(DIALECTS)
    assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_views_start_at_one_table_and_look_up_the_rest(script: Path) -> None:
    """No inner join, no ORDER BY, no UNION: a row never waits for a look-up row, and the index serves the page."""
    for statement in _statements(script):
        if isinstance(statement, exp.Create) and statement.kind == "VIEW":
            assert isinstance(statement.expression, exp.Select)
            assert all(join.side == "LEFT" for join in statement.expression.args.get("joins", []))
            assert statement.expression.args.get("order") is None


def test_readme_names_every_required_column() -> None:
    """The page a DBA reads lists every column that check would ask for."""
    text = (VIEWS / "README.md").read_text(encoding="utf-8")

    for stream, mode, cursor, key in SHOWN.values():
        required = {column.name for column in STREAMS[stream].columns_for(mode) if column.required}
        for name in {*required, cursor, *key}:
            assert f"`{name}`" in text, (stream, name)
