"""`connector players ...`: accounts that share a contact, totals that differ, and one player as it stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from connector.cli.options import DEFAULT_CONFIG, ConfigFile, Json, actor, instant
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

app: Final = typer.Typer(no_args_is_help=True)
#: Columns, and traits, that say who somebody is; ids name the account.
_PERSONAL: Final = (
    *("email", "phone", "lead_email", "lead_phone", "first_name", "last_name", "username", "date_of_birth"),
    *("telegram_id", "subscription_token"),
)
_NOT_PERSONAL: Final = ("brand_id", "external_id")
_SHOWN: Final = {
    "player": "player_id",
    "account": "external_id",
    "status": "status",
    "like player": "other_id",
    "account of that": "other_external_id",
    "by": "matched_by",
    "since": "found_at",
}


@app.callback()
def _group() -> None:
    """Players: conflicts, resolve, totals, show, sent."""


@app.command()
def conflicts(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List accounts that share a contact with an earlier one, without the contact itself."""
    from connector import app as application
    from connector.store import identities

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        found = identities.conflicts(connection, settings.tenant)
    if as_json:
        print(json.dumps(found, default=str))
    elif found:
        Console().print(_table(found))
        print("answer with: connector players resolve PLAYER OTHER --distinct | --same")
    else:
        print("no two accounts share a contact that was not answered for")


@app.command()
def resolve(
    player: Annotated[int, typer.Argument(help="One player's id, as `conflicts` lists it.")],
    other: Annotated[int, typer.Argument(help="The other one's.")],
    config: ConfigFile = DEFAULT_CONFIG,
    distinct: Annotated[bool, typer.Option("--distinct", help="They are two people.")] = False,
    same: Annotated[bool, typer.Option("--same", help="One person has both accounts.")] = False,
) -> None:
    """Answer for two accounts: both stay as they are, and the pair is never asked about again."""
    from connector import app as application
    from connector.store import audit_log, identities

    if distinct == same:
        raise Misconfigured("say what they are", hint="--distinct: two people; --same: one person with both accounts")
    settings = application.load_config(config)
    with (
        application.reading(settings) as store,
        store.connect() as connection,
        audit_log.recorded(connection, settings.tenant, "players.resolve", "conflict", actor=actor()) as details,
    ):
        details |= {"players": [player, other], "answer": "distinct" if distinct else "same"}
        freed = identities.answer(connection, settings.tenant, player, other, details["answer"])
    print("answered" + ("; its status is active again" if freed else "; its status stays as it is"))


@app.command()
def totals(config: ConfigFile = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List players of whom the operator tells other totals than were counted; the operator's own stand everywhere."""
    from connector import app as application
    from connector.store import reported

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        found = reported.differences(connection, settings.tenant)
    if as_json:
        print(json.dumps(found, default=str))
        return
    for row in found:
        told = ", ".join(f"{name} {said['theirs']} ({said['by']:+})" for name, said in row["totals"].items())
        print(f"{row['brand_id']}:{row['external_id']} as of {row['as_of']:%Y-%m-%d %H:%M}: {told}")
    if not found:
        print("no player's totals differ from what the operator tells")


@app.command()
def show(
    brand: Annotated[str, typer.Argument(help="The brand, as the source writes it.")],
    external_id: Annotated[str, typer.Argument(help="The player's id there.")],
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
    personal: Annotated[bool, typer.Option("--personal", help="Contacts and names in full.")] = False,
) -> None:
    """Print all that is known of one player; what is personal is masked unless asked for."""
    from connector import app as application, contacts, tenancy
    from connector.store import identities

    settings = application.load_config(config)
    with application.reading(settings) as store, store.connect() as connection:
        found = identities.player(connection, settings.tenant, brand, external_id)
    if found is None:
        raise Misconfigured(f"brand {brand} has no player {external_id}", hint="ids are compared as they are written")
    found = contacts.opened(found, settings.tenant, tenancy.keys_of(settings))
    if not personal:
        found = json.loads(contacts.hidden(json.dumps(found, default=str), _PERSONAL, keep=_NOT_PERSONAL))
    if as_json:
        print(json.dumps(found, default=str))
        return
    for name, value in found.items():
        if value not in (None, [], {}):
            print(f"{name:<24} {_written(value)}")


@app.command()
def sent(
    brand: Annotated[str, typer.Argument(help="The brand, as the source writes it.")],
    external_id: Annotated[str, typer.Argument(help="The player's id there.")],
    config: ConfigFile = DEFAULT_CONFIG,
    since: Annotated[str | None, typer.Option("--from", help="What was sent since this time: 2026-01-31.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="The newest so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List what destinations were sent of one player, and which consents held at that moment, on what basis."""
    from connector import app as application
    from connector.store import consents, identities

    settings = application.load_config(config)
    with application.reading(settings) as store, store.reader(settings.tenant) as connection:
        player = identities.player_id(connection, settings.tenant, brand, external_id)
        found = consents.sent(connection, settings.tenant, player, since=instant(since, "--from"), limit=limit)
        known = consents.versions(connection, player)
    if as_json:
        print(json.dumps({"sent": found, "consents": known}, default=str))
        return
    for version in known:
        print(f"consent {version['kind']} version {version['version']}: {_consent(version)}")
    table = Table("sent", "to", "what", "happened", "consents then", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in found:
        held = ", ".join(f"{kind} v{said['version']} {_given(said)}" for kind, said in row["consents"].items())
        happened = "" if row["occurred_at"] is None else f"{row['occurred_at']:%Y-%m-%d %H:%M:%S}"
        table.add_row(f"{row['sent_at']:%Y-%m-%d %H:%M:%S}", row["destination"], row["name"], happened, held or "none")
    Console().print(table)


def _consent(version: Mapping[str, Any]) -> str:
    since = "" if version["changed_at"] is None else f" since {version['changed_at']:%Y-%m-%d %H:%M:%S}"
    return f"{_given(version)}{since}, by {version['basis']}"


def _given(said: Mapping[str, Any]) -> str:
    return "given" if said["granted"] else "withheld"


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(*_SHOWN, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in found:
        told = {**row, "external_id": f"{row['brand_id']}:{row['external_id']}"}
        told["other_external_id"] = f"{row['other_brand_id']}:{row['other_external_id']}"
        told["found_at"] = f"{row['found_at']:%Y-%m-%d %H:%M}"
        table.add_row(*(str(told[name]) for name in _SHOWN.values()))
    return table
