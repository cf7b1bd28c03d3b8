"""`connector segments ...`: saved player filters. A segment is given by its name or its number."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json, Yes, actor, confirmed
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from connector.segment_desk import SegmentDesk

app: Final = typer.Typer(no_args_is_help=True)
Named = Annotated[str, typer.Argument(metavar="SEGMENT", help="The segment's name, or its number.")]
File = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="A JSON file with the definition; -: standard input.", allow_dash=True),
]
TemplateName = Annotated[str | None, typer.Option("--template", "-t", help="One of `connector segments templates`.")]
Description = Annotated[str | None, typer.Option("--description", help="What it is for.")]
Refreshed = Annotated[str | None, typer.Option("--refresh-strategy", help="realtime, scheduled or on_demand.")]
Schedule = Annotated[str | None, typer.Option("--schedule", help='When `scheduled`: cron, as "0 4 * * *".')]


@app.callback()
def _group() -> None:
    """Segments: saved player filters, their members and templates."""


@app.command("list")
def list_(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List segments with their members and when they were refreshed."""
    with _desk(config) as desk:
        found = desk.every()
    if as_json:
        _print_json(found)
    elif found:
        Console().print(_table(found))
    else:
        print("there is no segment yet: connector segments create NAME --template ...")


@app.command()
def show(segment: Named, config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Print one segment, its definition included."""
    with _desk(config) as desk:
        found = desk.show(desk.number_of(segment))
    if as_json:
        _print_json(found)
        return
    for name, value in found.items():
        if value not in (None, "") and name != "definition":
            print(f"{name:<20} {value}")
    print(json.dumps(found["definition"], indent=2, ensure_ascii=False))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it shall be called.")],
    config: ConfigFile = DEFAULT_CONFIG,
    file: File = None,
    template: TemplateName = None,
    description: Description = None,
    strategy: Refreshed = None,
    schedule: Schedule = None,
    as_json: Json = False,
) -> None:
    """Make a segment of a template or a definition; `connector run` gives it its members, or `refresh` at once."""
    with _desk(config) as desk:
        said = _said(name=name, description=description, refresh_strategy=strategy, schedule=schedule)
        if template is not None and description is None:
            said["description"] = _template(desk, template).description
        made = desk.create({**said, "definition": _definition(desk, file, template)})
    _print_json(made) if as_json else print(
        f"segment {made['id']} {made['name']!r} is there, {made['refresh_strategy']}"
    )


@app.command()
def edit(
    segment: Named,
    config: ConfigFile = DEFAULT_CONFIG,
    name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    file: File = None,
    template: TemplateName = None,
    description: Description = None,
    strategy: Refreshed = None,
    schedule: Schedule = None,
    as_json: Json = False,
) -> None:
    """Change what is said and leave the rest; another definition is another revision, to be refreshed."""
    with _desk(config) as desk:
        said = _said(name=name, description=description, refresh_strategy=strategy, schedule=schedule)
        if file is not None or template is not None:
            said["definition"] = _definition(desk, file, template)
        if not said:
            raise Misconfigured("nothing is to be changed", hint="--file, --name, --refresh-strategy, ...: see --help")
        made = desk.edit(desk.number_of(segment), said)
    _print_json(made) if as_json else print(f"segment {made['id']} {made['name']!r}: revision {made['revision']}")


@app.command()
def preview(
    segment: Annotated[str | None, typer.Argument(metavar="[SEGMENT]", help="A segment that is there.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    file: File = None,
    template: TemplateName = None,
    as_json: Json = False,
) -> None:
    """Say how many players a definition finds, and show ten of them."""
    with _desk(config) as desk:
        if segment is not None:
            definition: object = desk.show(desk.number_of(segment))["definition"]
        else:
            definition = _definition(desk, file, template)
        found = desk.preview(definition)
    if as_json:
        _print_json(found)
        return
    print(f"{found['estimate']:,} players" if found["exact"] else f"about {found['estimate']:,} players, by estimate")
    for row in found["sample"]:
        told = f"{row['deposit_count']} deposits, last seen {row['last_seen_at'] or 'never'}"
        print(f"  {row['brand_id']}:{row['external_id']}  {row['status']}, {told}")


@app.command()
def refresh(segment: Named, config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Bring the members up to date now."""
    with _desk(config) as desk:
        done = desk.refresh(desk.number_of(segment))
    if as_json:
        _print_json(done)
    else:
        print(f"{done['members']:,} members: {done['entered']:,} entered, {done['left']:,} left")


@app.command()
def export(
    segment: Named,
    config: ConfigFile = DEFAULT_CONFIG,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="csv or jsonl.")] = "csv",
    personal: Annotated[bool, typer.Option("--personal", help="With e-mail and phone.")] = False,
) -> None:
    """Print every member's brand and id, as of the last refresh."""
    with _desk(config) as desk:
        rows = desk.export(desk.number_of(segment), personal=personal)
        if form == "jsonl":
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
            return
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(["brand", "external_id", *(["email", "phone"] if personal else [])])
        out.writerows(row.values() for row in rows)


