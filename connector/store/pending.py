"""Events whose base amount had to wait: settled once, when their player's currency or a rate becomes known.

What a page of profiles makes known is settled with it, as far as it is little; the rest, and what rates make known, in
pieces of one transaction each (see connector.settler).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from connector.event import AMOUNT, INSTANT
from connector.store import lease as leases, player_days, players, totals
from connector.store.database import ordered
from connector.store.rates import priced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    from connector.money import Rates
    from connector.store.lease import Lease

#: Events that are settled in one transaction: it holds up every writer meanwhile.
PIECE: Final = 5_000
#: Players who are looked at together when too much waited for their currency.
_PLAYERS: Final = 200
_COLUMNS: Final = "w.seq, w.player_id, n.name, {currency}, e.effect, e.amount::text, e.stake::text, e.occurred_at"
_JOINED: Final = """
    from crm.fx_pending w join crm.event_rows e using (seq) join crm.event_names n using (name_id)
    join crm.players p on p.player_id = w.player_id
"""
_OF_PLAYERS: Final = f"""
    select {_COLUMNS.format(currency="p.default_currency_code")} {_JOINED}
    where w.player_id = any(%s) and w.currency is null and p.default_currency_code is not null limit %s
"""
_OF_CURRENCY: Final = f"""
    select {_COLUMNS.format(currency="w.currency")} {_JOINED}
    where w.tenant = %s and w.currency = %s and w.occurred_at >= coalesce(%s::timestamptz, '-infinity')
    order by w.occurred_at limit %s
"""
#: Currencies that events wait for, one index probe each, and of those the ones that have a rate for some of them.
_DUE: Final = """
    with recursive waiting(currency) as (
        (select currency from crm.fx_pending where tenant = %(tenant)s and currency is not null
         order by currency limit 1)
        union all
        select (select p.currency from crm.fx_pending p where p.tenant = %(tenant)s and p.currency > w.currency
                order by p.currency limit 1)
        from waiting w where w.currency is not null
    )
    select w.currency, case when w.currency = any(%(constant)s) then null else r.since end
    from waiting w
    left join lateral (
        select min(valid_from) as since from crm.fx_rates
        where tenant = %(tenant)s and base = %(base)s and currency = w.currency) r on true
    where w.currency is not null and (w.currency = any(%(constant)s) or exists (
        select from crm.fx_pending p
        where p.tenant = %(tenant)s and p.currency = w.currency and p.occurred_at >= r.since))
    limit 1
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
    where e.seq = s.seq and e.fx_rate_locked is null
"""
_GO_ON: Final = """
    update crm.fx_pending w set currency = s.currency from unnest(%s::bigint[], %s::text[]) as s(seq, currency)
    where w.seq = s.seq
"""


def settle(connection: psycopg.Connection[Any], tenant: str, player_ids: Sequence[int], rates: Rates) -> int:
    """Give events of players whose profile has just arrived their currency, base amount and place in the totals.

    Inside THE transaction, and no more of them than that is good for: `settle_due` does the rest. Returns how many got
    a currency; those of a currency without a rate go on waiting for their base amount.
    """
    if not player_ids:
        return 0
    frame = _frame(connection.execute(_OF_PLAYERS, (list(player_ids), PIECE)))
    _settle(connection, tenant, frame, rates, base_only=False)
    if frame.height == PIECE:
        connection.execute(
            "insert into crm.fx_due (player_id, tenant) select unnest(%s::bigint[]), %s on conflict do nothing",
            (list(player_ids), tenant),
        )
    return frame.height


def settle_due(connection: psycopg.Connection[Any], tenant: str, rates: Rates, lease: Lease) -> bool:
    """Settle a piece of what has waited and need wait no more, in a transaction; False: nothing was there to settle.

    Idempotent; nothing was written when it raises LeaseLost.
    """
    with connection.transaction():
        if not _is_due(connection, tenant, rates):
            return False
        ordered(connection)
        due = _currency_due(connection, tenant, rates)
        done = _settle_currency(connection, tenant, due, rates) if due else _settle_players(connection, tenant, rates)
        leases.assert_held(connection, lease)
    return done


def waiting(connection: psycopg.Connection[Any], tenant: str) -> dict[str, int]:
    """Return how many events wait, by currency; 'unknown': their players' currency is not known yet."""
    rows = connection.execute(
        "select coalesce(currency, 'unknown'), count(*) from crm.fx_pending where tenant = %s group by 1 order by 1",
        (tenant,),
    )
    return {currency: int(count) for currency, count in rows}


