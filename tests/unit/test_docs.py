"""What the documents say holds: configurations load, commands and files exist, tables agree with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import typer.main
import yaml
from pydantic import BaseModel, SecretStr

from connector import __version__, cli, config, errors, player
from connector.destinations import DESTINATIONS, customerio_attributes
from connector.destinations.contract import Profile
from connector.event import NAMES
from connector.sources import DIALECTS
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
OPERATIONS: Final = ROOT / "docs/operations.md"
ARCHITECTURE: Final = ROOT / "docs/architecture.md"
EXAMPLE: Final = ROOT / "config.example.yaml"
PAGES: Final = [README, ROOT / "CHANGELOG.md", ROOT / "views/README.md", *sorted((ROOT / "docs").glob("*.md"))]
UNITS: Final = sorted((ROOT / "systemd").glob("*.service"))
#: Where a file named in prose may lie, beside the page's own folder.
FOLDERS: Final = (ROOT, ROOT / "connector", ROOT / "views/postgresql")
#: Names of files that a reader makes.
MADE: Final = {"config.yaml"}
PLACES: Final = {"sources": config.Source, "destinations": config.Destination}
MAPS: Final = {"brands": config.Brand, "streams": config.Stream}
FILE: Final = re.compile(r"[\w@./-]+(\.(py|md|yaml|sql|service|toml|lock)|/)")
PROGRAM: Final = re.compile(r"(?:sudo |exec |ExecStart=)*(?:\S*\.venv/bin/)?connector (?=[a-z-])")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give what systemd would give: the URL of the replica and a directory with the credential."""
    (tmp_path / "customerio").write_text("key\n")
    return {"REPLICA_URL": "postgresql://reader@replica.example.com/casino", "CREDENTIALS_DIRECTORY": str(tmp_path)}


# The configuration --------------------------------------------------------------------------------------------------


def _with_every_key() -> str:
    """Return the example with its commented settings switched on; prose has a space after its #."""
    return re.sub(r"(?m)^( *)#(\w+:)", r"\1\2", EXAMPLE.read_text())


def test_the_example_configuration_loads(environment: dict[str, str]) -> None:
    loaded = config.load(EXAMPLE, streams=list(STREAMS), environment=environment)
    assert loaded.destinations[0].api_key.get_secret_value() == "key"


def test_the_example_configuration_loads_with_every_key(environment: dict[str, str], tmp_path: Path) -> None:
    full = tmp_path / "full.yaml"
    full.write_text(_with_every_key())
    config.load(full, streams=list(STREAMS), environment=environment)


def test_the_example_configuration_has_every_key() -> None:
    assert _missing(yaml.safe_load(_with_every_key()), config.Config, "") == []


def _missing(document: dict[str, Any], model: type[BaseModel], path: str) -> list[str]:
    """Return the fields that stand nowhere in a part of the document; one list entry or map value may have what others lack."""
    missing = []
    for name, info in model.model_fields.items():
        if name not in document and f"{name}_file" not in document:
            missing.append(f"{path}{name}")
        elif name in PLACES:
            missing += _missing(document[name][0], PLACES[name], f"{path}{name}[].")
        elif name in MAPS:
            merged = {key: value for body in document[name].values() for key, value in body.items()}
            missing += _missing(merged, MAPS[name], f"{path}{name}.*.")
        elif inner := _model_of(info.annotation):
            missing += _missing(document[name], inner, f"{path}{name}.")
    return missing


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def test_every_default_in_the_example_is_the_models() -> None:
    """A comment `(default X)` above a key says what the model would take; a field with a default says so."""
    told = dict(_defaults_told())
    assert len(told) > 25
    for path, (model, name, text) in told.items():
        info = model.model_fields[name]
        if text == "required":
            assert info.is_required(), path
        else:
            assert _plain(getattr(_validated(model, name, yaml.safe_load(text)), name)) == _plain(info.default), path
    for path, (model, name) in _keys_of(yaml.compose(_with_every_key()), config.Config, ""):
        info = model.model_fields[name]
        if not info.is_required() and info.default is not None and not isinstance(info.default, BaseModel):
            assert path.rpartition("@")[0] in {known.rpartition("@")[0] for known in told}, f"{path} tells no default"


