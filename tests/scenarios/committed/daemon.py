"""The connector's side of a scenario: a real cycle over a real store, which fails where it is told to."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import psycopg

from connector import backfill, clock, config
from connector.cycle import Cycle, Result
from connector.errors import Transient
from connector.metrics import Metrics
from connector.money import Rates
from connector.player import MarketingRules
from connector.sources import DIALECTS
from connector.sources.reader import Reader
from connector.store import lease as leases
from connector.streams import STREAMS
from tests.scenarios.committed.tables import SECOND, written

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from connector.sources.dialect import Sample
    from connector.store.database import Database
    from tests.scenarios.committed.casino import Casino

#: How far a clock of the operator's may be ahead where progress is judged by rows.
TOLERANCE_SECONDS: Final = 5
Places = dict[str, tuple[int, tuple[str, ...]]]
_EMPTIED: Final = (
    *("player_changes", "player_money", "event_rows", "event_streams", "fx_pending", "checkpoints", "quarantine"),
    *("backfill_ranges", "leases", "players"),
)


class Killed(BaseException):
    """SIGKILL: nothing in the process gets to handle it. With a cause, it carries a scenario's own failure out."""


@dataclass
class Daemon:
    """One connector after the other over one store.

    A pass reaches a point whenever it asks the source for its state ("sample") or for rows ("fetch"), and at the end of
    each transaction ("commit"): `at_point` is called there.
    """

    casino: Casino
    store: Database
    at_point: Callable[[str], None] = lambda _: None
    cycle: Cycle | None = None
    told: bool = True
    numbered: bool = False
    _source: config.Source | None = None
    _metrics: Metrics = field(default_factory=Metrics)
    _sessions: list[psycopg.Connection[Any]] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Take time and the points of a pass in hand: all that is replaced of the product, in one place."""
        sample, held = Reader.sample, leases.assert_held
        dialect = type(DIALECTS[self.casino.operator.family])
        fetch = dialect.fetch

        def sample_in_our_time(reader: Reader) -> Sample:
            self.at_point("sample")
            self.casino.settle()
            progress = self.casino.progress * 1000 if self.told else None
            real = sample(reader)
            snapshot = real.snapshot if self.numbered else None
            return dataclasses.replace(real, clock=self.casino.time.now * 1000, progress=progress, snapshot=snapshot)

        def fetch_at_a_point(*arguments: Any, **limits: Any) -> Any:
            self.at_point("fetch")
            return fetch(*arguments, **limits)

        def held_at_a_point(connection: psycopg.Connection[Any], lease: leases.Lease) -> None:
            held(connection, lease)
            self.at_point("commit")

        patch.setattr(clock, "monotonic", self.casino.time.monotonic)
        patch.setattr(Reader, "sample", sample_in_our_time)
        patch.setattr(dialect, "fetch", fetch_at_a_point)
        patch.setattr(leases, "assert_held", held_at_a_point)

    def clear(self, *, streams: list[str], told: bool, numbered: bool, page_rows: int) -> None:
        """Start over with an empty store. `told`: the source knows its progress; `numbered`: its transactions too."""
        self.kill()
        self.told, self.numbered = told, numbered
        self._ask(";".join(f"delete from crm.{name}" for name in _EMPTIED))
        self._ask("insert into crm.tenants (tenant, base_currency) values ('t', 'EUR') on conflict do nothing")
        document = {
            "name": "casino",
            "url": self.casino.operator.url,
            "lateness": f"{self.casino.lateness // SECOND}s",
            "tolerance": f"{TOLERANCE_SECONDS}s",
            "page_rows": page_rows,
            "streams": {name: {"start": "beginning"} for name in streams},
        }
        self._source = config.parse({"sources": [document]}, streams=list(STREAMS)).sources[0]

    @property
    def ready(self) -> bool:
        """Return whether `clear` was called."""
        return self._source is not None

    def poll(self) -> Result | None:
        """Make one pass; None when it failed in a way that a connector survives, or dies of."""
        if self.cycle is None:
            assert self._source is not None
            self.cycle = Cycle("t", self._source, self.store, Rates("EUR", {}), MarketingRules(), self._metrics)
        try:
            result = self.cycle.run_once()
        except Transient:
            return None
        except Killed as killed:
            self.kill()
            if killed.__cause__ is not None:
                raise killed.__cause__ from None
            return None
        if self.cycle.failures or result.standby:  # no assertion: a broken connector that stands still is not found out
            raise RuntimeError(f"the connector stands still: {self.cycle.failures}")
        return result

    def kill(self) -> None:
        """Drop the cycle where it stands: the servers see its sockets close, nothing else."""
        cycle, self.cycle = self.cycle, None
        if cycle is not None and cycle.desk is not None:
            cycle.desk.connection.close()
            cycle.desk.reader.close()

    def stop(self) -> None:
        """Stop as for a restart."""
        cycle, self.cycle = self.cycle, None
        if cycle is not None:
            cycle.close()

    def close(self) -> None:
        """Close every session."""
        self.kill()
        for session in self._sessions:
            session.close()

    def fail(self, how: str) -> None:
        """Fail at a point: killed, refused by a store whose session lives on, or with that session lost.

        Nobody knows of a lost session whether the server had committed: both are tried.
        """
        if how == "kill":
            raise Killed
        if how == "refuse":
            raise psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")
        assert self.cycle is not None
        assert self.cycle.desk is not None
        connection = self.cycle.desk.connection
        if how == "commit and lose":
            connection.execute("commit")
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def undisturbed(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do something inside a pass. What goes wrong there is the scenario's failure, none that the pass survives."""
        try:
            act(*arguments)
        except Exception as error:
            raise Killed from error

    def backfill(self, stream: str, *, back: int, pages: int) -> None:
        """Read history again, since `back` seconds or ids ago, beside the running cycle; stop after some pages."""
        if self.cycle is None or self.cycle.desk is None:
            return
        newest = max((row.mark for row in self.casino.visible["casino_bets"].values()), default=0)
        since = str(max(0, newest - back)) if stream == "casino_bets" else written(self.casino.time.now - back * SECOND)
        reader, pulls = Reader(self.casino.operator.url, source="casino"), itertools.count()
        with self.store.connect() as connection:
            lease = backfill.take_lease(connection, "t", "casino", stream)
            desk = dataclasses.replace(self.cycle.desk, reader=reader, connection=connection, lease=lease)
            with contextlib.suppress(Transient):  # a standby may cancel what is read
                opened = backfill.open_stream(desk, stream)
                job = backfill.prepare(desk, opened, since=since, until=None)
                backfill.run(desk, opened, job, send_to={}, report=lambda _: None, stopped=lambda: next(pulls) >= pages)
            reader.close()
            leases.release(connection, lease)

    def sealed(self) -> Places:
        """Return the sealed position of every stream that has one."""
        query = "select stream, sealed_mark, sealed_key from crm.checkpoints where sealed_mark is not null"
        return {stream: (int(mark), tuple(key)) for stream, mark, key in self._ask(query)}

    def keys(self) -> Counter[tuple[str, str]]:
        """Return (stream, key) of every event of a transaction."""
        return Counter(self._ask("select stream, key from crm.events where stream <> 'user_profile'"))

    def profiles(self) -> dict[str, tuple[int, str]]:
        """Return (dt_update in nanoseconds, first name) of every player whose profile is known."""
        query = """
            select external_id, (extract(epoch from source_updated_at) * 1000000)::bigint * 1000, first_name
            from crm.players where not is_stub
        """
        return {user: (at, name) for user, at, name in self._ask(query)}

    def money(self) -> dict[str, tuple[int, ...]]:
        """Return cents deposited, natively and in base, their number, and the same of bets, of all who have any."""
        query = """
            select external_id, (deposited * 100)::bigint, total_deposited, m.deposit_count,
                   (wagered * 100)::bigint, total_wagered, m.bet_count, p.bet_count
            from crm.players p join crm.player_money m using (player_id)
        """
        return {user: tuple(sums) for user, *sums in self._ask(query)}

    def refused(self) -> list[tuple[Any, ...]]:
        """Return what went to quarantine."""
        return self._ask("select stream, reason, field, raw from crm.quarantine")

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        if not self._sessions:
            self._sessions.append(psycopg.connect(self.store.url, autocommit=True))
        cursor = self._sessions[0].execute(query.encode())
        return cursor.fetchall() if cursor.description else []
