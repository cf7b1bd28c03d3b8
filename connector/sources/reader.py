"""Reads views exactly: keyset pages, heads and counts over one short-lived read-only session of one source.

Owns the SQL of a page and the classification of failures. It keeps no position: callers say where to read.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import sqlalchemy as sa

from connector.buckets import AmountColumn, Sums
from connector.errors import Halted, Misconfigured, Transient
from connector.position import EARLIEST, LATEST, Kind, Position, Window, mark_of
from connector.sources import DIALECTS, sums
from connector.sources.dialect import Sample, Settings, view_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_REFUSALS: Final = (
    *("password authentication failed", "access denied", "login failed"),
    *("no pg_hba.conf entry", "unknown database"),
)
#: PostgreSQL says "does not exist" of tables, columns and functions too: those are no login.
_NO_SUCH_LOGIN: Final = re.compile(r'\b(?:database|role|user) "[^"]*" does not exist')
#: A page never grows beyond this many bytes of text, whatever its number of rows.
PAGE_BYTES: Final = 32 << 20
#: Rows asked for by name in one query.
_AT_ONCE: Final = 100


@dataclass(frozen=True)
class View:
    """What the reader needs to know of a view: names are the view's own, `types` all its columns' SQL types."""

    name: str
    cursor: str
    kind: Kind
    key: tuple[str, ...]
    columns: tuple[str, ...]
    types: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """One read: rows as texts in (cursor, key) order. `last` is None for an empty page; `full`: there may be more."""

    frame: pl.DataFrame
    last: Position | None
    full: bool


class Reader:
    """One session of one source, used by one thread. Every failure leaves it disconnected; the next call reconnects.

    Raises Transient for what passes (a cut connection, a standby conflict, a time-out), Misconfigured for what a
    person must change (credentials, host, permissions, a missing view).
    """

    def __init__(self, url: str, *, source: str, settings: Settings | None = None) -> None:
        self.source = source
        self.settings = settings or Settings()
        parsed = _parse(url, source)
        self.dialect = DIALECTS[parsed.drivername]
        self._engine = self.dialect.engine(parsed, self.settings)
        self._connection: sa.Connection | None = None

    def close(self) -> None:
        """Close the session; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sa.exc.SQLAlchemyError):  # a broken session is dropped all the same
                connection.close()

    def columns(self, view: str) -> Mapping[str, str]:
        """Return the view's columns and SQL types; empty when the role can't see such a view."""
        with self._session() as connection:
            return self.dialect.columns(connection, view)

    def sample(self) -> Sample:
        """Return the server's clock, progress and identity."""
        with self._session() as connection:
            return self.dialect.sample(connection)

    def read(self, view: View, window: Window, *, limit: int) -> Page:
        """Return the rows of a window in keyset order, at most `limit` of them and about PAGE_BYTES.

        Refuses a page whose cursor goes backwards: the view's order can't be trusted then (Halted).
        """
        frame = self._fetch(self._keyset(view, window, limit), view)
        if frame.is_empty():
            return Page(frame, None, full=False)
        _verify_order(frame, view, self.source)
        full = frame.height >= limit or frame.estimated_size() >= PAGE_BYTES // 2
        return Page(frame, position_at(frame, view, frame.height - 1), full=full)

    def read_rows(self, view: View, wanted: pl.DataFrame, *, placed: bool = True) -> pl.DataFrame:
        """Return the rows that have a wanted row's values in all its columns, in order; those gone are left out.

        `wanted` holds source texts of the key, or of cursor and key; its order must be the source's. Not `placed`:
        those without a cursor too.
        """
        table, parts = self._table(view), wanted.iter_slices(_AT_ONCE)
        return pl.concat(
            [self._fetch(_ordered(table, view, self._equal(table, view, part), placed=placed), view) for part in parts]
        )

    def sums(
        self, view: View, low: str | None, high: str, *, amounts: Sequence[AmountColumn], digest: bool = True
    ) -> Sums:
        """Return number, amounts and key digests of the rows with a cursor from `low` up to, not including, `high`."""
        table = self._table(view)
        cursor = table.c[view.cursor]
        columns = sums.columns(self.dialect, table, view.key if digest else (), amounts, view.types)
        query = sa.select(*columns).select_from(table).where(*_placed(table, view))
        if low is not None:
            query = query.where(cursor >= self._bind(view, view.cursor, low, "low"))
        query = query.where(cursor < self._bind(view, view.cursor, high, "high"))
        with self._session() as connection:
            frame = self.dialect.fetch(connection, query, sums.TYPES, bytes_limit=PAGE_BYTES)
        rows, amount, digests = frame.row(0)
        told = [None if text is None else Decimal(text) for text in (amount, digests)]
        return Sums(int(rows), told[0], None if told[1] is None else int(told[1]))

    def read_ranges(self, view: View, ranges: Sequence[tuple[str | None, str]], *, limit: int) -> Page:
        """Return rows whose cursor lies in one of the ranges, ends included (None: from the beginning), in order."""
        table = self._table(view)
        cursor = table.c[view.cursor]
        within = []
        for index, (low, high) in enumerate(ranges):
            end = self._bind(view, view.cursor, high, f"high_{index}")
            start = None if low is None else self._bind(view, view.cursor, low, f"low_{index}")
            within.append(
                cursor <= end if start is None else cursor == end if low == high else cursor.between(start, end)
            )
        frame = self._fetch(_ordered(table, view, sa.or_(*within)).limit(limit), view)
        last = None if frame.is_empty() else position_at(frame, view, frame.height - 1)
        return Page(frame, last, full=frame.height >= limit or frame.estimated_size() >= PAGE_BYTES // 2)

    def without_cursor(self, view: View, *, after: tuple[str, ...] | None, limit: int) -> pl.DataFrame:
        """Return rows that have no cursor, in key order after `after`: they can only be scanned whole."""
        table = self._table(view)
        columns = [table.c[name] for name in view.key]
        query = sa.select(*(table.c[name] for name in view.columns)).where(table.c[view.cursor].is_(None))
        if after is not None:
            bounds = [
                self._bind(view, name, text, f"after_{i}")
                for i, (name, text) in enumerate(zip(view.key, after, strict=True))
            ]
            query = query.where(_beyond(columns, bounds))
        return self._fetch(query.order_by(*columns).limit(limit), view)

    def head(
        self, view: View, *, column: str | None = None, until: str | None = None, before: str | None = None
    ) -> Position | None:
        """Return the last row's position, or the last with `column` up to `until` or `before`; None: there is none."""
        table = self._table(view)
        query = sa.select(*(table.c[name] for name in view.columns)).where(*_placed(table, view))
        if column is not None and until is not None:
            query = query.where(table.c[column] <= self._bind(view, column, until, "until"))
        if column is not None and before is not None:
            query = query.where(table.c[column] < self._bind(view, column, before, "before"))
        query = query.order_by(*(table.c[name].desc() for name in (view.cursor, *view.key))).limit(1)
        frame = self._fetch(query, view)
        return None if frame.is_empty() else position_at(frame, view, 0)

    def count(self, view: View, *, after: str | None = None, keyless: bool = False) -> int:
        """Return how many rows have no cursor, or no key (`keyless`, a scan), or a cursor beyond `after`."""
        table = self._table(view)
        cursor = table.c[view.cursor]
        condition: sa.ColumnElement[bool] = cursor.is_(None)
        if after is not None:
            condition = cursor > self._bind(view, view.cursor, after, "after")
        elif keyless:
            condition = sa.and_(cursor.is_not(None), sa.or_(*(table.c[name].is_(None) for name in view.key)))
        with self._session() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(table).where(condition)).scalar_one())

    def needs_sort(self, view: View, position: Position) -> bool | None:
        """Return whether the keyset query has no index to serve it; None where the server does not say."""
        with self._session() as connection:
            return self.dialect.needs_sort(connection, self._keyset(view, Window(position, None), 1000))

    def finds(self, view: View, position: Position) -> bool:
        """Return whether the position, written back, finds its own row with `=`: the round trip is exact."""
        table = self._table(view)
        names = (view.cursor, *view.key)
        equal = [
            table.c[name] == self._bind(view, name, text, f"p{i}")
            for i, (name, text) in enumerate(zip(names, (position.cursor, *position.key), strict=True))
        ]
        query = sa.select(*(table.c[name] for name in view.columns)).where(*equal).limit(1)
        return not self._fetch(query, view).is_empty()

    def _keyset(self, view: View, window: Window, limit: int) -> sa.Select[Any]:
        """The query of a page. `cursor >= c` alone stands first, so that every planner starts in the index."""
        table = self._table(view)
        names = (view.cursor, *view.key) if view.key != (view.cursor,) else (view.cursor,)
        query = sa.select(*(table.c[name] for name in view.columns)).where(*_placed(table, view))
        if window.after is not None:
            texts = (window.after.cursor, *window.after.key)[: len(names)]
            bounds = [
                self._bind(view, name, text, f"after_{i}")
                for i, (name, text) in enumerate(zip(names, texts, strict=True))
            ]
            columns = [table.c[name] for name in names]
            if self.dialect.name.startswith("postgresql"):
                query = query.where(
                    sa.tuple_(*columns) > sa.tuple_(*bounds) if len(columns) > 1 else columns[0] > bounds[0]
                )
            else:
                query = query.where(columns[0] >= bounds[0], _beyond(columns, bounds))
        if window.since is not None:
            query = query.where(table.c[view.cursor] >= self._bind(view, view.cursor, window.since, "since"))
        if window.until is not None:
            query = query.where(table.c[view.cursor] <= self._bind(view, view.cursor, window.until, "until"))
        return query.order_by(*(table.c[name] for name in names)).limit(limit)

    def _equal(self, table: sa.TableClause, view: View, wanted: pl.DataFrame) -> sa.ColumnElement[bool]:
        rows = [
            [table.c[name] == self._bind(view, name, text, f"w{row}_{column}") for column, (name, text) in pairs]
            for row, values in enumerate(wanted.iter_rows(named=True))
            for pairs in [enumerate(values.items())]
        ]
        return sa.or_(*(sa.and_(*row) for row in rows))

    def _bind(self, view: View, column: str, text: str, name: str) -> sa.ColumnElement[Any]:
        return self.dialect.bind(text, view.types[column], name)

    def _table(self, view: View) -> sa.TableClause:
        return view_table(view.name, list(view.types))

    def _fetch(self, query: sa.Select[Any], view: View) -> pl.DataFrame:
        with self._session() as connection:
            return self.dialect.fetch(
                connection, query, {name: view.types[name] for name in view.columns}, bytes_limit=PAGE_BYTES
            )

    @contextmanager
    def _session(self) -> Iterator[sa.Connection]:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                self.dialect.prepare(self._connection, self.settings)
            yield self._connection
        except Exception as error:
            self.close()
            raise self._classify(error) from error
        except BaseException:
            self.close()
            raise

    def _classify(self, error: Exception) -> Exception:
        if (
            not isinstance(error, sa.exc.DBAPIError)
            and not hasattr(error, "sqlstate")
            and not type(error).__module__.startswith(("pymysql", "pyodbc"))
        ):
            return error
        reason = _reason(error)
        if _is_login(reason):
            return Misconfigured(
                f"source {self.source}: the server refused the login: {reason}",
                hint="check user, password and database in sources[].url",
            )
        if self.dialect.is_transient(error):
            return Transient(
                f"source {self.source}: {reason}", hint="it is tried again from the last committed position"
            )
        return Misconfigured(f"source {self.source}: {reason}", hint="run `connector check` with this configuration")


