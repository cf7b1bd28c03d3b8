"""Events whose base amount had to wait: settled when their player's currency becomes known. Inside THE transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import AMOUNT, INSTANT
from connector.store import totals
from connector.store.ledger import priced

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from connector.money import Rates

_SELECT: Final = """
    select e.seq, e.player_id, n.name, p.default_currency_code, e.effect, e.amount::text, e.stake::text, e.occurred_at
    from crm.fx_pending w join crm.event_rows e using (seq, player_id) join crm.players p using (player_id)
    join crm.event_names n using (name_id)
    where w.player_id = any(%s) and e.currency is null and p.default_currency_code is not null
    order by e.seq
"""
_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "seq": pl.Int64,
    "player_id": pl.Int64,
    "name": pl.String,
    "currency": pl.String,
    "effect": pl.Int16,
    "native": pl.String,
    "native_stake": pl.String,
    "occurred_at": INSTANT,
}
_UPDATE: Final = """
    update crm.event_rows e
    set currency = s.currency, amount_base = s.base, stake_base = s.stake_base, fx_rate_locked = s.rate
    from unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::numeric[])
      as s(seq, currency, base, stake_base, rate)
    where e.seq = s.seq
"""


def settle(connection: psycopg.Connection[Any], player_ids: Sequence[int], rates: Rates) -> int:
    """Give events of players whose profile has just arrived their currency, base amount and place in the totals.

    Returns how many got a currency; those of a currency without a rate go on waiting for their base amount.
    """
    if not player_ids:
        return 0
    rows = connection.execute(_SELECT, (list(player_ids),)).fetchall()
    if not rows:
        return 0
    frame = pl.DataFrame(rows, schema=_SCHEMA, orient="row").with_columns(pl.col("native", "native_stake").cast(AMOUNT))
    settled = priced(frame, rates)
    columns = ("seq", "currency", "amount_base", "stake_base", "fx_rate_locked")
    connection.execute(_UPDATE, tuple(settled[name].to_list() for name in columns))
    totals.add(connection, settled)
    done = settled.filter(pl.col("amount_base").is_not_null() | pl.col("play"))["seq"].to_list()
    connection.execute("delete from crm.fx_pending where seq = any(%s)", (done,))
    return settled.height
