"""What `connector check` looks at: servers, views, columns, keys, indexes, clocks, destinations; each with its remedy.

Reads only. A finding is for a person: what is wrong, and what to do about it.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from connector import clock, contacts, rates_file
from connector.destinations import DESTINATIONS
from connector.errors import ConnectorError
from connector.normalised import Normalised
from connector.position import SECOND, Window, cursor_text
from connector.sources.dialect import Settings
from connector.sources.reader import Page, Reader, View, position_at
from connector.store import database, player_contacts, rates as timeline, segment_feed
from connector.streams import STREAMS
from connector.streams.contract import Binding, Context, bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from connector import config
    from connector.position import Position
    from connector.sources.dialect import Sample

#: A source whose clock differs by more from ours makes lag figures wrong (nothing else: our clock judges no row).
_SKEW_SECONDS: Final = 5.0
_SAMPLE_ROWS: Final = 1000
#: Rows dated further ahead are mistakes of their own; so many positions are written back, those of most digits first.
_FUTURE: Final = 86_400 * SECOND
_ROUND_TRIPS: Final = 5
#: No zone differs from UTC by less.
_ZONE_STEP: Final = 900 * SECOND

#: Events that the operator's workspace answers with a transactional mail, which the platform may be sending already.
_MAILED: Final = frozenset(
    {
        *("cashout_requested", "cashout_approved", "cashout_canceled", "deposit_canceled", "bonuses_issued"),
        *("freespin_bonus_issued", "login_failed", "user_verified"),
    }
)

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class _Money:
    """Currencies that the check came across: seen in some stream, and those that something has a rate for."""

    base: str
    seen: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)

    def note(self, subject: str, normalised: Normalised) -> None:
        """Look at what a stream's first rows became."""
        events, totals, rates = normalised.events, normalised.reported, normalised.rates
        for column in (events["currency"], normalised.profiles["default_currency_code"], totals["currency"]):
            self.seen.update(dict.fromkeys(sorted(set(column.drop_nulls()) - set(self.seen)), subject))
        self.told.update(rates.filter(pl.col("base").fill_null(self.base) == self.base)["currency"])


def check(settings: config.Config) -> Iterator[Finding]:
    """Yield findings as they are made, worst things included; never raises for what it finds."""
    yield Finding(
        "ok", "configuration", f"{len(settings.sources)} source(s), {len(settings.destinations)} destination(s)"
    )
    money = _Money(settings.base_currency)
    yield from _store(settings, money)
    for source in settings.sources:
        yield from _source(source, money)
    yield from _rates(settings, money)
    for destination in settings.destinations:
        yield from _destination(settings, destination)


def _rates(settings: config.Config, money: _Money) -> Iterator[Finding]:
    """Name the currencies whose events would wait for ever."""
    if settings.fx.file is not None:
        try:
            told = rates_file.read(settings.fx.file)
        except ConnectorError as error:
            yield _failed("fx", error)
        else:
            money.note("fx", Normalised(rates=told))
            yield Finding("ok", "fx", f"{told.height} rate(s) in {settings.fx.file}")
    known = {settings.base_currency, *settings.fx.fixed, *settings.fx.play, *money.told}
    if missing := sorted(set(money.seen) - known):
        places = ", ".join(sorted({money.seen[currency] for currency in missing}))
        remedy = (
            "such amounts enter no total until there is one: add it to fx.fixed or fx.file, or read a view fx_rates"
        )
        yield Finding("warn", "fx", f"no rate for {', '.join(missing)}, seen in {places}", remedy)


def _store(settings: config.Config, money: _Money) -> Iterator[Finding]:
    url = settings.store.url.get_secret_value()
    if url.startswith("embedded:") and "INVOCATION_ID" in os.environ:
        remedy = "set store.url to a PostgreSQL that is backed up and supervised by itself"
        yield Finding("warn", "store", "the embedded PostgreSQL is used under systemd", remedy)
    try:
        store = database.open_store(url)
    except ConnectorError as error:
        yield _failed("store", error)
        return
    try:
        current = database.is_current(store)
        remedy = "" if current else "it is created by `connector run`, or now by `connector store migrate`"
        yield Finding(
            "ok" if current else "warn",
            "store",
            "schema is current" if current else "schema is not current yet",
            remedy,
        )
        if current:
            with store.connect() as connection:
                money.told.update(timeline.known(connection, settings.tenant, settings.base_currency))
                for destination in settings.destinations:
                    found = segment_feed.named(connection, settings.tenant, destination.segments).values()
                    if missing := sorted(set(destination.segments) - set(found)):
                        text = f"no segment is called {', '.join(missing)}"
                        remedy = "create it (`connector segments create`), or correct destinations[].segments"
                        yield Finding("warn", destination.name, text, remedy)
                yield from _contacts(connection, settings)
    except ConnectorError as error:
        yield _failed("store", error)
    finally:
        store.close()


