"""`connector audit-log ...`: what was done to the store and by whom, and whether that record is whole."""

from __future__ import annotations

import json
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json
from connector.errors import Unhealthy

app: Final = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The audit log: list, verify."""


@app.command("list")
def list_entries(
    config: ConfigFile = DEFAULT_CONFIG,
    action: Annotated[str | None, typer.Option("--action", help="Only these: erasure, replay, stream.reset...")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List what was done, newest first."""
    from connector import app as application
    from connector.store import audit_log

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        found = audit_log.listed(connection, settings.tenant, action=action, limit=limit)
    if as_json:
        print(json.dumps(found, default=str))
        return
    if not found:
        print("nothing was written yet" if action is None else f"nothing was written of {action!r}")
        return
    table = Table(box=box.SIMPLE)
    for column in ("entry", "when", "who", "what", "of what", "details"):
        table.add_column(column, overflow="fold")
    for row in found:
        details = json.dumps(row["details"], ensure_ascii=False)
        values = (row["entry_id"], f"{row['at']:%Y-%m-%d %H:%M:%S}", row["actor"], row["action"], row["subject"])
        table.add_row(*(str(value) for value in values), details if len(details) <= 200 else f"{details[:197]}...")
    Console().print(table)


@app.command()
def verify(
    config: ConfigFile = DEFAULT_CONFIG,
    known: Annotated[str | None, typer.Option("--known", help="A hash kept elsewhere: it must still be there.")] = None,
    as_json: Json = False,
) -> None:
    """Compute every hash anew; exit code 3 where the log was changed."""
    from connector import app as application
    from connector.store import audit_log

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        verdict = audit_log.verify(connection, settings.tenant, known=known)
    if as_json:
        print(json.dumps(vars(verdict)))
    elif verdict.broken is None:
        print(f"{verdict.entries} entries, whole. Keep the last hash elsewhere: {verdict.head}")
    if verdict.broken is not None:
        raise Unhealthy(
            f"the audit log was changed: entry {verdict.broken}: {verdict.why}",
            hint="what comes before it is whole; compare with a backup and with the hashes in the daemon's log",
        )
