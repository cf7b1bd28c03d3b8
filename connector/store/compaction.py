"""Files without remnants: what was erased is no row any more, and its bytes are still in pages and logs of writes.

PostgreSQL leaves a deleted row's bytes in the table's file, samples of values in its statistics, and both in the
write-ahead log until that is overwritten. Here those files are written anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable

#: Tables that hold, or held, what names a person.
TABLES: Final = (
    *("players", "player_contacts", "player_labels", "player_wallets", "quarantine", "dead_letters"),
    *("delivered_profiles",),
)
#: A table that is being written is waited for so long, with every writer behind us waiting too.
_WAIT: Final = "set lock_timeout = '5s'"
_SEGMENTS: Final = "select count(*) from pg_ls_waldir() where name > pg_walfile_name(pg_current_wal_lsn())"


def compact(connection: psycopg.Connection[Any], *, ledger: bool, tell: Callable[[str], None]) -> bool:
    """Rewrite every table that held personal data, and let go of the log of its writes; False: not everything.

    Each table is locked while it is written: a second for 100,000 players; the `ledger`, whose events carry names
    only where a view passes such columns through, a minute for ten millions. The log is ours to let go of where the
    role may: on the embedded server it may; on an operator's own, and in every backup, that is the operator's business.
    """
    connection.execute(_WAIT)
    connection.execute("set statement_timeout = 0")
    for table in (*TABLES, *(("event_rows",) if ledger else ())):
        try:
            connection.execute(f"vacuum (full, analyze) crm.{table}")
        except psycopg.errors.LockNotAvailable:
            tell(f"crm.{table} is in use: its file was left as it is; run `connector store compact` in a quiet minute")
            return False
    try:
        connection.execute("vacuum (full) pg_catalog.pg_statistic")
        _renew_log(connection)
    except psycopg.errors.InsufficientPrivilege:
        tell("the store's role may not renew statistics and write-ahead log: both lose the old values in time")
        return False
    return True


def _renew_log(connection: psycopg.Connection[Any]) -> None:
    """Write past every file of the log that may hold old values, and let none of them be kept for another use."""
    connection.execute("alter system set wal_recycle = off")
    connection.execute("alter system set min_wal_size = '32MB'")
    connection.execute("select pg_reload_conf()")
    try:
        connection.execute("checkpoint")
        (ahead,) = connection.execute(_SEGMENTS).fetchone() or (0,)
        for _ in range(int(ahead) + 1):
            connection.execute("select pg_logical_emit_message(false, 'connector', 'renewed')")
            connection.execute("select pg_switch_wal()")
        connection.execute("checkpoint")
        connection.execute("select pg_switch_wal()")
        connection.execute("checkpoint")
    finally:
        connection.execute("alter system reset wal_recycle")
        connection.execute("alter system reset min_wal_size")
        connection.execute("select pg_reload_conf()")
