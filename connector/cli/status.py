"""`connector status`: where every stream and destination stands."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from connector import app as application
from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json


def status(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Show the state of every stream and destination."""
    report = application.status(application.load_config(config))
    if as_json:
        print(json.dumps(report, default=str))
        return
    console = Console()
    streams = Table(
        "stream",
        "state",
        "rows",
        "lag",
        "seen",
        "sealed",
        "no cursor",
        "future",
        "quarantined",
        title="Streams",
        title_justify="left",
    )
    for name, row in report["streams"].items():
        lag = "" if row["lag_seconds"] is None else f"{row['lag_seconds']:.1f} s"
        counts = (str(row[key]) for key in ("null_cursors", "future_rows", "quarantined"))
        streams.add_row(name, row["state"], f"{row['rows']:,}", lag, row["seen"] or "", row["sealed"] or "", *counts)
    destinations = Table(
        "destination",
        "state",
        "pending",
        "accepted",
        "refused",
        "dropped",
        "expired",
        title="Destinations",
        title_justify="left",
    )
    for name, row in report["destinations"].items():
        destinations.add_row(
            name, row["state"], *(f"{row[key]:,}" for key in ("pending", "accepted", "refused", "dropped", "expired"))
        )
    console.print(streams, destinations)
    for name, row in {**report["streams"], **report["destinations"]}.items():
        if row["error"]:
            console.print(f"{name}: {row['error']}", style="red", markup=False)
