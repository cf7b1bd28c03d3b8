"""`connector backfill`: load history once, through the same path; stop and start it as you like."""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connector import logs
from connector.cli.options import DEFAULT_CONFIG, ConfigFile
from connector.errors import Halted, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector import config
    from connector.budget import Terms
    from connector.cli.bars import Shown
    from connector.gate import Gate

Place = tuple[str, str]
_STOPPED: Final = "stopped: the same command goes on where it was"


def backfill(
    stream: Annotated[
        list[str] | None, typer.Option("--stream", help="casino_bets, ...; may be repeated. None: see --all.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    source: Annotated[str | None, typer.Option(help="Which source, when there are several.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First cursor value, included: a time or an id.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last cursor value, included.")] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="From the first row to the end of history. Of no stream named: the first load, which is all streams "
            "but those of the casino and the sportsbook, whose bets count from now on.",
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=16, help="Ranges at a time; each has a session at the source of its own.")
    ] = 1,
    max_rate: Annotated[float | None, typer.Option(min=1.0, help="At most so many rows a second.")] = None,
    send_events: Annotated[
        bool, typer.Option("--send-events", help="Send its events too, each once it is older than 72 hours.")
    ] = False,
) -> None:
    """Load history, and compare it with its source; a job that was stopped goes on where it was."""
    named = stream or []
    if everything == (since is not None or until is not None):
        raise Misconfigured("say what to load", hint="either --all, or --from and/or --to")
    if not everything and len(named) != 1:
        raise Misconfigured("cursor values belong to one stream", hint="name it with --stream")
    from connector import app as application

    logs.configure(level="warning")
    settings = application.load_config(config)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    places = [application.stream_of(settings, name, source) for name in dict.fromkeys(named)]
    places = places or list(_first_load(settings, source))
    load = _Load(settings, since, until, workers, max_rate, send_events, stopping.is_set)
    codes = [_outcome(load, place, alone=len(places) == 1) for place in places if not stopping.is_set()]
    sys.exit(max(codes) if len(codes) == len(places) else 1)


@dataclass(frozen=True)
class _Load:
    """What is asked of each stream."""

    settings: config.Config
    since: str | None
    until: str | None
    workers: int
    max_rate: float | None
    send_events: bool
    stopped: Callable[[], bool]


def _first_load(settings: config.Config, source: str | None) -> Iterator[Place]:
    """Yield what the daemon, too, reads from the beginning: users, payments and facts; bets count from now on."""
    from connector.streams import STREAMS

    chosen = [item for item in settings.sources if source in {None, item.name}]
    if not chosen:
        known = ", ".join(item.name for item in settings.sources)
        raise Misconfigured(f"there is no source {source!r}", hint=f"one of: {known}")
    for item in chosen:
        for name, contract in STREAMS.items():
            if name in item.streams and contract.start == "beginning":
                yield item.name, name
            elif name in item.streams:
                print(f"{name}: from now on; its history is loaded with --stream {name}")


def _outcome(load: _Load, place: Place, *, alone: bool) -> int:
    """Load a stream and return the exit code; what stops one of several does not stop the others."""
    from connector.cli.bars import Shown
    from connector.gate import Gate, StoppedError

    source, name = place
    try:
        gate = Gate(_terms(load, source), stopped=load.stopped)
        with Shown(name, lambda: gate.waits) as shown:
            code, said, remedy = _loaded(load, place, gate, shown)
    except StoppedError:
        code, said, remedy = 1, _STOPPED, ""
    except (Halted, Misconfigured) as error:
        if alone:
            raise
        print(f"{name}: {error.message}\n  remedy: {error.hint}", file=sys.stderr)
        return 2 if isinstance(error, Misconfigured) else 1
    print(f"{name}: {said}")
    if remedy:
        print(f"  remedy: {remedy}", file=sys.stderr)
    return code


def _terms(load: _Load, source: str) -> Terms:
    from connector.budget import Terms

    limits = next(item.backfill for item in load.settings.sources if item.name == source)
    return Terms(limits.busy, load.max_rate, limits.hours, limits.max_lag)


def _loaded(load: _Load, place: Place, gate: Gate, shown: Shown) -> tuple[int, str, str]:
    """Load a stream and compare it; returns exit code, what to say, and a remedy where there is one."""
    from connector import app as application, backfill as work, verification
    from connector.store import backfills

    source, name = place
    send_to = {item.name: item.subscribed for item in load.settings.destinations if item.events and load.send_events}
    with application.desks(load.settings, source=source, stream=name, workers=load.workers, gate=gate) as desks:
        desk, *others = desks
        opened = work.open_stream(desk, name)
        job = work.prepare(desk, opened, since=load.since, until=load.until, sends=load.send_events)
        which = work.job_of(desk, opened, job)
        if (at := backfills.verified(desk.connection, which)) is not None:
            rows = backfills.progress(desk.connection, which).rows
            return 0, f"loaded and verified already, at {at:%Y-%m-%d %H:%M} UTC: {rows:,} rows ({job})", ""
        done = work.run(
            *(desk, opened, job),
            send_to=send_to,
            report=shown.report,
            stopped=load.stopped,
            others=others,
            patience=work.PATIENCE,
        )
        told = f"{done.rows:,} rows in {done.ranges_done} of {done.ranges} ranges ({job})"
        if not done.done:
            return 1, f"{told}; {_STOPPED}", ""
        if not done.ranges:
            return 0, f"there is no history to load ({job})", ""
        result = verification.verify(desk, name, job, report=shown.compared)
    return (0 if result.agrees else 1), f"{told}; {result.said}", result.remedy