def _contacts(connection: psycopg.Connection[Any], settings: config.Config) -> Iterator[Finding]:
    """Say what contacts are not under the newest key, and whether all can be read."""
    subject, secret = "personal_data", settings.personal_data.keys
    keys = None if secret is None else contacts.parse(secret.get_secret_value())
    player_contacts.require(connection, settings.tenant, keys)
    if keys is None:
        return
    under = player_contacts.counts(connection, settings.tenant)
    for number, rows in under.items():
        if number < keys.newest:
            how = f"under key {number}" if number else "in plain"
            remedy = "`connector keys rotate` brings them under the newest key, beside the running daemon"
            yield Finding("warn", subject, f"contacts of {rows} player(s) are stored {how}", remedy)
    yield Finding("ok", subject, f"contacts of {under.get(keys.newest, 0)} player(s) are under key {keys.newest}")


def _source(source: config.Source, money: _Money) -> Iterator[Finding]:
    reader: Reader | None = None
    try:
        reader = Reader(
            source.url.get_secret_value(),
            source=source.name,
            settings=Settings(statement_timeout=source.statement_timeout),
        )
        sample = reader.sample()
        yield Finding("ok", source.name, f"connected to {sample.server}")
        yield from _clock(source, sample)
        for text, remedy in reader.cautions():
            yield Finding("warn", source.name, text, remedy)
        for name in source.streams:
            yield from _stream(reader, source, name, money)
    except ConnectorError as error:
        yield _failed(source.name, error)
    finally:
        if reader is not None:
            reader.close()


def _clock(source: config.Source, sample: Sample) -> Iterator[Finding]:
    skew = sample.clock / SECOND - clock.now().timestamp()
    if abs(skew) > _SKEW_SECONDS:
        yield Finding(
            "warn", source.name, f"the server's clock differs from this machine's by {skew:+.1f} s", "run NTP on both"
        )
    if sample.progress is None:
        remedy = (
            f"rows may commit up to lateness ({source.lateness:.0f} s) after their stamp; "
            "raise it if transactions or replication take longer"
        )
        yield Finding(
            "warn",
            source.name,
            "the server cannot tell how far it has replayed: progress is taken from its rows",
            remedy,
        )
    elif sample.clock - sample.progress > source.lateness * SECOND:
        yield Finding(
            "warn",
            source.name,
            f"the replica is {(sample.clock - sample.progress) / SECOND:.0f} s behind",
            "look at its replication",
        )


def _stream(reader: Reader, source: config.Source, name: str, money: _Money) -> Iterator[Finding]:
    subject, settings = f"{source.name}.{name}", source.streams[name]
    view_name = settings.view or name
    try:
        types = reader.columns(view_name)
        if not types:
            hint = f"create it from views/ and grant select on it, or set sources[].streams.{name}.view"
            yield Finding("error", subject, f"view {view_name} is not there, or may not be read", hint)
            return
        binding = bind(STREAMS[name], settings, types, view=view_name, scales=source.scales)
        view = View(view_name, binding.cursor, binding.kind, binding.key, binding.selected, types)
        yield Finding(
            "ok",
            subject,
            f"{len(binding.columns)} columns, cursor {view.cursor} ({view.kind}), key {', '.join(view.key)}",
        )
        yield from _rows(reader, subject, binding, view, money)
        if view.kind == "time":
            yield from _ahead(reader, subject, view, tolerance=source.tolerance)
    except ConnectorError as error:
        yield _failed(subject, error)


