"""The daemon dies at random points under load; afterwards nothing is lost, nothing is doubled, and the money is right."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from connector import clock
from connector.demo.stage import Sight, Stage
from tests.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS = 8
#: Deposits that come while the daemon is at work: on a slow machine it may have died eight times before the first.
LIVE = 10
pytestmark = pytest.mark.timeout(300)  # set-up, kills and catching up on a slow machine
RATES = {"EUR": Decimal(1), "GBP": Decimal("1.17"), "TRX": Decimal("0.25"), "BTC": Decimal(60_000)}
KEYS = {
    "deposits": "transaction_id::text",
    "withdrawals": "transaction_id::text || '|' || withdrawal_status",
    "casino_bets": "id::text",
    "sport_bet_open": "id::text",
    "sport_bet_selection_open": "id::text",
    "sport_bet_settled": "id::text",
    "sport_bet_selection_settled": "id::text",
    "failed_deposits": "transaction_id::text",
    "bonuses": "id::text",
}
MONEY = """
    select user_ext_id::text, currency, case when is_rollback then -deposit_amount else deposit_amount end, 'deposited'
    from crm_export.deposits where dt_finalized is not null
    union all
    select user_ext_id::text, currency,
        case withdrawal_status when 'REVERSED' then -withdrawal_amount else withdrawal_amount end, 'withdrawn'
    from crm_export.withdrawals where withdrawal_status in ('COMPLETED', 'REVERSED')
    union all
    select user_ext_id::text, currency,
        case when type like 'rollback%' then -1 else 1 end * case when type like '%bet' then bet_amount else win_amount end,
        case when type like '%bet' then 'wagered' else 'won' end
    from crm_export.casino_bets
    union all
    select user_ext_id::text, currency, bet_amount, 'wagered' from crm_export.sport_bet_open
    union all
    select user_ext_id::text, currency,
        case when is_rollback then -1 else 1 end * case bet_status when 'VOID' then -bet_amount else win_amount end,
        case bet_status when 'VOID' then 'wagered' else 'won' end
    from crm_export.sport_bet_settled
"""


@pytest.fixture(scope="module")
def aftermath() -> Iterator[tuple[Stage, Sight, dict[str, Any]]]:
    """A casino whose daemon was killed KILLS times while it worked, then left alone until it had caught up."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with Stage(players=2_000, bets=30_000, rate=400, tell=print) as stage:
        for _ in range(KILLS):
            moment = clock.monotonic() + rng.uniform(0.3, 2.0)
            while clock.monotonic() < moment:  # any moment of its start, its reading or its sending will do
                clock.sleep(0.01)
            stage.kill_daemon()
            stage.start_daemon()
        until(lambda: len(_live_deposits(stage)) > LIVE, what="deposits of now are in the store", seconds=90)
        sight, status = stage.settle(90)
        yield stage, sight, status


def test_the_store_has_every_row_of_the_replica_exactly_once(aftermath: tuple[Stage, Sight, dict[str, Any]]) -> None:
    """Keys are compared one by one, not counted."""
    stage, _, status = aftermath
    assert {name: row["state"] for name, row in status["streams"].items()} == dict.fromkeys(
        status["streams"], "running"
    )
    with psycopg.connect(stage.operator.admin_url) as operator, psycopg.connect(stage.store_url) as store:
        for stream, key in KEYS.items():
            cursor = "id" if key == "id::text" else "dt_finalized"
            there = Counter(
                row[0] for row in operator.execute(f"select {key} from crm_export.{stream} where {cursor} is not null")
            )
            here = Counter(row[0] for row in store.execute("select key from crm.events where stream = %s", (stream,)))
            assert here == there, stream
        users = {row[0] for row in operator.execute("select user_ext_id::text from crm_export.user_profile")}
        players = [row[0] for row in store.execute("select external_id from crm.players where not is_stub")]
        assert Counter(players) == Counter(users)


def test_totals_equal_an_independent_sum(aftermath: tuple[Stage, Sight, dict[str, Any]]) -> None:
    """Native totals by player and currency, base totals by player, computed from the views in decimals."""
    stage, _, _ = aftermath
    native: dict[tuple[str, str], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    base: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with psycopg.connect(stage.operator.admin_url) as operator, psycopg.connect(stage.store_url) as store:
        for user, currency, amount, effect in operator.execute(MONEY):
            native[user, currency][effect] += amount
            if currency in RATES:
                cents = (abs(amount) * RATES[currency]).quantize(Decimal("0.01"), ROUND_HALF_EVEN) * 100
                base[user][effect] += int(cents if amount >= 0 else -cents)
        columns = ("deposited", "withdrawn", "wagered", "won")
        for user, currency, *sums in store.execute(
            "select external_id, currency, deposited, withdrawn, wagered, won from crm.player_money join crm.players using (player_id)"
        ):
            expected = native.pop((user, currency), {})
            assert [expected.get(name, Decimal()) for name in columns] == sums, (user, currency)
        assert not any(any(sums.values()) for sums in native.values())
        for user, *sums in store.execute(
            "select external_id, total_deposited, total_withdrawn, total_wagered, total_won from crm.players"
        ):
            assert [base[user][name] for name in columns] == sums, user


def test_the_api_accepted_every_live_deposit_of_a_marketable_player_once(
    aftermath: tuple[Stage, Sight, dict[str, Any]],
) -> None:
    """A resend after a kill carries the id it had before, so the API counts no deposit twice."""
    stage, _, status = aftermath
    assert status["destinations"]["customerio"]["pending"] == 0
    accepted = []
    after: int | None = 0
    while after is not None:
        answer = stage.api.get(
            "/_control/events", params={"after": after, "limit": 1000, "name": "deposit_confirmed"}
        ).json()
        accepted += [event["attributes"]["transaction_id"] for event in answer["events"]]
        after = answer["next"]
    assert len(accepted) == len(set(accepted))
    missing = _live_deposits(stage) - set(accepted)
    assert len(missing) == 0 or all(_was_excluded(stage, transaction) for transaction in missing)


def _live_deposits(stage: Stage) -> set[str]:
    """Return the deposits of now, of players who may be told of them: what was there at the first start is history."""
    with psycopg.connect(stage.store_url) as store:
        return {
            row[0]
            for row in store.execute(
                """
                select transaction_id from crm.events e join crm.players p using (player_id)
                where name = 'deposit_confirmed' and not history and marketable
                """
            )
        }


def _was_excluded(stage: Stage, transaction: str) -> bool:
    """A player excluded when its deposit's turn came, and marketable again since, got none of that event."""
    with psycopg.connect(stage.store_url) as store:
        row = store.execute(
            """
            select count(*) from crm.events e join crm.events x using (player_id)
            where e.transaction_id = %s and x.name like 'self_exclusion%%'
            """,
            (transaction,),
        ).fetchone()
    return row is not None and row[0] > 0
