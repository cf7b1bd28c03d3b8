"""`connector replay`: send players, or events, to a destination again, beside the running daemon."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Yes, actor, confirmed, instant
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from connector.config import Config, Destination


def replay(
    destination: Annotated[str, typer.Option("--destination", help="The destination's name.")],
    config: ConfigFile = DEFAULT_CONFIG,
    players: Annotated[list[str] | None, typer.Option("--players", help="user_ext_id; several times.")] = None,
    brand: Annotated[str | None, typer.Option("--brand", help="Players of this ext_brand_id only.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Events of this name, instead of players.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Events since this time, included: 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Events before this time.")] = None,
    new_ids: Annotated[bool, typer.Option("--new-ids", help="As new events: the API keeps no id twice.")] = False,
    yes: Yes = False,
) -> None:
    """Send players again whole, or events under the ids that they had; a running daemon does the sending."""
    from connector import app as application
    from connector.store import audit_log, replay as work

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
        event,
        since=instant(since, "--from"),
        until=instant(until, "--to"),
    )
    with application.reading(settings) as store, store.connect() as connection:
        if event is None:
            sent = work.profiles(connection, wanted)
            whom = {"players": sent, "brand": brand, "named": len(players or [])}
            audit_log.append(connection, settings.tenant, "replay", destination, whom, actor=actor())
            print(f"{sent} player(s) are sent again to {destination}")
            return
        found, young = work.count(connection, wanted)
        told = f"{found} event(s) {event}"
        if young:
            told += f", {young} of them younger than 72 hours: campaigns may answer those"
        if confirmed(f"{told}. Send them again?", yes=yes):
            salt = secrets.token_hex(8) if new_ids else ""
            with audit_log.recorded(connection, settings.tenant, "replay", destination, actor=actor()) as details:
                sent = work.events(connection, wanted, salt=salt)
                details |= {"events": sent, "name": event, "from": since, "to": until, "new_ids": new_ids}
            print(f"{sent} event(s) are sent again to {destination}")


def _destination(settings: Config, name: str) -> Destination:
    found = next((item for item in settings.destinations if item.name == name), None)
    if found is None:
        known = ", ".join(item.name for item in settings.destinations) or "none"
        raise Misconfigured(f"no destination is named {name!r}", hint=f"configured are: {known}")
    return found