def _rows(reader: Reader, subject: str, binding: Binding, view: View, money: _Money) -> Iterator[Finding]:
    """Try a real page: order, round trip, index, duplicates and what the normaliser makes of it."""
    page = reader.read(view, Window(None, None), limit=_SAMPLE_ROWS)
    if page.last is None:
        yield Finding("warn", subject, "the view has no rows", "nothing to do if that is expected")
        return
    yield from _keys(reader, subject, view, page)
    if reader.needs_sort(view, page.last):
        columns = ", ".join(dict.fromkeys((view.cursor, *view.key)))
        remedy = f"on the base table: CREATE INDEX ON <table> ({columns}); see views/README.md"
        yield Finding(
            "error", subject, f"no index serves (cursor, key) = ({columns}): every page would sort the view", remedy
        )
    if nulls := reader.count(view):
        yield Finding(
            "warn",
            subject,
            f"{nulls} row(s) have no {view.cursor} and are not read",
            f"a final row needs its {view.cursor}",
        )
    if keyless := reader.count(view, keyless=True):
        remedy = "a row needs its whole key to have a place: fill it in the view, or choose another with key: [...]"
        yield Finding("error", subject, f"{keyless} row(s) have no {' or '.join(view.key)} and are not read", remedy)
    normalised = binding.contract.normalise(page.frame, binding, Context())
    money.note(subject, normalised)
    refused = normalised.rejections.filter(~normalised.rejections["kept"])
    yield Finding("ok", subject, f"{page.frame.height} rows read, {normalised.understood} understood")
    for reason, name, count in refused.group_by("reason", "field").len().sort("len", descending=True).head(5).rows():
        yield Finding(
            "warn",
            subject,
            f"{count} of them refused: {name} {reason}",
            "mend the view, or map the column; such rows go to crm.quarantine",
        )


def _keys(reader: Reader, subject: str, view: View, page: Page) -> Iterator[Finding]:
    """Judge the key, and whether positions find their own rows: those of most digits lose the most on the way."""
    assert page.last is not None
    names = ", ".join(view.key)
    if page.frame.select_seq(view.key).is_duplicated().any():
        remedy = "expose a unique id and set key: [id]"
        yield Finding("error", subject, f"the key ({names}) is not unique", remedy)
    elif any(reader.alike(view, position, until=page.last.cursor) > 1 for position in _folded(page, view)):
        remedy = "expose it with a binary collation: rows tied with such a one could be passed by"
        yield Finding("error", subject, f"keys ({names}) that differ are the same to the database", remedy)
    digits = page.frame[view.cursor].str.len_chars().arg_sort(descending=True)
    places = [page.last, *(position_at(page.frame, view, index) for index in digits.head(_ROUND_TRIPS))]
    if not all(reader.finds(view, place) for place in places):
        remedy = "the cursor's type is rounded on the way: use an id cursor, or another driver"
        yield Finding("error", subject, "a position written back does not find its own row", remedy)


def _folded(page: Page, view: View) -> list[Position]:
    """Return rows whose key is that of another when case, accents and blanks are ignored; a few are enough."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for index, key in enumerate(page.frame.select_seq(view.key).rows()):
        folded = tuple(_bare(part) for part in key)
        if folded in seen:
            found.append(position_at(page.frame, view, index))
        seen.add(folded)
    return found[:_ROUND_TRIPS]


def _bare(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in parts if not unicodedata.combining(char)).rstrip()


def _ahead(reader: Reader, subject: str, view: View, *, tolerance: float) -> Iterator[Finding]:
    """Compare the newest cursor with the server's clock: east of UTC, local times run ahead of it."""
    now, head = reader.sample().clock, reader.head(view)
    if head is not None and head.mark > now + _FUTURE:
        bound = cursor_text(now + _FUTURE, like=head.cursor)
        remedy = f"mend their {view.cursor}: they are not read, and shown in crm.quarantine"
        far = reader.count(view, after=bound)
        yield Finding("warn", subject, f"{far} row(s) are dated more than a day ahead", remedy)
        head = reader.head(view, column=view.cursor, until=bound)
    lead = 0 if head is None else head.mark - now
    if lead >= _ZONE_STEP:
        text = f"the newest {view.cursor} runs {lead / SECOND / 3600:.1f} h ahead of the server's clock (UTC)"
        remedy = "it is written in local time: expose it in UTC, or its rows are read only when that hour has come"
        yield Finding("error", subject, text, remedy)
    elif lead > tolerance * SECOND:
        text = f"the newest {view.cursor} runs {lead / SECOND:.0f} s ahead of the server's clock"
        yield Finding(
            "warn", subject, text, "its rows wait until then: run NTP where they are stamped, or raise tolerance"
        )


def _destination(settings: config.Config, destination: config.Destination) -> Iterator[Finding]:
    brands = {name: brand for source in settings.sources for name, brand in source.brands.items()}
    client = DESTINATIONS[destination.kind](destination, brands)
    try:
        yield Finding("ok", destination.name, client.ping())
        if mailed := sorted(_MAILED.intersection(destination.events.values())):
            remedy = "leave them out of events, unless this is who sends those mails"
            text = f"{', '.join(mailed)}: campaigns of the workspace send mail to the player at once"
            yield Finding("warn", destination.name, text, remedy)
    except ConnectorError as error:
        yield _failed(destination.name, error)
    finally:
        client.close()


def _failed(subject: str, error: ConnectorError) -> Finding:
    return Finding("error", subject, error.message, error.hint)
