"""THE transaction: one page in, all of it or nothing. The only place that writes events, players, totals and positions.

Order inside: the store's lock (so that `seq` is commit order and no reader can skip an event), players, events,
totals, rejections, the checkpoint, and last the lease, which a frozen process has lost by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import psycopg

from connector import clock, player
from connector.errors import Halted, Transient
from connector.event import REJECTIONS, empty
from connector.normalised import Normalised
from connector.store import (
    checkpoints,
    edges,
    erasures,
    labels,
    lease as leases,
    ledger,
    pending,
    players,
    profiles,
    quarantine,
    rates as timeline,
    reported,
    totals,
)
from connector.store.database import classify, first_line, ordered, preparing
from connector.store.draft import draft

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.contacts import Keys
    from connector.money import Rates
    from connector.store.checkpoints import Advance, Checkpoint
    from connector.store.draft import Draft
    from connector.store.lease import Lease

#: What a page's events touch is found by key. A plan that was made while a table was small, or not analysed yet, would
#: read it from end to end for each page, until autovacuum has come by.
_BY_KEY: Final = """
    set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
    set local jit = off
"""
#: ... but a page of more rows than this is worth plans of its own: the driver prepares nothing then. The server's own
#: setting for it would also plan anew what functions and foreign keys ask, for each player that the page touches.
_MANY: Final = 500
#: Serialization failures and deadlocks repeat the whole page at once; anything else is the caller's decision.
_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Batch:
    """What one page of one stream brought, and what the commit does to positions.

    `fresh`: no row at these positions was ever read before. `production`: read by the daemon's own tail or sweep, whose
    later snapshot wins for profiles. `after`: written in the same transaction (a backfill's range). `followed`: another
    page is on its way, so this one need not wait for the disk: a store that crashes loses the rows and the position
    together, and whatever a destination was sent of them was settled behind them. `drafted`: the draft of the events
    that it brought, where somebody has had the time to make it.
    """

    checkpoint: Checkpoint
    brought: Normalised = field(default_factory=Normalised)
    advance: Advance | None = None
    fresh: bool = False
    production: bool = True
    rows: int = 0
    after: Callable[[psycopg.Connection[Any]], None] | None = None
    followed: bool = False
    drafted: Draft | None = None


@dataclass(frozen=True)
class Committed:
    """What really changed: events inserted, players changed, rows that had changed under the same key."""

    events: int
    players: int
    changed: int


def commit(
    connection: psycopg.Connection[Any], batch: Batch, *, rates: Rates, lease: Lease, keys: Keys | None = None
) -> Committed:
    """Write one page. Called by poller, sweeper, backfill and retry with an autocommit connection of their own.

    `keys` are those of contacts; without them these are written as they came.

    Idempotent: the same page again inserts nothing. Nothing was written when it raises: LeaseLost; Transient (again
    later); Halted for a row that the store can't hold.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with preparing(connection, after=_prepared_after(connection, batch.brought)), connection.transaction():
                return _write(connection, batch, rates, lease, keys)
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
            if attempt == _ATTEMPTS - 1:
                raise Transient(f"the store kept refusing a page: {first_line(error)}") from error
        except psycopg.errors.ProgramLimitExceeded as error:
            raise Halted(f"the store can't hold a row: {first_line(error)}", hint="mend the row in the view") from error
        except psycopg.OperationalError as error:
            raise classify(error) from error
    raise AssertionError


def _prepared_after(connection: psycopg.Connection[Any], brought: Normalised) -> int | None:
    """Return how often a statement of this page is met before it is prepared; None: it never is (see _MANY)."""
    return None if max(brought.events.height, brought.profiles.height) > _MANY else connection.prepare_threshold


def _write(
    connection: psycopg.Connection[Any], batch: Batch, rates: Rates, lease: Lease, keys: Keys | None
) -> Committed:
    checkpoint, brought, changed_players = batch.checkpoint, batch.brought, 0
    ordered(connection)
    if batch.followed:
        connection.execute("set local synchronous_commit = off")
    if batch.advance is None:
        checkpoints.assert_current(connection, checkpoint)
    if brought.profiles.height:
        upserted = profiles.upsert(
            connection,
            checkpoint.tenant,
            brought.profiles,
            production=batch.production,
            at=clock.now(),
            keys=keys,
        )
        changed_players = upserted.changed
        pending.settle(connection, checkpoint.tenant, upserted.paid, rates)
        brought = replace(brought, events=pl.concat([brought.events, _profile_events(batch, upserted)]))
    if brought.labels.height:
        changed_players += labels.write(
            connection, checkpoint.tenant, brought.labels, production=batch.production, at=clock.now()
        )
    drafted = draft(brought, rates) if brought.profiles.height or batch.drafted is None else batch.drafted
    inserted, changed = (0, 0) if drafted is None else _write_events(connection, batch, drafted, rates)
    unrated = _write_facts(connection, batch, rates)
    quarantine.insert(connection, checkpoint, brought.rejections, keys)
    if batch.advance is not None:
        rewritten = batch.rows if batch.brought.understood > batch.brought.events.height else 0
        checkpoints.advance(connection, checkpoint, batch.advance, rows=inserted + rewritten)
    if batch.after is not None:
        batch.after(connection)
    quarantine.insert(connection, checkpoint, unrated, keys)  # last: a retry has just taken it out
    leases.assert_held(connection, lease)
    return Committed(inserted, changed_players, changed)


def _write_events(connection: psycopg.Connection[Any], batch: Batch, drafted: Draft, rates: Rates) -> tuple[int, int]:
    point = batch.checkpoint
    connection.execute(_BY_KEY)
    stream = ledger.StreamKey(point.tenant, point.source, point.stream, point.generation)
    known = players.accounts(connection, point.tenant, drafted.accounts)
    fresh = batch.fresh and not batch.brought.profiles.height
    written = ledger.insert(connection, stream, drafted, known, rates, fresh=fresh)
    totals.add(connection, written.rows, added=written.added)
    _note_payments(connection, point.tenant, written.rows)
    return written.rows.height, written.changed


def _write_facts(connection: psycopg.Connection[Any], batch: Batch, rates: Rates) -> pl.DataFrame:
    """Write what is neither event nor player; returns the rejections of what the store could not place."""
    checkpoint, brought = batch.checkpoint, batch.brought
    if brought.rates.height:
        origin = f"{checkpoint.source}.{checkpoint.stream}"
        timeline.insert(connection, checkpoint.tenant, brought.rates, rates, origin=origin)
    if brought.erasures.height:
        erasures.erase_all(connection, checkpoint.tenant, brought.erasures, clock.now())
    if brought.reported.height:
        return reported.apply(connection, checkpoint, brought.reported, rates)
    return empty(REJECTIONS)


def _note_payments(connection: psycopg.Connection[Any], tenant: str, rows: pl.DataFrame) -> None:
    """Mark the players whose payments a destination sees, and note when time will change what it sees."""
    if not rows["effect"].abs().is_between(1, 2).any():
        return
    payments = rows.filter(pl.col("effect").abs().is_between(1, 2))
    players.mark(connection, payments["player_id"].unique(maintain_order=True), "profile")
    listed = payments["player_id"].to_list(), payments["occurred_at"].to_list()
    edges.expect(connection, tenant, listed, clock.now())


def _profile_events(batch: Batch, upserted: profiles.Upserted) -> pl.DataFrame:
    """Events that the changed profiles mean; a registration before the first start is no sign-up."""
    since = pl.lit((batch.checkpoint.history_until or 0) // 1000).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return player.changes(upserted.before, upserted.profiles, live_since=since)
