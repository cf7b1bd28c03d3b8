"""`connector quarantine ...`: look at the rows that were refused, try them again, or delete them."""

from __future__ import annotations

import dataclasses
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json, Yes, actor, confirmed
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from connector.config import Config
    from connector.retry import Retried
    from connector.store.quarantine import Selection

app: Final = typer.Typer(no_args_is_help=True)
Ids = Annotated[list[int] | None, typer.Argument(help="Entries by id; without them what the options select.")]
Stream = Annotated[str | None, typer.Option(help="Only of this stream.")]
Source = Annotated[str | None, typer.Option(help="Only of this source.")]
Reason = Annotated[str | None, typer.Option(help="Only with this reason, as the list has it.")]
Field = Annotated[str | None, typer.Option(help="Only about this field.")]
Since = Annotated[str | None, typer.Option(help="Only last seen since: 2h, 3d, or a date or time in UTC.")]
Kept = Annotated[bool, typer.Option("--kept", help="Those whose row went on without one field, instead of the rest.")]
All = Annotated[bool, typer.Option("--all", help="Both kinds.")]
_ROWS: Final = 100
_IDS_TOLD: Final = 20


@app.callback()
def _group() -> None:
    """Rows that were refused: list, show, retry, drop."""


@app.command("list")
def list_(
    ids: Ids = None,
    config: ConfigFile = DEFAULT_CONFIG,
    stream: Stream = None,
    source: Source = None,
    reason: Reason = None,
    field: Field = None,
    since: Since = None,
    kept: Kept = False,
    everything: All = False,
    rows: Annotated[bool, typer.Option("--rows", help=f"The newest {_ROWS} entries instead of groups.")] = False,
    as_json: Json = False,
) -> None:
    """Count entries by stream, reason and field, or list them; what the rows hold is left to `show`."""
    from connector import app as application
    from connector.store import quarantine

    settings = application.load_config(config)
    chosen = _selection(settings, ids, stream, source, reason, field, since, kept, everything)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        if rows or ids:
            found = quarantine.listed(connection, settings.tenant, chosen, _ROWS)
        else:
            found = quarantine.groups(connection, settings.tenant, chosen)
    if as_json:
        print(json.dumps(found, default=str))
    elif found:
        Console().print(_table(found, several=len(settings.sources) > 1))
    else:
        print("nothing is quarantined that was asked for")


@app.command()
def show(
    entry_id: Annotated[int, typer.Argument(metavar="ID")],
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
    personal: Annotated[
        bool, typer.Option("--personal", help="Contacts in full, where they are not encrypted.")
    ] = False,
) -> None:
    """Print one entry with the whole row, as the source wrote it, contacts masked."""
    from connector import app as application, contacts, tenancy
    from connector.store import quarantine

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant, personal=True) as connection:
        entry = quarantine.shown(connection, settings.tenant, entry_id)
    if entry is None:
        raise Misconfigured(
            f"no entry {entry_id} is quarantined", hint="`connector quarantine list --rows` has the ids"
        )
    if not personal:
        names = tenancy.contact_columns(settings)
        entry["raw"] = json.loads(contacts.hidden(json.dumps(entry["raw"]), names))
    if as_json:
        print(json.dumps(entry, default=str))
        return
    raw = entry.pop("raw")
    for name, value in entry.items():
        print(f"{name:<15} {'' if value is None else value}")
    print(json.dumps(raw, indent=2, ensure_ascii=False))


@app.command()
def retry(
    ids: Ids = None,
    config: ConfigFile = DEFAULT_CONFIG,
    stream: Stream = None,
    source: Source = None,
    reason: Reason = None,
    field: Field = None,
    since: Since = None,
    kept: Kept = False,
    everything: All = False,
) -> None:
    """Read the rows again by key, store those that are right now, and take them out of the quarantine."""
    from connector import app as application, backfill, logs, retry as work
    from connector.store import quarantine

    logs.configure(level="warning")
    settings = application.load_config(config)
    chosen = _selection(settings, ids, stream, source, reason, field, since, kept, everything)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        found = quarantine.groups(connection, settings.tenant, chosen)
    configured = {(item.name, name) for item in settings.sources for name in item.streams}
    left = 0
    for where, name in dict.fromkeys((row["source"], row["stream"]) for row in found):
        if (where, name) not in configured:
            print(f"{where}.{name}: is not configured any more, so nothing of it is tried", file=sys.stderr)
            left += 1
            continue
        with application.desk(settings, source=where, stream=name, purpose="retry") as desk:
            opened = backfill.open_stream(desk, name)
            only = dataclasses.replace(chosen, source=where, stream=name)
            done = work.run(desk, opened, only, report=lambda _: None)
        label = name if len(settings.sources) == 1 else f"{where}.{name}"
        _tell(label, done)
        left += done.left
    if not found:
        print("nothing is quarantined that was asked for")
    sys.exit(1 if left else 0)


