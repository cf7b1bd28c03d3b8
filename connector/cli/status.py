"""`connector status`: where every stream and destination stands."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from connector import clock
from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What scripts rely on; the table for people, and the HTTP status, tell more.
_DESTINATION: Final = ("state", "error", "pending", "accepted", "refused")
_COUNTS: Final = ("pending", "accepted", "refused", "dropped", "expired")


def status(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Show the state of every stream and destination."""
    from connector import app as application

    report = application.status(application.load_config(config))
    if as_json:
        exact = {name: {key: row[key] for key in _DESTINATION} for name, row in report["destinations"].items()}
        print(json.dumps({"streams": report["streams"], "destinations": exact}, default=str))
        return
    console = Console()
    streams = _table("stream", "state", "rows", "lag", "seen", "sealed")
    for name, row in report["streams"].items():
        lag = "" if row["lag_seconds"] is None else f"{row['lag_seconds']:.1f} s"
        streams.add_row(name, row["state"], f"{row['rows']:,}", lag, row["seen"] or "", row["sealed"] or "")
    destinations = _table("destination", "state", *_COUNTS)
    for name, row in report["destinations"].items():
        destinations.add_row(name, row["state"], *(f"{row[key]:,}" for key in _COUNTS))
    console.print(streams, destinations)
    for name, row in report["streams"].items():
        if row["audit"]:
            console.print(f"{name}: {_audited(row['audit'])}", style=_audit_style(row["audit"]), markup=False)
    for name, row in report["streams"].items():
        if unread := _not_read(row):
            console.print(f"{name}: {unread}", style="yellow", markup=False)
    for job in report["backfills"]:
        console.print(_loading(job), style="yellow", markup=False)
    for line in _money(report):
        console.print(line, style="yellow", markup=False)
    for name, row in {**report["streams"], **report["destinations"]}.items():
        if row["error"]:
            console.print(f"{name}: {row['error']}", style="red", markup=False)


def _loading(job: dict[str, Any]) -> str:
    """Say how far a backfill is that is not done, whether anybody works on it or not."""
    share = "?" if job["share"] is None else f"{job['share']:.0%}"
    return (
        f"{job['stream']}: backfill of {job['job']} is at {share}, {job['rows']:,} rows,"
        f" {job['ranges_done']:,} of {job['ranges']:,} ranges done"
    )


def _money(report: dict[str, Any]) -> Iterator[str]:
    """Say which amounts are in no total yet, and whether the operator counts otherwise."""
    for currency, count in report["waiting"].items():
        reason = "their players' currency is unknown" if currency == "unknown" else f"there is no rate for {currency}"
        yield f"{count:,} event(s) wait for their base amount: {reason}"
    if report["differing"]:
        yield f"player_totals: {report['differing']:,} player(s) have other totals there than their events add up to"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in {"rows", "lag", *_COUNTS} else "left")
    return table


def _audited(audit: dict[str, Any]) -> str:
    """Say what the newest audit has found, and when."""
    minutes = int((clock.now() - datetime.fromisoformat(audit["at"])).total_seconds() // 60)
    age = f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} days"
    counts = {"missing": audit["missing"], "repaired": audit["repaired"], "gone": audit["gone"]}
    counts["changed"] = audit["changed"]
    found = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    span = "" if audit["kind"] == "command" else f" (last {audit['kind']})"
    return f"audited {age} ago{span}: {found or 'nothing missing'}"


def _audit_style(audit: dict[str, Any]) -> str:
    if audit["missing"] > audit["repaired"]:
        return "red"
    return "yellow" if audit["missing"] or audit["gone"] or audit["changed"] else "green"


def _not_read(row: dict[str, Any]) -> str:
    """Say which rows of a stream are not in the store, and why."""
    counts = {
        "without cursor": row["null_cursors"],
        "in the future": row["future_rows"],
        "quarantined": row["quarantined"],
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
