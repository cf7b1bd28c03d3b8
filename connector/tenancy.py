"""A tenant, from its configuration: its rates, rules and keys, and its place in the store.

`prepare` is done once a start, before the first connection is handed out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from connector import clock, config, contacts, rates_file
from connector.errors import Misconfigured
from connector.money import Rates
from connector.player import MarketingRules
from connector.segments import compiler
from connector.store import audit_log, database, edges, lease as leases, player_contacts, players, rates as timeline

if TYPE_CHECKING:
    import psycopg

#: Columns of user_profile's contract that hold contacts.
_CONTACT_COLUMNS: Final = ("user_email", "user_phone")

log = structlog.get_logger()


def rates_of(settings: config.Config) -> Rates:
    """Return what the configuration says of currencies; rates with a time are in the store."""
    return Rates(settings.base_currency, settings.fx.fixed, frozenset(settings.fx.play), settings.currencies)


def keys_of(settings: config.Config) -> contacts.Keys | None:
    """Return what contacts are encrypted with, None where they are kept as they come."""
    if settings.personal_data.keys is None:
        return None
    keys = contacts.parse(settings.personal_data.keys.get_secret_value())
    return replace(keys, columns=contact_columns(settings))


def contact_columns(settings: config.Config) -> frozenset[str]:
    """Return what the views call the columns of e-mail and phone."""
    users = [source.streams["user_profile"] for source in settings.sources if "user_profile" in source.streams]
    named = {stream.columns[name] for stream in users for name in _CONTACT_COLUMNS if name in stream.columns}
    return frozenset({*_CONTACT_COLUMNS, *named})


def contacts_of(settings: config.Config) -> compiler.Contacts:
    """Return how segments find contacts: by their plain text, or by a keyed digest alone."""
    keys = keys_of(settings)
    if keys is None:
        return compiler.PLAIN
    plain = compiler.PLAIN.match
    return compiler.Contacts(lambda kind, text: keys.digest(settings.tenant, kind, plain(kind, text)), plain=False)


def rules(settings: config.Config) -> MarketingRules:
    """Return who may be marketed to, from the configuration."""
    return MarketingRules(
        frozenset(status.upper() for status in settings.marketable_statuses),
        frozenset(settings.exclude.tags),
        frozenset(settings.exclude.groups),
    )


def prepare(store: database.Database, *, settings: config.Config) -> None:
    """Bring schema, tenant and players' marketing into line with this version and configuration; idempotent."""
    database.migrate(store)
    _claim_tenant(store, settings)
    with store.connect() as connection:
        leases.end_expired(connection)  # what a frozen process holds would keep this one from starting
        player_contacts.require(connection, settings.tenant, keys_of(settings))
        connection.execute("set lock_timeout = '3s'")  # it may still be working: a start that waits looks again soon
        edges.use(connection, settings.tenant, zone=settings.reporting_timezone, play=settings.fx.play)
        players.apply_rules(connection, settings.tenant, rules(settings), clock.now())
        _note_configuration(connection, settings)
        _load_rates(connection, settings)


def _note_configuration(connection: psycopg.Connection[Any], settings: config.Config) -> None:
    """Write down what the settings are, secrets hidden, whenever they are others than at the last start."""
    now = settings.model_dump(mode="json")
    last = audit_log.newest(connection, settings.tenant, "configuration")
    before = last["details"]["settings"] if last else {}
    if changed := sorted(name for name in {*now, *before} if now.get(name) != before.get(name)):
        details = {"changed": changed, "settings": now}
        audit_log.append(connection, settings.tenant, "configuration", ", ".join(changed), details)
    log.info("audit_log.head", hash=audit_log.listed(connection, settings.tenant, limit=1)[0]["hash"])


def _load_rates(connection: psycopg.Connection[Any], settings: config.Config) -> None:
    """Take over the file of rates; what waits for them is settled by its own loop."""
    if settings.fx.file is None:
        return
    told = rates_file.read(settings.fx.file)
    with connection.transaction():
        written = timeline.insert(connection, settings.tenant, told, rates_of(settings), origin="file")
    log.info("rates.read", file=str(settings.fx.file), rates=told.height, new=written)


def _claim_tenant(store: database.Database, settings: config.Config) -> None:
    """Record the tenant's base currency and its subunit once: totals of two kinds can't be added."""
    places = rates_of(settings).places
    with store.connect() as connection:
        row = connection.execute(
            """
            insert into crm.tenants as t (tenant, base_currency, base_places) values (%s, %s, %s)
            on conflict (tenant) do update set base_places = coalesce(t.base_places, excluded.base_places)
            returning base_currency, base_places
            """,
            (settings.tenant, settings.base_currency, places),
        ).fetchone()
    if row is not None and row[0] != settings.base_currency:
        raise Misconfigured(
            f"base_currency is {settings.base_currency}, but tenant {settings.tenant} was started with {row[0]}",
            hint="totals can't change their currency: put it back, or use another tenant",
        )
    if row is not None and row[1] != places:
        raise Misconfigured(
            f"{settings.base_currency} has {places} decimal places, tenant {settings.tenant} was started with {row[1]}",
            hint=f"totals are in its subunit: put currencies.{settings.base_currency} back, or use another tenant",
        )
