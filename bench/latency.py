"""Seconds from commit at the operator to visible in the store and accepted by the API, at a steady rate of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import psycopg

from connector import clock
from connector.demo.stage import Stage

if TYPE_CHECKING:
    import httpx

_EVERY_SECONDS: Final = 0.25
_LOOK_SECONDS: Final = 0.02
_LAST_SECONDS: Final = 30.0
#: A deposit of a player who is not excluded, final at once.
DEPOSIT: Final = """
    insert into casino.payments (
        user_id, account_id, action, amount_cents, currency, success, payment_system, psp_brand,
        created_at, updated_at, finished_at)
    select u.id, a.id, 'deposit', 1000, a.currency, true, 'card', 'probe',
        timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp()), timezone('UTC', clock_timestamp())
    from casino.users u join casino.accounts a on a.user_id = u.id and a.main
    where u.state = 'active' and u.cooling_off_until is null and a.currency = 'EUR'
      and not exists (select from casino.users_tags t where t.user_id = u.id)
    offset %s limit 1 returning id
"""
STORED: Final = """
    select e.key from crm.event_rows e join crm.event_streams s using (stream_id)
    where s.stream = 'deposits' and e.key = any(%s)
"""


def measure(*, rate: float, seconds: float) -> dict[str, float]:
    """Run the demo's casino at `rate`; make a deposit every quarter of a second, timed to the store and to the API."""
    with Stage(players=5_000, bets=20_000, rate=rate, tell=lambda _: None) as stage:
        stage.drain(60.0)
        to_store, to_api = _probe(stage, seconds)
    figures = {
        **{f"store_p{point}_seconds": percentile(to_store, point) for point in (50, 95)},
        **{f"api_p{point}_seconds": percentile(to_api, point) for point in (50, 95)},
        "probes": float(len(to_api)),
    }
    for name, value in figures.items():
        print(f"{name + ':':<22} {value:>10.2f}")
    return figures


def _probe(stage: Stage, seconds: float) -> tuple[list[float], list[float]]:
    """Return the seconds that each probe took to the store and to the API."""
    stored: dict[str, float] = {}
    accepted: dict[str, float] = {}
    born: dict[str, float] = {}
    started = next_at = clock.monotonic()
    after = 0
    with (
        psycopg.connect(stage.operator.admin_url) as operator,
        psycopg.connect(stage.store_url, autocommit=True) as store,
    ):
        while (now := clock.monotonic()) < started + seconds + _LAST_SECONDS:
            if now >= next_at and now < started + seconds:
                next_at += _EVERY_SECONDS
                row = operator.execute(DEPOSIT, (len(born) % 1000,)).fetchone()
                operator.commit()
                assert row is not None
                born[str(row[0])] = clock.monotonic()
            open_ = [key for key in born if key not in stored]
            stored |= {key: clock.monotonic() for (key,) in store.execute(STORED, (open_,))}
            after = _accepted(stage.api, after, accepted)
            if now > started + seconds and len(accepted.keys() & born) == len(born):
                break
            clock.sleep(_LOOK_SECONDS)
    missing = born.keys() - accepted.keys()
    assert not missing, f"{len(missing)} of {len(born)} probes never arrived"
    return [stored[key] - at for key, at in born.items()], [accepted[key] - at for key, at in born.items()]


def _accepted(api: httpx.Client, after: int, accepted: dict[str, float]) -> int:
    """Note the deposits that the API has accepted since the event numbered `after`; returns the newest number."""
    answer = api.get("/_control/events", params={"after": after, "limit": 1000}).json()
    for event in answer["events"]:
        after = max(after, event["seq"])
        if event["name"] == "deposit_confirmed":
            accepted.setdefault(event["attributes"]["transaction_id"], clock.monotonic())
    return after


def percentile(values: list[float], point: int) -> float:
    """Return the value below which `point` percent of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * point // 100)]