def position_at(frame: pl.DataFrame, view: View, index: int) -> Position:
    """Return the position of one row of a page."""
    cursor = frame[view.cursor][index]
    return Position(cursor, tuple(frame[name][index] for name in view.key), mark_of(cursor, view.kind))


def _placed(table: sa.TableClause, view: View) -> list[sa.ColumnElement[bool]]:
    """Only rows that have a place in the order: one whose key is NULL can't be told from its neighbours.

    A page that ended at such a row would lose those tied with it where NULL sorts first.
    """
    return [table.c[name].is_not(None) for name in dict.fromkeys((view.cursor, *view.key))]


def _ordered(
    table: sa.TableClause, view: View, condition: sa.ColumnElement[bool], *, placed: bool = True
) -> sa.Select[Any]:
    """The rows that meet a condition, in the order of the view."""
    query = sa.select(*(table.c[name] for name in view.columns)).where(condition)
    if placed:
        query = query.where(*_placed(table, view))
    return query.order_by(*(table.c[name] for name in dict.fromkeys((view.cursor, *view.key))))


def _beyond(
    columns: Sequence[sa.ColumnElement[Any]], bounds: Sequence[sa.ColumnElement[Any]]
) -> sa.ColumnElement[bool]:
    """(a, b, c) > (x, y, z) without row values, which only PostgreSQL can answer from an index."""
    column, bound = columns[0], bounds[0]
    if len(columns) == 1:
        return column > bound
    return sa.or_(column > bound, sa.and_(column == bound, _beyond(columns[1:], bounds[1:])))


