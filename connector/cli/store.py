"""`connector store migrate`: bring the store's schema up to date."""

from __future__ import annotations

from typing import Final

import typer

from connector.cli.options import DEFAULT_CONFIG, ConfigFile

app: Final = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The CRM store."""


@app.command()
def migrate(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Bring the store's schema to this version; does nothing when it is."""
    from connector import app as application
    from connector.store import database

    settings = application.load_config(config)
    store = database.open_store(settings.store.url.get_secret_value())
    try:
        print(f"the store's schema is at revision {database.migrate(store)}")
    finally:
        store.close()
