"""Reads views exactly: keyset pages, heads and counts over one short-lived read-only session of one source.

Owns the SQL of a page. It keeps no position: callers say where to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import sqlalchemy as sa

from connector.buckets import AmountColumn, Sums
from connector.errors import Halted
from connector.position import EARLIEST, LATEST, Kind, Position, Window, mark_of
from connector.sources import sums
from connector.sources.dialect import Sample, view_table
from connector.sources.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A page never grows beyond this many bytes of text, whatever its number of rows.
PAGE_BYTES: Final = 32 << 20
#: Rows asked for by name in one query.
_AT_ONCE: Final = 200


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


class Reader(Session):
    """A session that reads views. Every method may raise what `Session.ask` raises."""

    def columns(self, view: str) -> Mapping[str, str]:
        """Return the view's columns and SQL types; empty when the role can't see such a view."""
        return self.ask(lambda connection: self.dialect.columns(connection, view))

    def sample(self) -> Sample:
        """Return the server's clock, progress and identity."""
        return self.ask(self.dialect.sample)

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

    def news(self, windows: Sequence[tuple[View, Window]]) -> list[bool]:
        """Return of each window whether it has a row, all in one statement that always reads the same.

        A server that keeps plans plans it once; as a page's query it would be planned at each turn.
        """
        one: sa.ColumnElement[int] = sa.literal_column("1")
        parts = [
            self._keyset(view, window, 1, named=f"w{index}_").with_only_columns(one).scalar_subquery()
            for index, (view, window) in enumerate(windows)
        ]
        query = sa.select(*(part.label(f"w{index}") for index, part in enumerate(parts)))
        return self.ask(lambda connection: [found is not None for found in connection.execute(query).one()])

    def read_rows(self, view: View, wanted: pl.DataFrame) -> pl.DataFrame:
        """Return the rows that have a wanted row's cursor and key, in order; those gone are left out.

        For rows that lie close together: `wanted` holds source texts in the source's own order.
        """
        table = self._table(view)
        parts = [
            self._fetch(_ordered(table, view, self._near(table, view, part)), view)
            for part in wanted.iter_slices(_AT_ONCE)
        ]
        return pl.concat(parts).join(wanted, on=wanted.columns, how="semi", maintain_order="left")

    def read_named(self, view: View, wanted: pl.DataFrame, *, placed: bool = True) -> pl.DataFrame:
        """Return the rows that have a wanted row's values in all its columns; those gone are left out.

        For rows that lie anywhere: each is asked for by name, so the wanted columns should have an index. Not `placed`:
        those without a cursor too.
        """
        table = self._table(view)
        parts = [
            self._fetch(_ordered(table, view, self._equal(table, view, part), placed=placed), view)
            for part in wanted.iter_slices(_AT_ONCE)
        ]
        return pl.concat(parts).join(wanted, on=wanted.columns, how="semi", maintain_order="left")

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
        fetch = self.dialect.fetch
        frame = self.ask(lambda connection: fetch(connection, query, sums.TYPES, bytes_limit=PAGE_BYTES))
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
        frame = self.newest(view, column=column, until=until, before=before)
        return None if frame.is_empty() else position_at(frame, view, 0)

    def newest(
        self,
        view: View,
        *,
        column: str | None = None,
        until: str | None = None,
        before: str | None = None,
        limit: int = 1,
    ) -> pl.DataFrame:
        """Return the last rows, newest first; `column`, `until` and `before` as for `head`."""
        table = self._table(view)
        query = sa.select(*(table.c[name] for name in view.columns)).where(*_placed(table, view))
        if column is not None and until is not None:
            query = query.where(table.c[column] <= self._bind(view, column, until, "until"))
        if column is not None and before is not None:
            query = query.where(table.c[column] < self._bind(view, column, before, "before"))
        query = query.order_by(*(table.c[name].desc() for name in dict.fromkeys((view.cursor, *view.key))))
        return self._fetch(query.limit(limit), view)

    def count(self, view: View, *, after: str | None = None, keyless: bool = False) -> int:
        """Return how many rows have no cursor, or no key (`keyless`, a scan), or a cursor beyond `after`."""
        table = self._table(view)
        cursor = table.c[view.cursor]
        condition: sa.ColumnElement[bool] = cursor.is_(None)
        if after is not None:
            condition = cursor > self._bind(view, view.cursor, after, "after")
        elif keyless:
            condition = sa.and_(cursor.is_not(None), sa.or_(*(table.c[name].is_(None) for name in view.key)))
        query = sa.select(sa.func.count()).select_from(table).where(condition)
        return self.ask(lambda connection: int(connection.execute(query).scalar_one()))

    def cautions(self) -> Sequence[tuple[str, str]]:
        """Return what in the server's own settings endangers reading it, each with its remedy."""
        return self.ask(lambda connection: self.dialect.cautions(connection, self.settings))

    def count_rows(self, view: View, *, since: str | None = None) -> int:
        """Return how many rows a reading from `since` on finds (None: from the beginning); may take long."""
        table = self._table(view)
        query = sa.select(sa.func.count()).select_from(table).where(*_placed(table, view))
        if since is not None:
            query = query.where(table.c[view.cursor] >= self._bind(view, view.cursor, since, "since"))
        return self.ask(lambda connection: int(connection.execute(query).scalar_one()))

    def needs_sort(self, view: View, position: Position) -> bool | None:
        """Return whether the keyset query has no index to serve it; None where the server does not say."""
        query = self._keyset(view, Window(position, None), 1000)
        return self.ask(lambda connection: self.dialect.needs_sort(connection, query))

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

    def alike(self, view: View, position: Position, *, until: str) -> int:
        """Return how many rows up to a cursor have a key that the server takes for this one: its collation may fold."""
        table = self._table(view)
        equal = [
            table.c[name] == self._bind(view, name, text, f"k{i}")
            for i, (name, text) in enumerate(zip(view.key, position.key, strict=True))
        ]
        bound = table.c[view.cursor] <= self._bind(view, view.cursor, until, "until")
        query = sa.select(sa.func.count()).select_from(table).where(bound, *equal)
        return self.ask(lambda connection: int(connection.execute(query).scalar_one()))

    def _keyset(self, view: View, window: Window, limit: int, *, named: str = "") -> sa.Select[Any]:
        """The query of a page. `cursor >= c` alone stands first, so that every planner starts in the index."""
        table = self._table(view)
        names = (view.cursor, *view.key) if view.key != (view.cursor,) else (view.cursor,)
        query = sa.select(*(table.c[name] for name in view.columns)).where(*_placed(table, view))
        if window.after is not None:
            texts = (window.after.cursor, *window.after.key)[: len(names)]
            bounds = [
                self._bind(view, name, text, f"{named}after_{i}")
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
            query = query.where(table.c[view.cursor] >= self._bind(view, view.cursor, window.since, f"{named}since"))
        if window.until is not None:
            query = query.where(table.c[view.cursor] <= self._bind(view, view.cursor, window.until, f"{named}until"))
        return query.order_by(*(table.c[name] for name in names)).limit(limit)

    def _near(self, table: sa.TableClause, view: View, wanted: pl.DataFrame) -> sa.ColumnElement[bool]:
        """A stretch of the cursor's index, and of its rows those that have one of the wanted values of a key column.

        Cheaper by far than asking for each row by name; what it finds beside them is left out here.
        """
        cursor, telling = wanted[view.cursor], max(view.key, key=lambda name: wanted[name].n_unique())
        values = [self._bind(view, telling, text, f"w{row}") for row, text in enumerate(wanted[telling].unique())]
        return sa.and_(
            table.c[view.cursor] >= self._bind(view, view.cursor, cursor[0], "since"),
            table.c[view.cursor] <= self._bind(view, view.cursor, cursor[-1], "until"),
            table.c[telling].in_(values),
        )

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
        return view_table(view.name, tuple(view.types))

    def _fetch(self, query: sa.Select[Any], view: View) -> pl.DataFrame:
        types = {name: view.types[name] for name in view.columns}
        return self.ask(lambda connection: self.dialect.fetch(connection, query, types, bytes_limit=PAGE_BYTES))


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