@app.command()
def drop(
    ids: Ids = None,
    config: ConfigFile = DEFAULT_CONFIG,
    stream: Stream = None,
    source: Source = None,
    reason: Reason = None,
    field: Field = None,
    since: Since = None,
    kept: Kept = False,
    everything: All = False,
    yes: Yes = False,
) -> None:
    """Delete entries for good, after a question; the rows stay at the source, and are not read for it."""
    from connector import app as application
    from connector.store import audit_log, quarantine

    if not (ids or stream or source or reason or field or since or kept or everything):
        raise Misconfigured("say what to drop", hint="ids, or --stream, --reason, --field, --since, --kept, --all")
    settings = application.load_config(config)
    chosen = _selection(settings, ids, stream, source, reason, field, since, kept, everything)
    with application.reading(settings) as store, store.connect() as connection:
        until = quarantine.newest_id(connection, settings.tenant)
        count = sum(row["entries"] for row in quarantine.groups(connection, settings.tenant, chosen))
        if count and confirmed(f"Delete {count:,} quarantined row(s) for good?", yes=yes):
            with audit_log.recorded(connection, settings.tenant, "quarantine.drop", "rows", actor=actor()) as details:
                count = quarantine.drop(connection, settings.tenant, chosen, until=until)
                details |= {"rows": count, "stream": stream, "reason": reason, "ids": ids or []}
            print(f"{count:,} deleted")
        else:
            print("nothing was deleted")


def _selection(
    settings: Config,
    ids: list[int] | None,
    stream: str | None,
    source: str | None,
    reason: str | None,
    field: str | None,
    since: str | None,
    kept: bool,
    everything: bool,
) -> Selection:
    from connector.store.quarantine import Selection

    sources = [item.name for item in settings.sources]
    streams = [name for item in settings.sources for name in item.streams]
    if stream is not None and "." in stream:
        prefix, _, stream = stream.rpartition(".")
        source = source or prefix
    if source is not None and source not in sources:
        raise Misconfigured(f"no source is named {source!r}", hint=f"configured are: {', '.join(sources)}")
    if stream is not None and stream not in streams:
        raise Misconfigured(
            f"no stream is named {stream!r}", hint=f"configured are: {', '.join(dict.fromkeys(streams))}"
        )
    either = everything or (bool(ids) and not kept)
    return Selection(source, stream, reason, field, _instant(since), None if either else kept, tuple(ids or ()))


def _instant(text: str | None) -> datetime | None:
    from connector import clock
    from connector.units import duration

    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        return clock.now() - timedelta(seconds=duration(text))
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _table(found: list[dict[str, Any]], *, several: bool) -> Table:
    names = [name for name in found[0] if several or name != "source"]
    table = Table(*names, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in found:
        cells = [row[name] for name in names]
        table.add_row(*(f"{cell:%Y-%m-%d %H:%M:%S}" if isinstance(cell, datetime) else str(cell) for cell in cells))
    return table


def _tell(label: str, done: Retried) -> None:
    print(f"{label}: {done.made:,} of {done.asked:,} made it")
    for (reason, field), count in done.failing.most_common():
        print(f"{label}: {count:,} still refused: {reason}: {field}")
    if done.gone:
        print(f"{label}: {len(done.gone):,} not at the source any more, or without a cursor: {_some(done.gone)}")
    if done.unreadable:
        print(f"{label}: {len(done.unreadable):,} whose key stands not in the entry: {_some(done.unreadable)}")


def _some(ids: list[int]) -> str:
    return ", ".join(str(entry) for entry in ids[:_IDS_TOLD]) + (", ..." if len(ids) > _IDS_TOLD else "")
