"""Live traffic: the casino's life over three connections, two of them for late transactions, and the thread of it.

Owns connections, transactions and the beat. It draws nothing and holds no SQL of happenings: see stories.py and
ledger.py. A late transaction writes its rows at once and commits seconds later, so that its ids and stamps are older
than rows that readers have already seen.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg

from connector import clock
from connector.demo.ledger import Ids
from connector.demo.life import Life
from connector.demo.player import Player, Wallet

if TYPE_CHECKING:
    from connector.demo.ledger import Story

_BEAT_SECONDS: Final = 0.05
_LATE_CONNECTIONS: Final = 2
_PLAYERS: Final = 6_000
#: A statement that waits longer has met somebody else's lock: better an error than a casino that stands still.
_OPTIONS: Final = "-c lock_timeout=5s -c statement_timeout=30s -c synchronous_commit=local"

_AWAKE: Final = """
select
    u.id, p.first_name, p.city, p.country,
    case
        when coalesce(d.largest, 0) > 50000 then 'whale'
        when coalesce(d.largest, 0) >= 15000 then 'vip'
        when d.count >= 2 then 'regular'
        else 'casual'
    end,
    u.kyc_status = 'verified', a.id, a.currency, a.amount_cents, f.id, f.amount_cents
from casino.users as u
join casino.profiles as p on p.user_id = u.id
join casino.accounts as a on a.user_id = u.id and a.main
left join casino.accounts as f on f.user_id = u.id and f.currency = 'FUN'
left join (
    select user_id, count(*) as count, max(amount_cents) filter (where currency in ('EUR', 'GBP')) as largest
    from casino.payments where action = 'deposit' and success group by user_id
) as d on d.user_id = u.id
where u.state = 'active' and u.cooling_off_until is null
order by hashint8extended(u.id, %(seed)s)
limit %(players)s
"""


@dataclass(slots=True)
class _Late:
    """A connection for late transactions: the story that waits for its commit, and when that is due."""

    connection: psycopg.Connection
    story: Story[object] | None = None
    due: float = 0.0


class Floor:
    """The casino's open floor: `beat` writes what has happened since the last one, in a time that the caller keeps.

    One thread calls it. The same casino, `seed` and beats live through the same. `life` tells what has happened,
    `written` how many rows were written for the views, late ones included. Close it.
    """

    def __init__(self, url: str, *, rate: float, seed: int) -> None:
        self._main = _connect(url, autocommit=True)
        self.life = Life(
            _awake(self._main, seed=seed),
            ids=Ids(self._main),
            rate=rate,
            seed=seed,
            today=clock.now().date(),
            holds=_LATE_CONNECTIONS,
        )
        self._late = [_Late(_connect(url, autocommit=False)) for _ in range(_LATE_CONNECTIONS)]
        self.written = 0

    def beat(self, now: float) -> None:
        """Write everything that is due at `now`, in seconds since the start; late transactions open and commit."""
        self._commit(due=now)
        batch, holds = self.life.advance(now)
        with self._main.transaction():
            self.written += batch.write(self._main)
        for hold, story in holds:
            free = next(one for one in self._late if one.story is None)
            self.written += hold.batch.write(free.connection)
            free.story, free.due = story, now + hold.seconds

    def end(self) -> None:
        """Commit what is still open."""
        self._commit(due=math.inf)

    def close(self) -> None:
        """Close the connections, which rolls back what is open; idempotent."""
        for connection in (self._main, *(one.connection for one in self._late)):
            connection.close()

    def _commit(self, *, due: float) -> None:
        for one in self._late:
            if one.story is not None and one.due <= due:
                one.connection.commit()
                self.life.resume(one.story)
                one.story = None


class Traffic:
    """The casino's traffic, `rate` rows a second over all views; `seed` decides who does what.

    `start` and `stop` are called once each, by one thread. When `stop` returns, nothing of this traffic will commit any
    more. `failed` holds the exception that ended the thread, `recent` the latest happenings as sentences for
    people, newest last: the thread appends to it.
    """

    def __init__(self, url: str, *, rate: float = 250.0, seed: int = 7) -> None:
        self._url = url
        self._rate = rate
        self._seed = seed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.recent: deque[str] = deque()
        self.failed: Exception | None = None

    def start(self) -> None:
        """Connect, wake the players and begin."""
        floor = Floor(self._url, rate=self._rate, seed=self._seed)
        self.recent = floor.life.recent
        self._thread = threading.Thread(target=self._guard, args=(floor,), name="casino", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit what is open and end; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _guard(self, floor: Floor) -> None:
        try:
            started = clock.monotonic()
            while not self._stop.wait(_BEAT_SECONDS):
                floor.beat(clock.monotonic() - started)
            floor.end()
        except Exception as error:  # noqa: BLE001 - whoever watches `failed` decides
            self.failed = error
        finally:
            floor.close()


def _connect(url: str, *, autocommit: bool) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=autocommit, options=_OPTIONS, application_name="casino", connect_timeout=10)


def _awake(connection: psycopg.Connection, *, seed: int) -> list[Player]:
    parameters = {"seed": seed, "players": _PLAYERS}
    rows = connection.execute(_AWAKE, parameters).fetchall()
    return [
        Player(
            id=row[0],
            first_name=row[1],
            city=row[2],
            country=row[3],
            level=row[4],
            verified=row[5],
            wallet=Wallet(row[6], row[7], row[8]),
            fun=None if row[9] is None else Wallet(row[9], "FUN", row[10]),
        )
        for row in rows
    ]
