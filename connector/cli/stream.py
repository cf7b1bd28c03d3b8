"""`connector stream ...`: answer for a stream that asks, beside the running daemon or without one."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Yes, actor, confirmed
from connector.errors import Halted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connector.poller import Desk

app: Final = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The stream as `connector status` names it.")]
Source = Annotated[str | None, typer.Option(help="Which source, when several have such a stream.")]
Since = Annotated[str | None, typer.Option("--from", help="First cursor value, included: a time or an id.")]

_GOES_ON: Final = "A running daemon goes on there within half a minute; nothing needs a restart."


@app.callback()
def _group() -> None:
    """Answer for a stream: accept, wait, reset, new-generation."""


@app.command()
def accept(
    name: Name,
    config: ConfigFile = DEFAULT_CONFIG,
    source: Source = None,
    yes: Annotated[bool, typer.Option("--yes", help="Accept data that does not match, as it is.")] = False,
) -> None:
    """Same data, other server: read on from the server that answers now, after comparing rows that were final."""
    from connector import answers

    with _desk(config, name, source) as (desk, stream):
        examined = answers.examine(desk, stream)
        print(f"{stream}: {examined.server}: {examined.found}")
        if examined.known and examined.matches:
            print(f"{stream}: it is accepted already; nothing was changed")
            return
        if not examined.matches and not yes:
            raise Halted(
                f"stream {stream}: nothing shows that this is the data that was read",
                hint="look at it yourself; --yes accepts it as it is, the generation kept",
            )
        with _recorded(desk, "stream.accept", stream) as details:
            answers.accept(desk, examined)
            details |= {"server": examined.server, "matched": examined.matches}
        print(f"{stream}: accepted, generation and marks kept. {_GOES_ON}")


@app.command()
def wait(name: Name, config: ConfigFile = DEFAULT_CONFIG, source: Source = None) -> None:
    """The data will come back: wait for it, and go on by itself when it has."""
    from connector import answers

    with _desk(config, name, source) as (desk, stream):
        with _recorded(desk, "stream.wait", stream):
            answers.wait(desk, stream)
        print(f"{stream}: waits until the source holds what was read from it; it is looked at every 30 s")


@app.command()
def reset(name: Name, config: ConfigFile = DEFAULT_CONFIG, source: Source = None, since: Since = None) -> None:
    """Read again, from a cursor value on or from the beginning; what the store has is not counted again."""
    from connector import answers

    with _desk(config, name, source) as (desk, stream):
        with _recorded(desk, "stream.reset", stream) as details:
            rows = answers.reset(desk, stream, since)
            details |= {"from": since, "rows": rows}
        told = _counted(rows)
        print(f"{stream}: is read again from {since or 'its beginning'} under the same generation: {told}")
        print(f"Rows that the store has are left alone, totals too. {_GOES_ON}")


@app.command("new-generation")
def new_generation(
    name: Name,
    config: ConfigFile = DEFAULT_CONFIG,
    source: Source = None,
    since: Since = None,
    yes: Yes = False,
) -> None:
    """Ids restarted: count the rows that are there as new ones, though their keys were seen before."""
    from connector import answers

    with _desk(config, name, source) as (desk, stream):
        coming = answers.prepare_generation(desk, stream, since)
        number = coming.checkpoint.generation + 1
        print(f"{stream}: generation {number} begins at {since or 'the beginning'} of {coming.binding.view}")
        rows = _counted(coming.rows)
        print(f"{rows} will be counted anew, on top of what the store has of generation {number - 1}")
        if coming.history_text is not None:
            print(f"Rows up to {coming.binding.cursor} {coming.history_text} are history: they send no events")
        if confirmed(f"Count {rows} of {stream} anew?", yes=yes):
            with _recorded(desk, "stream.new-generation", stream) as details:
                answers.begin_generation(desk, coming)
                details |= {"from": since, "generation": number, "rows": coming.rows}
            print(f"{stream}: generation {number} has begun. {_GOES_ON}")
        else:
            print(f"{stream}: nothing was changed")
            sys.exit(1)


def _recorded(desk: Desk, action: str, stream: str) -> AbstractContextManager[dict[str, Any]]:
    from connector.store import audit_log

    return audit_log.recorded(desk.connection, desk.tenant, action, f"{desk.source.name}.{stream}", actor=actor())


def _counted(rows: int | None) -> str:
    return "rows that the source could not count in time" if rows is None else f"{rows:,} row(s)"


@contextmanager
def _desk(config: Path, name: str, source: str | None) -> Iterator[tuple[Desk, str]]:
    from connector import app as application, logs

    logs.configure(level="warning")
    settings = application.load_config(config)
    where, stream = application.stream_of(settings, name, source)
    with application.desk(settings, source=where, stream=stream, purpose="answer") as desk:
        yield desk, stream
