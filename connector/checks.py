"""What `connector check` looks at: servers, views, columns, keys, indexes, clocks, destinations; each with its remedy.

Reads only. A finding is for a person: what is wrong, and what to do about it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from connector import clock
from connector.destinations import DESTINATIONS
from connector.errors import ConnectorError
from connector.position import SECOND, Window
from connector.sources.dialect import Settings
from connector.sources.reader import Reader, View
from connector.store import database
from connector.streams import STREAMS
from connector.streams.contract import Binding, Context, bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector import config
    from connector.sources.dialect import Sample

#: A source whose clock differs by more from ours makes lag figures wrong (nothing else: our clock judges no row).
_SKEW_SECONDS: Final = 5.0
_SAMPLE_ROWS: Final = 1000

Level = Literal["ok", "warn", "error"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


def check(settings: config.Config) -> Iterator[Finding]:
    """Yield findings as they are made, worst things included; never raises for what it finds."""
    yield Finding(
        "ok", "configuration", f"{len(settings.sources)} source(s), {len(settings.destinations)} destination(s)"
    )
    yield from _store(settings)
    for source in settings.sources:
        yield from _source(source)
    for destination in settings.destinations:
        yield from _destination(settings, destination)


def _store(settings: config.Config) -> Iterator[Finding]:
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
    except ConnectorError as error:
        yield _failed("store", error)
    finally:
        store.close()


def _source(source: config.Source) -> Iterator[Finding]:
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
            yield from _stream(reader, source, name)
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


def _stream(reader: Reader, source: config.Source, name: str) -> Iterator[Finding]:
    subject, settings = f"{source.name}.{name}", source.streams[name]
    view_name = settings.view or name
    try:
        types = reader.columns(view_name)
        if not types:
            hint = f"create it from views/ and grant select on it, or set sources[].streams.{name}.view"
            yield Finding("error", subject, f"view {view_name} is not there, or may not be read", hint)
            return
        binding = bind(STREAMS[name], settings, types, view=view_name)
        view = View(view_name, binding.cursor, binding.kind, binding.key, binding.selected, types)
        yield Finding(
            "ok",
            subject,
            f"{len(binding.columns)} columns, cursor {view.cursor} ({view.kind}), key {', '.join(view.key)}",
        )
        yield from _rows(reader, subject, binding, view)
    except ConnectorError as error:
        yield _failed(subject, error)


def _rows(reader: Reader, subject: str, binding: Binding, view: View) -> Iterator[Finding]:
    """Try a real page: order, round trip, index, duplicates and what the normaliser makes of it."""
    page = reader.read(view, Window(None, None), limit=_SAMPLE_ROWS)
    if page.last is None:
        yield Finding("warn", subject, "the view has no rows", "nothing to do if that is expected")
        return
    if page.frame.select(view.key).is_duplicated().any():
        yield Finding(
            "error", subject, f"the key ({', '.join(view.key)}) is not unique", "expose a unique id and set key: [id]"
        )
    if not reader.finds(view, page.last):
        remedy = "the cursor's type is rounded on the way: use an id cursor, or another driver"
        yield Finding("error", subject, "a position written back does not find its own row", remedy)
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
    good = normalised.events.height + normalised.profiles.height
    refused = normalised.rejections.filter(~normalised.rejections["kept"])
    yield Finding("ok", subject, f"{page.frame.height} rows read, {good} understood")
    for reason, field, count in refused.group_by("reason", "field").len().sort("len", descending=True).head(5).rows():
        yield Finding(
            "warn",
            subject,
            f"{count} of them refused: {field} {reason}",
            "mend the view, or map the column; such rows go to crm.quarantine",
        )


def _destination(settings: config.Config, destination: config.Destination) -> Iterator[Finding]:
    brands = {name: brand for source in settings.sources for name, brand in source.brands.items()}
    client = DESTINATIONS[destination.kind](destination, brands)
    try:
        yield Finding("ok", destination.name, client.ping())
    except ConnectorError as error:
        yield _failed(destination.name, error)
    finally:
        client.close()


def _failed(subject: str, error: ConnectorError) -> Finding:
    return Finding("error", subject, error.message, error.hint)