def _verify_order(frame: pl.DataFrame, view: View, source: str) -> None:
    first, last = (mark_of(frame[view.cursor][index], view.kind) for index in (0, -1))
    if view.kind == "id":
        ordered = frame[view.cursor].cast(pl.Int128, strict=False).is_sorted()
    else:
        ordered = first <= last or EARLIEST in {first, last} or LATEST in {first, last}
    if not ordered:
        raise Halted(
            f"source {source}: rows of {view.name} do not come in the order of {view.cursor}",
            hint="the cursor must be one column that the database can order; check its type and collation",
        )


def _is_login(reason: str) -> bool:
    lowered = reason.lower()
    return any(part in lowered for part in _REFUSALS) or _NO_SUCH_LOGIN.search(lowered) is not None


def _reason(error: Exception) -> str:
    """Return the first line of what the server said: drivers keep it last, behind a number or a state."""
    original = getattr(error, "orig", None) or error
    said = next((part for part in reversed(original.args) if isinstance(part, str) and part.strip()), "")
    return said.strip().partition("\n")[0].strip() or type(original).__name__


def _parse(url: str, source: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise Misconfigured(
            f"source {source}: the url is not a database URL", hint="postgresql://user@host/database"
        ) from None
    if parsed.drivername not in DIALECTS:
        raise Misconfigured(
            f"source {source}: unknown database {parsed.drivername!r}", hint=f"one of {', '.join(DIALECTS)}"
        )
    return parsed
