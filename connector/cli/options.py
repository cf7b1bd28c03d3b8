"""Options that several commands share."""

from __future__ import annotations

import getpass
import os
import sys
from datetime import UTC, datetime
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


def actor() -> str:
    """Return who runs the command, for the audit log."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as a container has
        return f"uid {os.getuid()}"


def instant(text: str | None, option: str) -> datetime | None:
    """Return the time that an option gives, in UTC unless it says otherwise. Raises Misconfigured."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"{option} {text!r} is no time", hint="write 2026-01-31 or '2026-01-31 12:00:00'") from None
    return given if given.tzinfo else given.replace(tzinfo=UTC)