def _validated(model: type[BaseModel], name: str, value: object) -> BaseModel:
    """Validate one field of a model, the required others made up."""
    others: dict[str, object] = {"name": "x", "kind": "customerio_track", "site_id": "x", "api_key": "x", "column": "x"}
    others |= {"url": "embedded:x", "streams": {"deposits": {}}} if model is config.Source else {}
    others |= {"sources": [{"name": "x", "url": "x", "streams": {"deposits": {}}}]} if model is config.Config else {}
    return model.model_validate(
        {key: item for key, item in others.items() if key in model.model_fields} | {name: value}
    )


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _defaults_told() -> Iterator[tuple[str, tuple[type[BaseModel], str, str]]]:
    lines = _with_every_key().splitlines()
    for path, (model, name) in _keys_of(yaml.compose("\n".join(lines)), config.Config, ""):
        comment, line = "", int(path.rpartition("@")[2]) - 1
        while line >= 0 and lines[line].lstrip().startswith("# "):
            comment, line = lines[line].strip("# ") + " " + comment, line - 1
        if match := re.search(r"\((?:default (.+)|(required))\)", comment):
            yield path, (model, name, match[1] or match[2])


def _keys_of(node: Any, model: type[BaseModel], path: str) -> Iterator[tuple[str, tuple[type[BaseModel], str]]]:
    """Yield every key of the document that is a model's field, as path@line, with its model and name."""
    for key, value in node.value:
        name = key.value.removesuffix("_file")
        if name not in model.model_fields:
            continue
        here = f"{path}{name}"
        yield f"{here}@{key.start_mark.line}", (model, name)
        inner = PLACES.get(name) or _model_of(model.model_fields[name].annotation)
        if name in MAPS:
            for _, body in value.value:
                yield from _keys_of(body, MAPS[name], f"{here}.")
        elif inner is not None:
            for part in value.value if name in PLACES else [value]:
                yield from _keys_of(part, inner, f"{here}.")


