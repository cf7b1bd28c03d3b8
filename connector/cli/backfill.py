"""`connector backfill`: load history once, through the same path; stop and start it as you like."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connector import logs
from connector.cli.options import DEFAULT_CONFIG, ConfigFile
from connector.errors import Misconfigured


def backfill(
    stream: Annotated[str, typer.Option("--stream", help="user_profile, deposits, withdrawals, casino_bets, ...")],
    config: ConfigFile = DEFAULT_CONFIG,
    source: Annotated[str | None, typer.Option(help="Which source, when there are several.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First cursor value, included: a time or an id.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last cursor value, included.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="From the first row to the end of history.")] = False,
    send_events: Annotated[
        bool, typer.Option("--send-events", help="Send its events too, each once it is older than 72 hours.")
    ] = False,
) -> None:
    """Load history of one stream; a job that was stopped goes on where it was."""
    if everything == (since is not None or until is not None):
        raise Misconfigured("say what to load", hint="either --all, or --from and/or --to")
    from connector import app as application, backfill as work

    logs.configure(level="warning")
    settings = application.load_config(config)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with application.desk(settings, source=source, stream=stream) as desk, _bar() as bar:
        opened = work.open_stream(desk, stream)
        job = work.prepare(desk, opened, since=since, until=until, sends=send_events)
        send_to = {item.name: item.subscribed for item in settings.destinations if item.events and send_events}
        task = bar.add_task(stream, total=None, rows="")

        def report(progress: work.Progress) -> None:
            bar.update(task, total=progress.ranges, completed=progress.ranges_done, rows=f"{progress.rows:,} rows")

        done = work.run(desk, opened, job, send_to=send_to, report=report, stopped=stopping.is_set)
    print(f"{stream}: {done.rows:,} rows in {done.ranges_done} of {done.ranges} ranges ({job})")
    sys.exit(0 if done.ranges_done == done.ranges else 1)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=False)
