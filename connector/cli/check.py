"""`connector check`: will this configuration work, and if not, what to do about it."""

from __future__ import annotations

import dataclasses
import json

import typer
from rich.console import Console

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json

_MARKS = {"ok": "[green]ok[/]   ", "warn": "[yellow]warn[/] ", "error": "[red]error[/]"}


def check(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Check configuration, connections, views, columns, keys, indexes, clocks and destinations."""
    from connector import app as application, checks

    settings = application.load_config(config)
    findings: list[checks.Finding] = []
    console = Console()
    for finding in checks.check(settings):
        findings.append(finding)
        if not as_json:
            console.print(f"{_MARKS[finding.level]} [bold]{finding.subject}[/]: ", end="")
            console.print(finding.text, markup=False)
            if finding.remedy:
                console.print(f"        {finding.remedy}", style="dim", markup=False)
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in findings]}))
    if failed:
        raise typer.Exit(3)
