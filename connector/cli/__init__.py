"""The command line: one file a command, one exit code a kind of failure.

A command imports the parts it works with when it runs: help and the emulator must not wait for the rest.
0 done, 1 failed, 2 usage or configuration, 3 unhealthy. A user's mistake is one message with a remedy, no traceback.
"""

from __future__ import annotations

import sys
from typing import Final

import typer

from connector import __version__
from connector.cli import (
    audit,
    audit_log,
    backfill,
    check,
    demo,
    emulate,
    forget,
    keys,
    players,
    quarantine,
    replay,
    run,
    segments,
    status,
    store,
    stream,
)
from connector.errors import ConnectorError, Misconfigured, Transient, Unhealthy

app: Final = typer.Typer(
    name="connector",
    help="Keeps a casino operator's CRM in step with the operator's database: every row once, provably.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("check")(check.check)
app.command("run")(run.run)
app.command("backfill")(backfill.backfill)
app.command("audit")(audit.audit)
app.command("replay")(replay.replay)
app.command("forget")(forget.forget)
app.command("status")(status.status)
app.command("demo")(demo.demo)
app.add_typer(stream.app, name="stream", help="Answer for a stream: accept, wait, reset, new-generation.")
app.add_typer(quarantine.app, name="quarantine", help="Rows that were refused: list, show, retry, drop.")
app.add_typer(players.app, name="players", help="Players: conflicts, resolve, totals, show, sent.")
app.add_typer(segments.app, name="segments", help="Segments: saved player filters, their members and templates.")
app.add_typer(keys.app, name="keys", help="Keys of e-mail addresses and phone numbers: rotate, show.")
app.add_typer(store.app, name="store", help="The CRM store: migrate, compact.")
app.add_typer(audit_log.app, name="audit-log", help="What was done, and by whom: list, verify.")
app.add_typer(emulate.app, name="emulate", help="Stand-ins for the APIs, for tests and demos.")


def main() -> None:
    """Run a command; the entry point of `connector`."""
    try:
        app()
    except ConnectorError as error:
        print(f"connector: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  remedy: {error.hint}", file=sys.stderr)
        sys.exit(exit_code(error))
    except Exception as error:  # noqa: BLE001 - its own text may quote a row: where it comes from is enough to find it
        from connector.service import named

        print(f"connector: this should not happen: {named(error)}", file=sys.stderr)
        print("  remedy: report it; values are left out on purpose", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def exit_code(error: ConnectorError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, Misconfigured):
        return 2
    return 3 if isinstance(error, Unhealthy | Transient) else 1


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit
