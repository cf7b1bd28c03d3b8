"""docs/promises.md: every known failure mode has its line, and every line a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LINES: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/promises.md").read_text().splitlines()
    if re.match(r"\| F\d+ \|", line)
]


def test_every_failure_mode_has_one_line() -> None:
    """F1 to F58, in order."""
    assert [line[0] for line in LINES] == [f"F{number}" for number in range(1, 59)]


@pytest.mark.parametrize("line", LINES, ids=[line[0] for line in LINES])
def test_a_failure_is_impossible_repaired_or_reported_and_a_test_shows_it(line: list[str]) -> None:
    """What does not apply says so, and needs none."""
    _, _, verdict, how, shown = line
    assert verdict in {"Impossible", "Repaired", "Reported", "Does not apply"}
    assert how
    named = re.findall(r"`(tests/[^`:]+)::(\w+)`", shown)
    assert bool(named) == (verdict != "Does not apply")
    assert shown.count("`") == 2 * len(named)
    for file, name in named:
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
