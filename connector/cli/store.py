"""`connector store ...`: bring the store's schema up to date, write its files anew."""

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


@app.command()
def compact(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Write the files of all tables with personal data anew: nothing erased is left in them. Locks each meanwhile."""
    from connector import app as application
    from connector.store import compaction

    settings = application.load_config(config)
    with application.reading(settings) as store, store.connect() as connection:
        if not compaction.compact(connection, ledger=True, tell=print):
            raise typer.Exit(1)
    print("the store's files were written anew")