def _is_due(connection: psycopg.Connection[Any], tenant: str, rates: Rates) -> bool:
    """Look without the lock that holds up all writers: mostly nothing waits."""
    row = connection.execute("select exists (select from crm.fx_due where tenant = %s)", (tenant,)).fetchone()
    return bool(row and row[0]) or _currency_due(connection, tenant, rates) is not None


def _currency_due(connection: psycopg.Connection[Any], tenant: str, rates: Rates) -> tuple[str, datetime | None] | None:
    """Return a currency some of whose events have a rate by now, and from when on; None: since ever."""
    values = {"tenant": tenant, "base": rates.base, "constant": [*rates.constant, *rates.play]}
    row = connection.execute(_DUE, values).fetchone()
    return None if row is None else (row[0], row[1])


def _settle_currency(
    connection: psycopg.Connection[Any], tenant: str, due: tuple[str, datetime | None], rates: Rates
) -> bool:
    frame = _frame(connection.execute(_OF_CURRENCY, (tenant, *due, PIECE)))
    return _settle(connection, tenant, frame, rates, base_only=True) > 0


def _settle_players(connection: psycopg.Connection[Any], tenant: str, rates: Rates) -> bool:
    rows = connection.execute(
        "select player_id from crm.fx_due where tenant = %s limit %s", (tenant, _PLAYERS)
    ).fetchall()
    ids = [player_id for (player_id,) in rows]
    frame = _frame(connection.execute(_OF_PLAYERS, (ids, PIECE)))
    _settle(connection, tenant, frame, rates, base_only=False)
    if frame.height < PIECE:
        connection.execute("delete from crm.fx_due where player_id = any(%s)", (ids,))
    return bool(ids)


def _settle(
    connection: psycopg.Connection[Any], tenant: str, frame: pl.DataFrame, rates: Rates, *, base_only: bool
) -> int:
    """Lock rates, complete events and totals, and return how many wait no more.

    What has a rate and still no base amount (it would not fit) waits for nothing that could come.
    """
    if frame.is_empty():
        return 0
    settled = priced(connection, tenant, frame, rates)
    columns = ("seq", "currency", "amount_base", "stake_base", "fx_rate_locked")
    connection.execute(_UPDATE, tuple(settled[name].to_list() for name in columns))
    totals.add(connection, settled, base_only=base_only)
    player_days.settle(connection, settled, base_only=base_only)
    over = pl.col("rate").is_not_null() | pl.col("play")
    done = settled.filter(over)
    connection.execute("delete from crm.fx_pending where seq = any(%s)", (done["seq"].to_list(),))
    if not base_only and done.height < settled.height:
        left = settled.filter(~over)
        connection.execute(_GO_ON, (left["seq"].to_list(), left["currency"].to_list()))
    changed = done.filter(pl.col("amount_base").is_not_null()) if base_only else settled  # native sums grew too
    paid = changed.filter(pl.col("effect").abs().is_in([1, 2]))
    players.mark(connection, paid["player_id"].unique().sort(), "profile")
    return done.height


def _frame(cursor: psycopg.Cursor[Any]) -> pl.DataFrame:
    frame = pl.DataFrame(cursor.fetchall(), schema=_SCHEMA, orient="row")
    return frame.with_columns_seq(pl.col("native", "native_stake").cast(AMOUNT))