def test_configurations_in_the_pages_load(environment: dict[str, str]) -> None:
    blocks = [block for page in PAGES for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    assert blocks
    for block in blocks:
        loaded = config.parse(yaml.safe_load(block), streams=list(STREAMS), environment=environment)
        assert {source.url.get_secret_value().partition(":")[0] for source in loaded.sources} <= set(DIALECTS)


def test_the_example_names_every_stream_and_kind() -> None:
    text = EXAMPLE.read_text()
    assert [name for name in (*STREAMS, *DESTINATIONS) if name not in text] == []


# Commands -----------------------------------------------------------------------------------------------------------


def _code(page: Path) -> list[str]:
    """Return a page's code: inline spans, and lines of blocks with continuations joined."""
    text = page.read_text()
    spans = re.findall(r"`([^`\n]+)`", text) if page.suffix == ".md" else []
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return spans + [line.strip() for line in lines if page.suffix != ".md" or line.startswith(("    ", "make "))]


def _commands() -> Iterator[tuple[str, list[str]]]:
    for page in (*PAGES, *UNITS, EXAMPLE):
        for code in _code(page):
            if match := PROGRAM.match(code):
                yield f"{page.name}: {code}", shlex.split(code[match.end() :], comments=True)


@pytest.mark.parametrize(("said", "words"), list(_commands()))
def test_commands_in_the_pages_exist(said: str, words: list[str]) -> None:
    command: Any = typer.main.get_command(cli.app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, said
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known | {"--help"}, said


def test_every_command_stands_in_the_readme() -> None:
    named = {
        tuple(word for word in words if re.fullmatch(r"[a-z][a-z-]*", word))
        for said, words in _commands()
        if said.startswith("README")
    }
    for name, command in vars(typer.main.get_command(cli.app))["commands"].items():
        for inner in getattr(command, "commands", {"": None}):
            path = (name, inner) if inner else (name,)
            assert any(words[: len(path)] == path for words in named), f"connector {' '.join(path)}"


def test_exit_codes_are_documented() -> None:
    table = dict(re.findall(r"(?m)^\| (\d) \| (\w+)", OPERATIONS.read_text()))
    assert table == {"0": "done", "1": "failed", "2": "usage", "3": "unhealthy"}
    assert "0 done, 1 failed, 2 usage or configuration, 3 unhealthy" in README.read_text()
    raised = (errors.Halted, errors.Misconfigured, errors.Unhealthy, errors.Transient)
    assert [cli.exit_code(error("x")) for error in raised] == [1, 2, 3, 3]


# Files --------------------------------------------------------------------------------------------------------------


def _files_named(page: Path) -> set[str]:
    text = page.read_text().replace("/opt/connector/", "")
    names = {span for span in re.findall(r"`([^`\s]+)`", text) if FILE.fullmatch(span)}
    return names | set(re.findall(r"(?<![\w/.-])(?:connector|views|systemd|tests|docs)/[\w@./-]+\.\w+", text))


@pytest.mark.parametrize("page", [*PAGES, EXAMPLE, *UNITS], ids=lambda page: page.name)
def test_files_named_in_the_pages_exist(page: Path) -> None:
    folders = (page.parent, *FOLDERS)
    named = (name for name in _files_named(page) - MADE if not name.startswith("/"))
    missing = [name for name in named if not any((folder / name).exists() for folder in folders)]
    assert missing == []


def test_pages_named_in_the_code_exist() -> None:
    for module in (ROOT / "connector").rglob("*.py"):
        for name in re.findall(r"\b(?:docs|views|systemd)/[\w./-]+\.\w+|\bconfig\.example\.yaml", module.read_text()):
            assert (ROOT / name).exists(), f"{module}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_work(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_files_and_never_lines(page: Path) -> None:
    assert re.findall(r"\.py:\d+|\bline \d+", page.read_text()) == []


# Tables -------------------------------------------------------------------------------------------------------------


def _rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the tables below a heading, without the tables' heads."""
    section = page.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    ruler = next(index for index, row in enumerate(cells) if set("".join(row)) <= {"-"})
    return cells[ruler + 1 :]


def test_the_status_table_is_the_codes() -> None:
    rows = _rows(ARCHITECTURE, "What a status means")
    assert {row[0] for row in rows} == {*player.STATUSES, "any other"}
    for raw, status, disabled, marketable in rows:
        assert status == player.STATUSES.get(raw, "banned"), raw
        values = {"status": status, "status_raw": raw, "rg_self_excluded": status == "self_excluded"}
        profile = Profile(1, "brand", "1", excluded=marketable != "yes", values=values)
        known = customerio_attributes.attributes(profile, None, config.Attributes())
        assert known["disabled"] == disabled, raw
        assert ("self_excluded" in known) == (marketable != "yes" and raw != "PENDING"), raw
        assert (marketable == "yes") == (raw in config.Config.model_fields["marketable_statuses"].default), raw


def test_the_event_table_has_every_event() -> None:
    rows = _rows(ARCHITECTURE, "Events by stream")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[2])} == set(NAMES)
    assert {row[0] for row in rows} - {""} == {*STREAMS, "segments"}  # the store's own


def test_what_the_night_table_quotes_is_said_by_the_code() -> None:
    source = " ".join(module.read_text() for module in (ROOT / "connector").rglob("*.py"))
    rows = _rows(OPERATIONS, "At night")
    assert len(rows) > 10
    for quote in (quote for row in rows for quote in re.findall(r"`([^`]+)`", row[0])):
        for part in (part.strip() for part in quote.split("...")):
            assert part.rstrip(":") in source, quote


def test_the_path_of_a_record_is_eight_files() -> None:
    section = ARCHITECTURE.read_text().partition("## The path of one deposit")[2].partition("Behind the tail")[0]
    assert len(re.findall(r"connector/\S+\.py", section)) <= 8


def test_the_changelog_has_this_version() -> None:
    assert re.search(
        rf"(?m)^## \[{re.escape(__version__)}\] - (unreleased|\d{{4}}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text()
    )
