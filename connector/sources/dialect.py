"""The contract of a source dialect: what one kind of database does in its own way. One file per member beside this."""

from __future__ import annotations

import functools
import os
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

#: A byte that is no text (broken UTF-8, NUL) is carried as the private-use character this far above it.
_BYTES_AT: Final = 0x10F700
_NO_TEXT: Final = re.compile("[\0\udc80-\udcff\U0010f700-\U0010f7ff]")
_CARRIED: Final = re.compile("[\U0010f700-\U0010f7ff]")


@dataclass(frozen=True)
class Settings:
    """Limits of a session, in seconds."""

    statement_timeout: float = 30.0
    lock_timeout: float = 5.0
    connect_timeout: float = 10.0

    @property
    def answer_timeout(self) -> float:
        """Nobody waits longer than this for what a call returns, a page as a whole; nor may a server give up before."""
        return self.statement_timeout + self.connect_timeout


@dataclass(frozen=True)
class Sample:
    """What a server says of itself at one instant: nanoseconds since 1970.

    `progress`: everything that the primary committed at or before it is visible here; None where the server can't
    tell. `server` identifies the instance whose data this is (system identifier, server uuid, ...).
    `snapshot` (PostgreSQL): transactions below the first number have ended, those from the second on had not begun.
    """

    clock: int
    progress: int | None
    server: str
    snapshot: tuple[int, int] | None = None


class Dialect(Protocol):
    """One kind of source database. Stateless: every method gets the connection it works on.

    Called on one thread per source; errors are the driver's own and are classified by `is_transient`. Nothing here
    writes: `prepare` makes the session read-only, in UTC, with time-outs.
    """

    name: str

    def engine(self, url: sa.URL, settings: Settings) -> sa.Engine:
        """Return an engine of at most one pooled-out connection, not yet connected, autocommit."""

    def prepare(self, connection: sa.Connection, settings: Settings) -> None:
        """Make a fresh session read-only, UTC, bounded in time. Called once per connection."""

    def columns(self, connection: sa.Connection, view: str) -> Mapping[str, str]:
        """Return column name -> exact SQL type text, in view order; empty when there is no such readable view."""

    def sample(self, connection: sa.Connection) -> Sample:
        """Return the server's clock, progress and identity, in one round trip."""

    def bind(self, text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
        """Return the SQL value of a source text with the column's own type, at full precision."""

    def as_text(self, column: sa.ColumnElement[Any], type_name: str) -> sa.ColumnElement[Any]:
        """Return the SQL of the text that `fetch` hands over for a column; only odd values may come out otherwise."""

    def digest(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any] | None:
        """Return the SQL of the first 32 bits of the md5 of a text's UTF-8, as a number; None where there is no md5."""

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], types: Mapping[str, str], *, bytes_limit: int
    ) -> pl.DataFrame:
        """Run a read and return its rows as texts, exactly as the server writes them, in the order of `types`.

        Streams, and stops at a whole row once `bytes_limit` is passed. What is no text arrives as `text_of` writes it.
        """

    def needs_sort(self, connection: sa.Connection, query: sa.Select[Any]) -> bool | None:
        """Return whether the server would have to sort to answer a keyset query (no usable index); None: can't tell."""

    def cautions(self, connection: sa.Connection, settings: Settings) -> Sequence[tuple[str, str]]:
        """Return what in the server's own settings endangers reading it, each with its remedy. For `check`."""

    def cut(self, connection: sa.Connection) -> None:
        """End the connection under a call that hangs, so that the call fails; no-op where the driver hides its socket.

        The only method that is called on another thread than the one that uses the connection.
        """

    def is_transient(self, error: Exception) -> bool:
        """Return whether repeating the read later can help: cut connection, conflict, time-out, deadlock."""


class SourceType(UserDefinedType[Any]):
    """A column type by its own text, for casts: exactly what the server said the column is."""

    cache_ok = True

    def __init__(self, text: str) -> None:
        self.text = text

    def get_col_spec(self, **_: object) -> str:
        """Return the type as CAST writes it: SQLAlchemy's compiler asks for this."""
        return self.text


def typed_value(text: str, type_name: str, name: str) -> sa.ColumnElement[Any]:
    """Return `CAST(:name AS type)`; the text travels as a bound parameter."""
    return sa.cast(
        sa.bindparam(name, bytes_of(text).decode(errors="replace"), type_=sa.String()), SourceType(type_name)
    )


def text_of(raw: bytes) -> str:
    """Return what a source's bytes say. `bytes_of` gives the very bytes back, so that no two values become one.

    Neither the store nor an API takes NUL or broken UTF-8: such bytes are carried as private-use characters.
    """
    text = raw.decode(errors="surrogateescape")
    return text if text.isascii() and "\0" not in text else _NO_TEXT.sub(_carry, text)


def bytes_of(text: str) -> bytes:
    """Return the source's bytes of a text that `text_of` wrote."""
    if text.isascii():
        return text.encode()
    return _CARRIED.sub(_put_down, text).encode(errors="surrogateescape")


def _carry(found: re.Match[str]) -> str:
    return "".join(chr(_BYTES_AT + byte) for byte in found[0].encode(errors="surrogateescape"))


def shut(descriptor: int) -> None:
    """Shut a socket that another thread waits on: it wakes up to a closed connection."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


@functools.lru_cache(maxsize=256)
def view_table(view: str, columns: tuple[str, ...]) -> sa.TableClause:
    """Return the view as a selectable; `schema.view` and plain names both work.

    Kept, because a quiet source is asked the same again and again: making it anew was a quarter of a probe's calls.
    """
    schema, _, name = view.rpartition(".")
    return sa.table(name, *(sa.column(column) for column in columns), schema=schema or None)


def _put_down(found: re.Match[str]) -> str:
    return bytes([ord(found[0]) - _BYTES_AT]).decode(errors="surrogateescape")
