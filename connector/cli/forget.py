"""`connector forget`: erase a person from the store and from every destination, for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Yes, actor, confirmed
from connector.errors import Misconfigured


def forget(
    account: Annotated[str, typer.Argument(help="Whom: BRAND:ID, as ext_brand_id and user_ext_id have it.")],
    config: ConfigFile = DEFAULT_CONFIG,
    yes: Yes = False,
) -> None:
    """Erase what names a person; amounts stay. Nothing brings it back: no new read, replay, repair or backfill."""
    from connector import app as application, clock
    from connector.store import compaction, erasures

    brand, _, external_id = account.partition(":")
    if not brand or not external_id:
        raise Misconfigured(f"{account!r} names no account", hint="write BRAND:ID, like kaasino:1001")
    settings = application.load_config(config)
    if not confirmed(f"Erase {account} for good, here and at every destination?", yes=yes):
        print("nothing was erased")
        sys.exit(1)
    with application.reading(settings) as store, store.connect() as connection:
        request = erasures.Request(brand, external_id, actor(), clock.now())
        with connection.transaction():
            done = erasures.erase(connection, settings.tenant, request, clock.now())
        print(f"{account}: {'erased' if done.fresh else 'was erased before; what came since is gone too'}")
        names = ", ".join(destination.name for destination in settings.destinations)
        if names:
            print(f"{names}: told by the running daemon, before everything else")
        if compaction.compact(connection, ledger=done.in_ledger, tell=print):
            print("the store's files were written anew: no remnant is left in them")
