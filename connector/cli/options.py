"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from connector.errors import Misconfigured

ConfigFile = Annotated[Path, typer.Option("--config", "-c", envvar="CONNECTOR_CONFIG", help="The configuration file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_CONFIG = Path("/etc/connector/config.yaml")
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask a person unless `yes`; where nobody can answer, say so. Raises Misconfigured."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Misconfigured("this asks before it does it, and nobody is there to answer", hint="add --yes")
    return typer.confirm(question)
