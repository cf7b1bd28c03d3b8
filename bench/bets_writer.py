"""Commits bets at a steady rate, a statement every 50 ms: what other players do while one is looked at.

A process of its own (`python -m bench.bets_writer RATE SECONDS`, the owner's URL in URL), so that whoever measures is
not slowed down by it. Prints how many bets it has committed.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import psycopg

from connector import clock

_BEAT_SECONDS: Final = 0.05
#: A bet of as many players: of those who played before, in the same rounds, a different stretch of them each time.
_BETS: Final = """
    insert into casino.balance_transactions (account_id, reference_type, reference_id, action, amount_cents, created_at)
    select account_id, reference_type, reference_id, 'bet', -100, timezone('UTC', clock_timestamp())
    from casino.balance_transactions
    where reference_type = 'CasinoGame' and id > %s order by id limit %s
"""
_PLACES: Final = 10_000


def main() -> None:
    """Commit bets until the time is up."""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    started, beat, committed = clock.monotonic(), 0, 0
    with psycopg.connect(os.environ["URL"], autocommit=True) as connection:
        while (elapsed := clock.monotonic() - started) < seconds:
            rows = int(elapsed * rate) - committed
            if rows > 0:
                connection.execute(_BETS, (committed % _PLACES, rows))
                committed += rows
            beat += 1
            clock.sleep(max(0.0, started + beat * _BEAT_SECONDS - clock.monotonic()))
    sys.stdout.write(f"{committed}\n")


if __name__ == "__main__":
    main()
