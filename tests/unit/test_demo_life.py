"""The demo casino's course of events without a database: pace, order, and one story at a time for each player."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import pytest

from connector.demo import games
from connector.demo.life import Life, pace
from connector.demo.player import Player, Wallet

if TYPE_CHECKING:
    from connector.demo.ledger import Story

TODAY: Final = dt.date(2026, 5, 4)


class Numbers:
    """Ids without a database."""

    def __init__(self) -> None:
        self._next: dict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1000))

    def take(self, table: str) -> int:
        """See IdSource."""
        return next(self._next[table])

    draw = take


def people(count: int) -> list[Player]:
    """Return `count` players with some money, every fourth unverified."""
    return [
        Player(
            id=n, first_name="Mia", city="Hamburg", country="DE", level="casual", verified=n % 4 > 0,
            wallet=Wallet(n, "EUR", 10_000),
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


def run(life: Life, *, seconds: float) -> list[tuple[str, tuple[Any, ...]]]:
    """Let time pass in beats; commit what is held with the beat after it is due. Return all rows in order."""
    rows: list[tuple[str, tuple[Any, ...]]] = []
    held: list[tuple[float, Story[object]]] = []
    now = 0.0
    while now < seconds:
        now += 0.05
        for item in [item for item in held if item[0] <= now]:
            held.remove(item)
            life.resume(item[1])
        batch, holds = life.advance(now)
        held += [(now + hold.seconds, story) for hold, story in holds]
        for one in (batch, *(hold.batch for hold, _ in holds)):
            rows += [(name, row) for name, added in one.rows.items() for row in added]
    return rows


def test_same_seed_same_course() -> None:
    """Two casinos with one seed live through the same."""
    first, second = (run(Life(people(800), ids=Numbers(), rate=200, seed=3, today=TODAY), seconds=5) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("rate", [50.0, 250.0, 600.0])
def test_rate_is_kept(rate: float) -> None:
    """After the doors have opened, bets and wins come at about the rate asked for."""
    rows = run(Life(people(4000), ids=Numbers(), rate=rate, seed=1, today=TODAY), seconds=13)
    a_second = sum(name == "transactions" for name, _ in rows) / 13

    assert 0.8 * rate < a_second < 1.3 * rate


def test_small_casino_plays_faster() -> None:
    """With few players there are fewer sessions with shorter thoughts, not a lower rate."""
    assert pace(200, eligible=100) == (50, 50 / 426)
    assert pace(200, eligible=10_000) == (426, 1.0)
    assert pace(0.1, eligible=1) == (1, 1.0)


def test_every_kind_of_row_is_written() -> None:
    """A minute is enough for every statement of the ledger but those that need a database."""
    life = Life(people(2000), ids=Numbers(), rate=400, seed=2, today=TODAY)
    kinds = Counter(name for name, _ in run(life, seconds=60))

    assert {"logins", "exclusions", "cool_offs", "verifications", "chargebacks", "transitions", "users"} <= kinds.keys()
    assert {"sport_bets", "selections", "sport_settlements", "results", "bonuses", "bonus_statuses"} <= kinds.keys()
    assert kinds["transactions"] > kinds["transitions"] > kinds["exclusions"]


def test_sport_bets_are_whole() -> None:
    """A settlement and a result belong to what was bet on, and each bet ends as often right as it was not undone."""
    rows = run(Life(people(500), ids=Numbers(), rate=400, seed=4, today=TODAY), seconds=60)
    bets = {row[0]: row for name, row in rows if name == "sport_bets"}
    selections = {row[0]: row[1] for name, row in rows if name == "selections"}
    settled: Counter[int] = Counter()
    for row in (row for name, row in rows if name == "sport_settlements"):
        settled[row[0]] += -1 if row[5] else 1
    assert len(bets) > 50
    assert settled.keys() <= bets.keys()
    assert set(settled.values()) <= {0, 1}
    assert Counter(selections.values()) == {number: row[5] for number, row in bets.items()}
    assert {row[0] for name, row in rows if name == "results"} <= selections.keys()


def test_rounds_are_whole() -> None:
    """A win belongs to a round that was bet on, and every stake is what its bet takes."""
    rows = run(Life(people(500), ids=Numbers(), rate=200, seed=4, today=TODAY), seconds=20)
    stakes = {row[0]: row[3] for name, row in rows if name == "rounds"}
    bets = {row[2]: row[4] for name, row in rows if name == "transactions" and row[3] == "bet"}
    wins = {row[2] for name, row in rows if name == "transactions" and row[3] == "win"}

    assert wins <= bets.keys() <= stakes.keys()
    assert all(-amount == stakes[number] for number, amount in bets.items())


def test_pay_tables_return_a_little_less_than_they_take() -> None:
    """The house keeps between two and five percent."""
    for table in games.PAYS.values():
        assert 0.95 < sum(chance * factor for chance, factor in table) / 10_000_000 < 0.98


@pytest.mark.parametrize(
    ("amount", "code", "expected"),
    [(5000, "EUR", "50.00 EUR"), (123456789, "GBP", "1,234,567.89 GBP"), (7, "BTC", "0.00000007 BTC")],
)
def test_money_for_people(amount: int, code: str, expected: str) -> None:
    """Amounts are shown in whole units with all digits."""
    assert expected == games.money(amount, code)
