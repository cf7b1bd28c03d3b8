"""An operator who commits transactions in any order, in a time that passes when it is told to.

TIME. A row is promised to the store if it commits within `lateness` of its stamp, and a mark is sealed when the source's
progress has moved on by `lateness`. Both are about the source's time and nothing else, so the time of a scenario is a
number, `Time.now`: stamps are written from it, `Reader.sample` reports it in place of the server's, and
`clock.monotonic`, which paces the passes, follows it (daemon.py). Nothing sleeps, minutes pass at once, a deadline is met
to the microsecond, and the same steps give the same result. Whatever else the product asks of a server (rows, identity,
snapshot) is the real server's answer.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pymysql

from connector import clock
from tests.scenarios.committed.tables import (
    KEYS,
    SECOND,
    START,
    TOUCHED,
    Precision,
    Row,
    insert,
    mark_of,
    new_bet,
    new_deposit,
    new_user,
    rewrite_user,
    schema,
    session,
)

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS: Final = 4
#: A server that is waited for this long does not come.
_PATIENCE_SECONDS: Final = 45.0
_real_seconds = clock.monotonic

Rows = dict[str, dict[str, Row]]


@dataclass
class Time:
    """The time of a scenario, in microseconds since 1970."""

    now: int = START

    def monotonic(self) -> float:
        """Stand in for `clock.monotonic`."""
        return (self.now - START) / SECOND


@dataclass
class Writer:
    """A transaction of the operator's. `deadline`: until when the promise lets it commit; `ids`: (id, drawn at).

    `begun`: the stamp of its rows; None: they have their statement's.
    """

    connection: Any
    open: bool = False
    begun: int | None = None
    ids: list[tuple[int, int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    deadline: float = math.inf


@dataclass
class Casino:
    """The operator's side: its transactions, and what they have committed, by stream and key."""

    operator: Any
    precision: Precision
    standby: Any = None
    time: Time = field(default_factory=Time)
    writers: list[Writer] = field(default_factory=list)
    committed: Rows = field(default_factory=dict)
    #: What a paused standby shows, and its progress; None: it follows.
    frozen: tuple[Rows, int] | None = None
    #: How late a row may commit, in microseconds.
    lateness: int = 0
    #: Called with the rows that become visible, just before they do.
    witness: Callable[[list[Row]], None] = lambda _: None
    _last_commit: int = START
    _last_stamp: int = START
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _watcher: Any = None

    def create(self) -> None:
        """Create tables and views, and open the writers' sessions."""
        self.operator.execute(*schema(self.operator.family, self.precision))
        self.writers = [Writer(session(self.operator)) for _ in range(WRITERS)]
        if self.standby is not None:
            self._watcher = psycopg.connect(self.standby.standby.url(), autocommit=True)

    def clear(self, *, lateness: int) -> None:
        """Start over with empty tables."""
        self.witness = lambda _: None
        self.replay()
        for writer in self.open:
            self.roll_back(writer)
        verb = "truncate" if self.operator.family == "postgresql" else "delete from"
        self._run(*(f"{verb} {name}_rows" for name in KEYS))
        self.time.now = self._last_commit = self._last_stamp = START
        self.committed, self.lateness = {name: {} for name in KEYS}, lateness * SECOND
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Close every session."""
        self.witness = lambda _: None
        self.replay()
        for connection in (*(writer.connection for writer in self.writers), self._watcher):
            if connection is not None:
                connection.close()

    @property
    def open(self) -> list[Writer]:
        """Return the open transactions, the one that has to end first at the front."""
        return sorted((writer for writer in self.writers if writer.open), key=lambda writer: writer.deadline)

    @property
    def visible(self) -> Rows:
        """Return what the side that is read shows."""
        return self.frozen[0] if self.frozen else self.committed

    @property
    def invisible(self) -> list[Row]:
        """Return the rows that may become visible: uncommitted ones, and those that a standby has not replayed."""
        pending = [row for writer in self.open for row in writer.rows]
        return pending + _missing(self.committed, self.visible)

    @property
    def progress(self) -> int:
        """Return what the side that is read knows to have: a primary all, a standby what it replayed last."""
        if self.standby is None:
            return self.time.now
        return self.frozen[1] if self.frozen else self._last_commit

    def pass_time(self, micros: int = 1) -> None:
        """Let time pass. No transaction outlives its deadline: what is due commits at that very moment."""
        until = self.time.now + micros
        while self.open and self.open[0].deadline < until:
            self.time.now = max(self.time.now, int(self.open[0].deadline))
            self.commit(self.open[0])
        self.time.now = until

    def begin(self, *, at_begin: bool, ids: int) -> Writer:
        """Open a transaction. Its stamps are its begin's, or its statements'.

        Its first `ids` are drawn now, by an application that keeps a stock of them: what is not used is a gap.
        """
        writer = next(writer for writer in self.writers if not writer.open)
        writer.open, writer.begun = True, self.time.now if at_begin else None
        writer.ids, writer.rows = [(next(self._numbers), self.time.now) for _ in range(ids)], []
        writer.deadline = self.time.now + self.lateness if at_begin or ids else math.inf
        return writer

    def write(self, writer: Writer, stream: str, *, user: str, rows: int, tie: bool, lie: int) -> None:
        """Insert rows, or write a user anew, by a clock that is `lie` seconds ahead; `tie`: under the stamp used last."""
        now = self.time.now
        honest = now if writer.begun is None else writer.begun
        stamp = self._last_stamp if tie else honest + lie * SECOND
        if stamp + self.lateness <= now:
            stamp = honest
        self._last_stamp = stamp
        if stream == "casino_bets":
            self._write_bets(writer, user, stamp, rows)
            return
        writer.deadline = min(writer.deadline, stamp + self.lateness)
        if stream == "deposits":
            self._write_deposits(writer, user, stamp, rows)
        else:
            self._write_user(writer, user, stamp)

    def commit(self, writer: Writer) -> None:
        """Commit: from here on the rows are visible, and promised."""
        if self.frozen is None:
            self.witness(writer.rows)
        writer.connection.commit()
        writer.open, self._last_commit = False, self.time.now
        for row in writer.rows:
            self.committed[row.stream][row.key] = row

    def roll_back(self, writer: Writer) -> None:
        """Roll back: the rows were never there, the ids never will be."""
        writer.connection.rollback()
        writer.open = False

    def touch(self, stream: str, row: int) -> None:
        """Rewrite a column of a committed row that its event is not about; neither cursor nor key moves."""
        if stream in TOUCHED and (keys := list(self.committed[stream])):
            key = keys[row % len(keys)]
            self._run(f"update {stream}_rows set {TOUCHED[stream]} = {row} where {KEYS[stream]} = '{key}'")
            self._last_commit = self.time.now

    def pulse(self, stream: str) -> None:
        """Commit something: the traffic without which a standby's progress stands still."""
        writer = self.begin(at_begin=False, ids=0)
        self.write(writer, stream, user="pulse", rows=1, tie=False, lie=0)
        self.commit(writer)

    def stop_replay(self) -> None:
        """Stop a standby's replay: what is committed from here on is not visible."""
        if self.standby is None or self.frozen is not None:
            return
        self.settle()
        self._watcher.execute("select pg_wal_replay_pause()")
        self._wait("select pg_get_wal_replay_pause_state() = 'paused'")
        self.frozen = {name: dict(rows) for name, rows in self.committed.items()}, self._last_commit

    def replay(self) -> None:
        """Let a standby replay; what had waited becomes visible."""
        if self.frozen is not None:
            self.witness(_missing(self.committed, self.frozen[0]))
            self.frozen = None
            self._watcher.execute("select pg_wal_replay_resume()")

    def settle(self) -> None:
        """Wait until a standby that follows has everything: what it shows is known then.

        Its goal is a record that is flushed whole; the end of what is flushed may lie within one of an open transaction.
        """
        if self.standby is not None and self.frozen is None:
            (reached,) = self.operator.rows("select pg_logical_emit_message(true, 'settle', '')")[0]
            self._wait("select pg_last_wal_replay_lsn() >= %s::pg_lsn", reached)

    def cut(self) -> None:
        """End the connector's sessions on the side that it reads."""
        if self.operator.family == "mysql":
            for (number,) in self.operator.rows("select id from information_schema.processlist where user = 'reader'"):
                with contextlib.suppress(pymysql.err.OperationalError):  # gone meanwhile
                    self._run(f"kill {number}")
            return
        query = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'reader'"
        if self.standby is None:
            self.operator.rows(query)
        else:
            self._watcher.execute(query)

    def _write_user(self, writer: Writer, user: str, stamp: int) -> None:
        """Write a user, unless another open transaction holds the row: this one would wait for it."""
        holders = [other for other in self.open if any(_is_user(row, user) for row in other.rows)]
        if holders not in ([], [writer]):
            return
        name = f"name {next(self._numbers)}"
        if holders or user in self.committed["user_profile"]:
            rewrite_user(writer.connection, user, stamp, name)
        else:
            insert(writer.connection, "user_profile", [new_user(user, stamp, name)])
        writer.rows.append(Row("user_profile", user, self._mark(stamp), user, name=name))

    def _write_deposits(self, writer: Writer, user: str, stamp: int, rows: int) -> None:
        """Insert deposits under one stamp; the order of their keys is not the order of their coming."""
        values = []
        for number in itertools.islice(self._numbers, rows):
            key, cents = f"{number * 7919 % 1000:03}-{number:06}", number * 137 % 9973
            values.append(new_deposit(key, user, stamp, cents))
            writer.rows.append(Row("deposits", key, self._mark(stamp), user, cents))
        insert(writer.connection, "deposits", values)

    def _write_bets(self, writer: Writer, user: str, stamp: int, rows: int) -> None:
        values = []
        for _ in range(rows):
            number, drawn = writer.ids.pop(0) if writer.ids else (next(self._numbers), self.time.now)
            writer.deadline = min(writer.deadline, drawn + self.lateness)
            values.append(new_bet(number, user, stamp, number * 137 % 9973))
            writer.rows.append(Row("casino_bets", str(number), number, user, number * 137 % 9973))
        insert(writer.connection, "casino_bets", values)

    def _mark(self, stamp: int) -> int:
        return mark_of(stamp, self.operator.family, self.precision)

    def _run(self, *statements: str) -> None:
        for statement in statements:
            with contextlib.closing(self.operator.connect().cursor()) as cursor:
                cursor.execute(statement)

    def _wait(self, query: str, *values: object) -> None:
        """Wait for the standby in real time; the scenario's stands still meanwhile."""
        deadline = _real_seconds() + _PATIENCE_SECONDS
        while not self._watcher.execute(query, values).fetchone()[0]:
            assert _real_seconds() < deadline, f"not within {_PATIENCE_SECONDS:g} s: {query}"


def _missing(rows: Rows, shown: Rows) -> list[Row]:
    """Return the rows that `shown` does not have, or not as they are."""
    return [row for name, found in rows.items() for row in found.values() if shown[name].get(row.key) != row]


def _is_user(row: Row, user: str) -> bool:
    return row.stream == "user_profile" and row.key == user
