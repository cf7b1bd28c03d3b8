"""Live traffic: one thread drives the casino's life over three connections, two of them for late transactions.

Owns connections, transactions and the beat. It draws nothing and holds no SQL of happenings: see stories.py and
ledger.py. A late transaction writes its rows at once and commits seconds later, so that its ids and stamps are older
than rows that readers have already seen.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import psycopg

from connector import clock
from connector.demo.ledger import Ids
from connector.demo.life import Life
from connector.demo.player import Player, Wallet

if TYPE_CHECKING:
    from collections import Counter, deque

    from connector.demo.ledger import Hold, Story

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


class Traffic:
    """The casino's traffic, `rate` rows a second over all views; `seed` decides who does what.

    `start` and `stop` are called once each, by one thread. When `stop` returns, nothing of this traffic will commit any
    more. `failed` holds the exception that ended the thread, `recent` the latest happenings as sentences for people,
    `happened` how often each kind has happened, `written` how many rows the views have shown.
    """

    def __init__(self, url: str, *, rate: float = 250.0, seed: int = 7) -> None:
        self._url = url
        self._rate = rate
        self._seed = seed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._life: Life | None = None
        self.failed: Exception | None = None
        self.written = 0

    @property
    def recent(self) -> deque[str]:
        """Return the latest happenings, newest last; another thread appends to it."""
        return self._started().recent

    @property
    def happened(self) -> Counter[str]:
        """Return the number of happenings by kind, so far."""
        return self._started().happened.copy()

    def start(self) -> None:
        """Connect, wake the players and begin."""
        main = self._connect(autocommit=True)
        life = Life(
            _awake(main, seed=self._seed),
            ids=Ids(main),
            rate=self._rate,
            seed=self._seed,
            today=clock.now().date(),
            holds=_LATE_CONNECTIONS,
        )
        late = [_Late(self._connect(autocommit=False)) for _ in range(_LATE_CONNECTIONS)]
        self._life = life
        self._thread = threading.Thread(target=self._guard, args=(life, main, late), name="casino", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Commit what is open and end; idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _started(self) -> Life:
        if self._life is None:
            raise RuntimeError("the traffic has not been started")
        return self._life

    def _connect(self, *, autocommit: bool) -> psycopg.Connection:
        return psycopg.connect(
            self._url, autocommit=autocommit, options=_OPTIONS, application_name="casino", connect_timeout=10
        )

    def _guard(self, life: Life, main: psycopg.Connection, late: list[_Late]) -> None:
        try:
            self._run(life, main, late)
        except Exception as error:  # noqa: BLE001 - whoever watches `failed` decides
            self.failed = error
        finally:
            for connection in (main, *(one.connection for one in late)):
                connection.close()  # rolls back what is open

    def _run(self, life: Life, main: psycopg.Connection, late: list[_Late]) -> None:
        started = clock.monotonic()
        while not self._stop.wait(_BEAT_SECONDS):
            now = clock.monotonic() - started
            for one in late:
                if one.story is not None and one.due <= now:
                    self._commit(life, one)
            batch, holds = life.advance(now)
            with main.transaction():
                self.written += batch.write(main)
            for hold, story in holds:
                self._hold(hold, story, free=next(one for one in late if one.story is None), now=now)
        for one in late:
            if one.story is not None:
                self._commit(life, one)

    def _hold(self, hold: Hold, story: Story[object], *, free: _Late, now: float) -> None:
        self.written += hold.batch.write(free.connection)
        free.story, free.due = story, now + hold.seconds

    def _commit(self, life: Life, one: _Late) -> None:
        one.connection.commit()
        assert one.story is not None
        life.resume(one.story)
        one.story = None


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
