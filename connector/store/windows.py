"""What players' payments come to at one moment (see connector.payments), read from the ledger when it is asked for.

So it is never stale. Business time decides (`transaction_date`), whenever the row arrived.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from connector.payments import LIFETIME, TOTAL, WINDOWS, Kind, Payments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

#: Window -> the condition of a payment in it; a trailing one is N times 24 hours.
_WINDOWS: Final = dict(
    zip(
        WINDOWS,
        (
            "e.occurred_at >= d.since and e.occurred_at < d.until",
            "e.occurred_at > %(at)s::timestamptz - interval '168 hours'",
            "e.occurred_at > %(at)s::timestamptz - interval '720 hours'",
            "true",
        ),
        strict=True,
    )
)
_SUMS: Final = ", ".join(
    f"sum(sign(e.effect)::int * {value}) filter (where {condition})"
    for condition in _WINDOWS.values()
    for value in ("1", "e.amount", "e.amount_base")
)
_RECENT: Final = f"""
    select e.player_id, abs(e.effect), e.currency, e.currency = any(t.play_currencies), {_SUMS}
    from crm.tenants t
    cross join lateral (
        select date_trunc('day', %(at)s::timestamptz at time zone t.reporting_timezone) as today) local
    cross join lateral (
        select (local.today - interval '1 day') at time zone t.reporting_timezone as since,
               local.today at time zone t.reporting_timezone as until) d
    join crm.event_rows e on e.player_id = any(%(players)s) and e.effect in (-2, -1, 1, 2) and e.currency is not null
     and e.occurred_at > %(at)s::timestamptz - interval '2160 hours' and e.occurred_at <= %(at)s
    where t.tenant = %(tenant)s
    group by 1, 2, 3, 4
"""
_LIFETIME: Final = """
    select player_id, currency, deposit_count, deposited, withdrawal_count, withdrawn from crm.player_money
    where player_id = any(%(players)s)
"""
_LAST: Final = """
    select p.player_id, e.amount_base
    from crm.players p
    cross join lateral (
        select amount_base from crm.event_rows e
        where e.player_id = p.player_id and e.effect in (-2, -1, 1, 2) and e.effect = 1
        order by occurred_at desc, seq desc limit 1
    ) e
    where p.player_id = any(%(players)s)
"""


def payments(
    connection: psycopg.Connection[Any], tenant: str, player_ids: Sequence[int], at: datetime, *, places: int
) -> dict[int, Payments]:
    """Return the payments of each of these players as they stand at `at`; `places`: decimals of the base currency.

    TOTAL over a lifetime stands in crm.players (total_deposited, deposit_count, ...), since the operator's own word on
    it may count there.
    """
    found = {player_id: Payments() for player_id in player_ids}
    if not found:
        return found
    values = {"tenant": tenant, "players": list(player_ids), "at": at}
    subunit = Decimal(1).scaleb(-places)
    for player_id, code, currency, play, *sums in connection.execute(_RECENT, values):
        for index, window in enumerate(_WINDOWS):
            count, native, base = sums[3 * index : 3 * index + 3]
            kind: Kind = "deposit" if code == 1 else "cashout"
            found[player_id].add(kind, window, currency, count or 0, native or Decimal(0))
            if not play:
                found[player_id].add(kind, window, TOTAL, count or 0, (base or Decimal(0)) * subunit)
    for player_id, currency, deposits, deposited, withdrawals, withdrawn in connection.execute(_LIFETIME, values):
        found[player_id].add("deposit", LIFETIME, currency, deposits, deposited)
        found[player_id].add("cashout", LIFETIME, currency, withdrawals, withdrawn)
    for player_id, amount in connection.execute(_LAST, values):
        found[player_id].last_deposit = None if amount is None else amount * subunit
    return found
