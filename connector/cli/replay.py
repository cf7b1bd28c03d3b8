"""`connector replay`: send players, or events, to a destination again, beside the running daemon."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Yes, actor, confirmed, instant
from connector.errors import Misconfigured

if TYPE_CHECKING:
    import psycopg

    from connector.config import Config, Destination
    from connector.store.replay import Wanted


def replay(
    destination: Annotated[str, typer.Option("--destination", help="The destination's name.")],
    config: ConfigFile = DEFAULT_CONFIG,
    players: Annotated[list[str] | None, typer.Option("--players", help="user_ext_id; several times.")] = None,
    brand: Annotated[str | None, typer.Option("--brand", help="Players of this ext_brand_id only.")] = None,
    segment: Annotated[str | None, typer.Option("--segment", help="Members of this segment only.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Events of this name, instead of players.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Events since this time, included: 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Events before this time.")] = None,
    new_ids: Annotated[bool, typer.Option("--new-ids", help="As new events: the API keeps no id twice.")] = False,
    yes: Yes = False,
) -> None:
    """Send players again whole, or events under the ids that they had; a running daemon does the sending."""
    from connector import app as application
    from connector.store import replay as work

    settings = application.load_config(config)
    target = _destination(settings, destination)
    if event is None and (since or until or new_ids):
        raise Misconfigured("--from, --to and --new-ids are about events", hint="name one with --event")
    if event is not None and event not in target.subscribed:
        known = ", ".join(target.subscribed) or "none"
        raise Misconfigured(f"{destination} is not sent {event!r}", hint=f"its events are: {known}")
    wanted = work.Wanted(
        settings.tenant,
        target.name,
        brand,
        players,
        None,
        event,
        since=instant(since, "--from"),
        until=instant(until, "--to"),
    )
    with application.reading(settings) as store, store.connect() as connection:
        if segment is not None:
            wanted = replace(wanted, segment=application.segment_desk(store, settings).number_of(segment))
        if event is None:
            _players(connection, wanted)
        else:
            _events(connection, wanted, new_ids=new_ids, yes=yes)


def _players(connection: psycopg.Connection[Any], wanted: Wanted) -> None:
    from connector.store import audit_log, replay as work

    sent = work.profiles(connection, wanted)
    named = len(wanted.external_ids or ())
    told = {"players": sent, "brand": wanted.brand, "segment": wanted.segment, "named": named}
    audit_log.append(connection, wanted.tenant, "replay", wanted.destination, told, actor=actor())
    print(f"{sent} player(s) are sent again to {wanted.destination}")


def _events(connection: psycopg.Connection[Any], wanted: Wanted, *, new_ids: bool, yes: bool) -> None:
    from connector.store import audit_log, replay as work

    found, young = work.count(connection, wanted)
    told = f"{found} event(s) {wanted.name}"
    if young:
        told += f", {young} of them younger than 72 hours: campaigns may answer those"
    if not confirmed(f"{told}. Send them again?", yes=yes):
        return
    salt = secrets.token_hex(8) if new_ids else ""
    with audit_log.recorded(connection, wanted.tenant, "replay", wanted.destination, actor=actor()) as details:
        sent = work.events(connection, wanted, salt=salt)
        details |= {"events": sent, "name": wanted.name, "segment": wanted.segment, "new_ids": new_ids}
        details |= {"from": wanted.since, "to": wanted.until}
    print(f"{sent} event(s) are sent again to {wanted.destination}")


def _destination(settings: Config, name: str) -> Destination:
    found = next((item for item in settings.destinations if item.name == name), None)
    if found is None:
        known = ", ".join(item.name for item in settings.destinations) or "none"
        raise Misconfigured(f"no destination is named {name!r}", hint=f"configured are: {known}")
    return found
