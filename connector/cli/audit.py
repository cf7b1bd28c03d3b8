"""`connector audit`: is every row of the sealed range in the store, and if not, put it there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from connector import logs
from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json
from connector.errors import Halted, Misconfigured

if TYPE_CHECKING:
    from connector import config
    from connector.poller import Desk


def audit(
    config: ConfigFile = DEFAULT_CONFIG,
    stream: Annotated[str | None, typer.Option("--stream", help="Only this one; else every stream.")] = None,
    source: Annotated[str | None, typer.Option(help="Only this source; else every source.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First cursor value, included: a time or an id.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last cursor value, included.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Read what is missing, and commit it.")] = False,
    as_json: Json = False,
) -> None:
    """Compare the source with the store, as far as it is sealed; exit code 0 when nothing is missing any more."""
    from connector import app as application

    if stream is None and (since or until):
        raise Misconfigured("cursor values belong to one stream", hint="name it with --stream")
    logs.configure(level="warning")
    settings = application.load_config(config)
    results: dict[str, dict[str, Any]] = {}
    for name in _sources(settings, source, stream):
        with application.desk(settings, source=name, stream=stream or "all streams", purpose="audit") as desk:
            for one in [stream] if stream else list(desk.source.streams):
                result = _audited(desk, one, since=since, until=until, repair=repair, alone=stream is not None)
                results[one if one not in results else f"{name}.{one}"] = result
    ok = all(result["error"] is None and result["repaired"] >= result["missing"] for result in results.values())
    if as_json:
        print(json.dumps({"ok": ok, "streams": results}))
    else:
        for one, result in results.items():
            print(f"{one}: {_sentence(result, repair=repair)}")
    if not ok:
        raise typer.Exit(1)


def _sources(settings: config.Config, source: str | None, stream: str | None) -> list[str]:
    """Return the sources to ask: the named one, or all that have the stream."""
    found = [item.name for item in settings.sources if source in {None, item.name}]
    if not found:
        raise Misconfigured(f"there is no source {source!r}", hint=f"one of: {', '.join(_names(settings))}")
    having = [item.name for item in settings.sources if item.name in found and stream in {None, *item.streams}]
    if not having:
        known = ", ".join(dict.fromkeys(name for item in settings.sources for name in item.streams))
        raise Misconfigured(f"no source has a stream {stream!r}", hint=f"configured are: {known}")
    return having


def _names(settings: config.Config) -> list[str]:
    return [item.name for item in settings.sources]


def _audited(
    desk: Desk, name: str, *, since: str | None, until: str | None, repair: bool, alone: bool
) -> dict[str, Any]:
    """Audit one stream; what stops it (another server, a lost view) is its result, unless it is asked for `alone`."""
    from connector import audit as work
    from connector.store.audits import Outcome

    if (reason := work.skipped(name)) is not None:
        return _result(Outcome(), None, None) | {"skipped": reason}
    try:
        stream = work.open_stream(desk, name)
        if stream is None:
            return _result(Outcome(), None, None, error="nothing of it is sealed yet: the daemon has to run first")
        ranges = work.bounded(stream, work.promised(desk, stream), since, until)
        outcome = work.Audit(desk, stream, "command", ranges, repair).run()
    except (Halted, Misconfigured) as error:
        if alone:
            raise
        return _result(Outcome(), None, None, error=str(error))
    low, high = (None, None) if not ranges else (ranges[0].low, ranges[-1].high - 1)
    bounds = [None if mark is None else work.text_of(stream, mark) for mark in (low, high)]
    return _result(outcome, *bounds)


def _result(outcome: Any, low: str | None, high: str | None, *, error: str | None = None) -> dict[str, Any]:
    return {"from": low, "to": high, **asdict(outcome), "error": error}


def _sentence(result: dict[str, Any], *, repair: bool) -> str:
    if result["error"]:
        return str(result["error"])
    if "skipped" in result:
        return str(result["skipped"])
    if result["from"] is None and not result["rows"]:
        return "no rows were promised in this range"
    parts = [f"{result['rows']:,} rows from {result['from']} to {result['to']}"]
    parts.append(f"{result['missing']:,} missing" if result["missing"] else "nothing missing")
    if result["repaired"]:
        parts.append(f"{result['repaired']:,} repaired")
    elif result["missing"] and not repair:
        parts.append("repair with --repair")
    parts += [f"{result[word]:,} {said}" for word, said in _ALSO.items() if result[word]]
    return ", ".join(parts)


_ALSO: Final = {"gone": "gone at the source", "changed": "changed under the same key"}
