"""The configuration as a document: strict YAML, ${VAR} from the environment, NAME_file from files.

Owns the way from text to plain values. What they mean is config.py's business; no message quotes the text, since a
line of it may hold a secret.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: `NAME_file: PATH` puts the file's content under NAME; these are the names it works for.
_SECRETS: Final = ("url", "api_key", "site_id", "keys", "token")


def read(path: Path) -> object:
    """Return the document of a YAML file; raises Misconfigured with line and column."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise Misconfigured(
            f"cannot read {path}: {error.strerror}", hint="name it with --config, or copy config.example.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{path} is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Misconfigured(f"{path} is not valid YAML{place}: {_problem(error)}") from None
    except yaml.YAMLError:
        raise Misconfigured(f"{path} is not valid YAML") from None


def expand(document: dict[Any, Any], environment: Mapping[str, str], mistakes: dict[str, str]) -> dict[Any, Any]:
    """Replace ${VAR} and NAME_file everywhere; what is missing goes to `mistakes`, path -> message."""
    return dict(_expand_items(document, "", environment, mistakes))


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice instead of keeping the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key_node.start_mark)
            if key_node.value in seen:
                problem = f"key {key_node.value!r} twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _problem(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong without the text it is wrong in; names of keys are no secrets."""
    problem = error.problem or "broken"
    return problem if problem.endswith(" twice") else re.sub(r"'[^']*'|\"[^\"]*\"", "...", problem)


def _expand(value: object, path: str, environment: Mapping[str, str], mistakes: dict[str, str]) -> object:
    if isinstance(value, dict):
        return dict(_expand_items(value, path, environment, mistakes))
    if isinstance(value, list):
        return [_expand(item, f"{path}[{i}]", environment, mistakes) for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        if match[1] not in environment:
            mistakes[path] = f"the environment variable {match[1]} is not set"
        return environment.get(match[1], match[0])

    return _VARIABLE.sub(variable, value)


def _expand_items(
    value: dict[Any, Any], path: str, environment: Mapping[str, str], mistakes: dict[str, str]
) -> Iterator[tuple[Any, object]]:
    for key, item in value.items():
        name, here = str(key), f"{path}.{key}" if path else str(key)
        expanded = _expand(item, here, environment, mistakes)
        stem = name.removesuffix("_file")
        if stem == name or stem not in _SECRETS or not isinstance(expanded, str):
            yield key, expanded
            continue
        if stem in value:
            mistakes[here] = f"stands beside {stem}: keep one"
        elif here not in mistakes:
            yield stem, _content(expanded, here, mistakes)


def _content(name: str, path: str, mistakes: dict[str, str]) -> str:
    try:
        content = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        mistakes[path] = f"cannot read {name}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        return ""
    if not content:
        mistakes[path] = f"{name} is empty"
    return content
