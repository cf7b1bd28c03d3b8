"""How far a replica is behind its primary, as it tells itself: to go easy on it, never to judge what is complete."""

from __future__ import annotations

import contextlib
from typing import Final

import sqlalchemy as sa

#: A standby that has replayed all it was sent is not behind, however long ago the last transaction was.
_POSTGRESQL: Final = sa.text("""
    select case when not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= pg_last_wal_receive_lsn() then 0
                else greatest(0, extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())) end
""")
#: Servers of either family know one of the two, or both.
_MYSQL: Final = (sa.text("show replica status"), sa.text("show slave status"))
_BEHIND: Final = ("Seconds_Behind_Source", "Seconds_Behind_Master")


def told(connection: sa.Connection, dialect: str) -> float | None:
    """Return the seconds a server is behind; 0 where it follows nobody, None where it can't say or may not be asked."""
    if dialect.startswith("postgresql"):
        seconds = connection.execute(_POSTGRESQL).scalar_one()
        return None if seconds is None else float(seconds)
    if dialect != "mysql":
        return None
    for statement in _MYSQL:
        with contextlib.suppress(sa.exc.DBAPIError):  # not its words, or this role may not ask
            row = connection.execute(statement).mappings().first()
            behind = 0.0 if row is None else next((row[name] for name in _BEHIND if name in row), None)
            return None if behind is None else float(behind)
    return None
