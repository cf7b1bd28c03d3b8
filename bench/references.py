"""`COPY | COPY`: the most that the two servers can do, by two psql and a pipe, with nothing in between.

`reference` copies the view's columns into a table with a primary key and a unique key: what a plain copy tool would at
best reach. `ledger` copies the same rows, cut to what fits, into a table with the ledger's columns and indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from bench import processes
from connector.store import embedded

if TYPE_CHECKING:
    from bench.processes import Spent
    from bench.stand import Stand

_PIPE: Final = (
    '"$PSQL" -X -q -v ON_ERROR_STOP=1 -d "$FROM" -c "$READ" | "$PSQL" -X -q -v ON_ERROR_STOP=1 -d "$TO" -c "$WRITE"'
)
_TABLE: Final = """
    create table reference (
        id bigint primary key, ext_brand_id text, user_ext_id bigint, type text, bet_id bigint, round_id bigint,
        bet_date timestamp, bet_amount numeric, bet_amount_real numeric, bet_amount_bonus numeric, win_amount numeric,
        win_amount_real numeric, win_amount_bonus numeric, currency text, game_id text, game_name text,
        game_category text, game_provider text, unique (bet_id))
"""
_LEDGER: Final = "create table reference (like crm.event_rows including defaults including indexes)"
_LEDGER_COLUMNS: Final = (
    "player_id, occurred_at, amount_base, stream_id, name_id, effect, history, key, currency, amount, fx_rate_locked,"
    " mark, shape_id, packed"
)
_LEDGER_ROWS: Final = """
    select user_ext_id, bet_date, 100, 1, case type when 'bet' then 1 else 2 end, 3, true, id, currency,
           coalesce(bet_amount, win_amount), 1, id,
           1, concat_ws(chr(31), bet_id, round_id, game_id, game_name, game_category, game_provider,
                        coalesce(bet_amount_real, win_amount_real), coalesce(bet_amount_bonus, win_amount_bonus))
    from {view} order by id
"""


def reference(stand: Stand, store_url: str, name: str) -> Spent:
    """Copy the view's columns into a table with a primary key and a unique key."""
    return _copy(stand, store_url, name, _TABLE, "reference", "select * from {view} order by id")


def ledger(stand: Stand, store_url: str, name: str) -> Spent:
    """Copy the view's rows into the ledger's columns and indexes."""
    return _copy(stand, store_url, name, _LEDGER, f"reference ({_LEDGER_COLUMNS})", _LEDGER_ROWS)


def check(stand: Stand, store_url: str) -> None:
    """Raise AssertionError unless every row of the view has been copied."""
    with psycopg.connect(store_url) as connection:
        row = connection.execute("select count(*) from reference").fetchone()
    assert row == (stand.casino.counts()["casino_bets"],), row


def _copy(stand: Stand, store_url: str, name: str, ddl: str, target: str, rows: str) -> Spent:
    with psycopg.connect(store_url) as connection:
        connection.execute(ddl)
    environment = {
        "PSQL": str(embedded.binaries() / "bin" / "psql"),
        "FROM": stand.reader_url,
        "TO": store_url,
        "READ": f"copy ({rows.format(view=stand.casino.views['casino_bets'])}) to stdout",
        "WRITE": f"copy {target} from stdin",
    }
    command = ["bash", "-o", "pipefail", "-c", _PIPE]
    return processes.run(command, stand.root / f"{name}.log", servers=stand.pids, environment=environment)
