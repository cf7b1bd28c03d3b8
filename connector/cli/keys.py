"""`connector keys ...`: under which keys contacts are stored, and how all come under the newest one."""

from __future__ import annotations

import json
import sys
from typing import Final

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json, actor
from connector.errors import Misconfigured

app: Final = typer.Typer(no_args_is_help=True)
#: Rows between two lines of progress.
_TOLD_ROWS: Final = 50_000


@app.callback()
def _group() -> None:
    """Keys of contacts: rotate, show."""


@app.command()
def show(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Count players' contacts by the key they are under; no key is printed."""
    from connector import app as application, tenancy
    from connector.store import player_contacts

    settings = application.load_config(config)
    keys = tenancy.keys_of(settings)
    with application.reading(settings) as store, store.connect() as connection:
        under = player_contacts.counts(connection, settings.tenant)
    known = sorted({*under, *(keys.secrets if keys else ())})
    newest = keys.newest if keys else 0
    if as_json:
        rows = {str(number): under.get(number, 0) for number in known}
        print(json.dumps({"newest": newest, "players": rows}))
        return
    for number in known or [0]:
        name = f"key {number}" if number else "plain"
        missing = number and not (keys and number in keys.secrets)
        note = "  not in personal_data.keys" if missing else "  new ones are written so" if number == newest else ""
        print(f"{name:<14}{under.get(number, 0):>12,} player(s){note}")


@app.command()
def rotate(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Bring contacts under the newest key, in pieces, beside the running daemon; killed, it goes on where it was."""
    from connector import app as application, tenancy
    from connector.store import audit_log, player_contacts

    settings = application.load_config(config)
    keys = tenancy.keys_of(settings)
    if keys is None:
        raise Misconfigured("personal_data.keys is not set", hint="see docs/personal-data.md")
    rotated, told, unreadable = 0, 0, set[int]()
    with application.reading(settings) as store, store.connect() as connection:
        player_contacts.require(connection, settings.tenant, keys)
        for piece in player_contacts.rotation(connection, settings.tenant, keys):
            rotated += piece.rotated
            unreadable.update(piece.unreadable)
            if rotated - told >= _TOLD_ROWS:
                told = rotated
                print(f"{rotated:,} rotated", flush=True)
        under = player_contacts.counts(connection, settings.tenant)
        left = sum(rows for number, rows in under.items() if number < keys.newest)
        told_of = {"rotated": rotated, "left": left, "unreadable": len(unreadable)}
        audit_log.append(connection, settings.tenant, "keys.rotate", f"key {keys.newest}", told_of, actor=actor())
    print(f"{rotated:,} rotated to key {keys.newest}, {left:,} left")
    if unreadable:
        some = ", ".join(str(player) for player in sorted(unreadable)[:20])
        print(f"{len(unreadable):,} can't be decrypted, of players {some}: read them again from the source")
    elif left:
        print("they were being written just now: run it again")
    else:
        older = sorted(number for number in keys.secrets if number < keys.newest)
        if older:
            print(
                f"no contact is under key {', '.join(map(str, older))} any more: take it out of the file, and restart"
            )
    sys.exit(1 if left else 0)
