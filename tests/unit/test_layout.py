"""The shape of the repository: small files, short functions, speaking names, nothing unexpected at the top."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
MODULES: Final = sorted((ROOT / "connector").rglob("*.py"))
MOST_LINES: Final = 400
MOST_FUNCTION_LINES: Final = 50
#: Names that say nothing about what is inside.
EMPTY_NAMES: Final = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
FILES: Final = {
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "config.example.yaml",
    "requirements.lock",
}
FOLDERS: Final = {"connector", "views", "systemd", "tests", "docs", "bench"}
#: What runs leave behind and git ignores.
IGNORED: Final = {"data", "dist", "__pycache__"}


def _id(module: Path) -> str:
    return str(module.relative_to(ROOT))


@pytest.mark.parametrize("module", MODULES, ids=_id)
def test_no_file_is_long(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("module", MODULES, ids=_id)
def test_no_function_is_long(module: Path) -> None:
    functions = (
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    sizes = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES} == {}


@pytest.mark.parametrize("module", MODULES, ids=_id)
def test_a_frame_works_out_its_expressions_in_turn(module: Path) -> None:
    """To hand a small page to the one thread of polars (`connector/__init__.py`), and wait, costs more than the work."""
    handed_over = re.findall(r"(?<!\bpl)(?<!\bsa)\.(?:select|with_columns)\(", module.read_text())
    assert handed_over == [], "use select_seq and with_columns_seq"


def test_names_say_something() -> None:
    parts = {part for module in MODULES for part in module.relative_to(ROOT).with_suffix("").parts}
    assert parts & EMPTY_NAMES == set()


def test_nothing_unexpected_lies_at_the_top() -> None:
    shown = {
        entry.name
        for entry in ROOT.iterdir()
        if not entry.name.startswith(".") and not entry.name.endswith(".egg-info")
    }
    assert shown - IGNORED <= FILES | FOLDERS
    assert shown >= FILES | FOLDERS


def test_every_locked_package_is_pinned_and_hashed() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]
    assert len(packages) > 20
    assert [
        package for package in packages if not re.match(r"[\w.-]+==\S+.*\\\n {4}--hash=sha256:[0-9a-f]{64}", package)
    ] == []
    stray = [
        line
        for line in text.splitlines()
        if line and not re.match(r"[a-z0-9][\w.-]*==| {4}--hash=sha256:| {4}#|#", line)
    ]
    assert stray == []


def test_the_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links", text) == []