@app.command()
def delete(segment: Named, config: ConfigFile = DEFAULT_CONFIG, yes: Yes = False) -> None:
    """Take a segment away, and its members out of it."""
    with _desk(config) as desk:
        number = desk.number_of(segment)
        found = desk.show(number)
        if confirmed(f"take away segment {found['name']!r} and its {found['members'] or 0:,} members?", yes=yes):
            done = desk.delete(number)
            print(f"taken away; {done['members']:,} players were in it")


@app.command()
def templates(
    template: Annotated[str | None, typer.Argument(help="Print the definition of this one.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """List definitions to begin with, amounts in the base currency; one of them as JSON, to be changed."""
    from connector import app as application, tenancy
    from connector.segments.templates import templates as known

    found = known(tenancy.rates_of(application.load_config(config)).places)
    if template is not None:
        print(json.dumps(_of(found, template).definition, indent=2))
    elif as_json:
        _print_json({key: vars(item) for key, item in found.items()})
    else:
        for key, item in found.items():
            print(f"{key:<24} {item.name}: {item.description}")


@contextmanager
def _desk(config: Path) -> Iterator[SegmentDesk]:
    from connector import app as application

    settings = application.load_config(config)
    with application.reading(settings) as store:
        yield application.segment_desk(store, settings, actor=actor())


def _said(**given: str | None) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _template(desk: SegmentDesk, name: str) -> Any:
    return _of(desk.templates(), name)


def _of(found: Mapping[str, Any], name: str) -> Any:
    from connector.segments.definition import nearest

    if name not in found:
        raise Misconfigured(f"there is no template {name!r}{nearest(name, found)}")
    return found[name]


def _definition(desk: SegmentDesk, file: Path | None, template: str | None) -> object:
    """Return the definition that was named, by file or template."""
    if (file is None) == (template is None):
        raise Misconfigured(
            "say where the definition is", hint="--file FILE, --file - for standard input, or --template"
        )
    if file is None:
        return _template(desk, str(template)).definition
    try:
        return json.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Misconfigured(f"{file} is not JSON: {str(error)[:100]}") from None


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("id", "name", "refresh", "members", "refreshed", "error", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in found:
        members = "" if row["members"] is None else f"{row['members']:,}"
        stale = "" if row["refreshed_revision"] in (None, row["revision"]) else " (edited since)"
        at = f"{row['refreshed_at']:%Y-%m-%d %H:%M}{stale}" if row["refreshed_at"] else "not yet"
        table.add_row(str(row["id"]), row["name"], row["refresh_strategy"], members, at, row["error"] or "")
    return table


def _print_json(value: object) -> None:
    print(json.dumps(value, default=lambda item: item.isoformat() if hasattr(item, "isoformat") else str(item)))
