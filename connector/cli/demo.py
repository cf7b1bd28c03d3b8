"""`connector demo`: a casino that lives, its CRM filling, and at the end the comparison of the two."""

from __future__ import annotations

import json
import signal
import threading
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.live import Live

from connector import clock
from connector.cli.options import Json  # noqa: TC001 - typer reads annotations at run time
from connector.units import duration

if TYPE_CHECKING:
    from types import FrameType

    from connector.demo.stage import Sight, Stage

#: How long store and destination may take for what was in flight when the casino closed.
_SETTLE_SECONDS: Final = 90.0
_REFRESH_SECONDS: Final = 1.0


def demo(
    seconds: Annotated[
        str | None, typer.Option("--for", help="How long, such as 30s or 5m; without it until Ctrl-C.")
    ] = None,
    players: Annotated[int, typer.Option(min=100, help="Players in the casino.")] = 20_000,
    bets: Annotated[int, typer.Option(min=0, help="Bets and wins of history.")] = 500_000,
    rate: Annotated[float, typer.Option(min=1, help="Rows a second of live traffic.")] = 250.0,
    as_json: Json = False,
) -> None:
    """Watch a living casino's players and money arrive in a real CRM store and at a Customer.io-compatible API."""
    from connector.demo.stage import Stage

    limit = None if seconds is None else duration(seconds)
    console = Console(stderr=as_json)
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with Stage(players, bets, rate, console.print) as stage:
        _watch(stage, console, stopping, limit, quiet=as_json and not console.is_terminal)
        console.print("closing the casino and comparing")
        sight, status = stage.settle(_SETTLE_SECONDS)
    result = outcome(sight, status)
    print(json.dumps(result)) if as_json else _tell(console, result)
    if not result["ok"]:
        raise typer.Exit(1)


def outcome(sight: Sight, status: dict[str, Any]) -> dict[str, Any]:
    """Return the comparison: ok only if the store holds exactly the replica's rows and every destination is drained."""
    destinations = status["destinations"]
    drained = all(row["pending"] == 0 and row["refused"] == 0 and row["accepted"] > 0 for row in destinations.values())
    return {
        "ok": sight.agrees and drained,
        "streams": {stream: {"replica": rows, "store": sight.store[stream]} for stream, rows in sight.replica.items()},
        "destinations": {
            name: {key: row[key] for key in ("accepted", "refused")} for name, row in destinations.items()
        },
    }


def _watch(stage: Stage, console: Console, stopping: threading.Event, limit: float | None, *, quiet: bool) -> None:
    from connector.demo import show

    watch = show.Watch()
    started = clock.monotonic()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while not stopping.is_set():
            stage.alive()
            now = clock.monotonic()
            left = None if limit is None else limit - (now - started)
            if left is not None and left <= 0:
                return
            watch.add(now, stage.see())
            if not quiet:
                live.update(show.screen(watch, stage.traffic.recent, left=left), refresh=True)
            stopping.wait(_REFRESH_SECONDS if left is None else min(_REFRESH_SECONDS, left))


def _tell(console: Console, result: dict[str, Any]) -> None:
    for stream, rows in result["streams"].items():
        same = rows["replica"] == rows["store"]
        console.print(
            f"{stream:<27} {rows['replica']:>10,} on the replica  {rows['store']:>10,} in the store"
            f"  {'equal' if same else 'DIFFERENT'}"
        )
    for name, row in result["destinations"].items():
        console.print(f"{name:<27} {row['accepted']:>10,} accepted        {row['refused']:>10,} refused")
    console.print("[green]every row, once[/]" if result["ok"] else "[red]store and replica differ[/]")
