"""The sportsbook: what can be bet on, how a bet is placed and how it ends. Bonuses are in cashier.py.

Owns the fixtures, the odds and the fates of bets, for traffic and (as temporary tables) for history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from connector.demo import cashier, games

if TYPE_CHECKING:
    from connector.demo.ledger import Story
    from connector.demo.life import Life
    from connector.demo.player import Player


@dataclass(frozen=True, slots=True)
class Fixture:
    """Two that meet."""

    sport: str
    league: str
    home: str
    away: str

    @property
    def title(self) -> str:
        """Return how people call it."""
        return f"{self.home} v {self.away}"


_LEAGUES: Final = {
    ("football", "Coast League"): ("Harbour Rovers", "Lighthouse Town", "Tidewater", "Saltmarsh Athletic"),
    ("football", "Liga Verde"): ("Deportivo Olivar", "Real Castaño", "Unión Almendro", "Atlético Romero"),
    ("ice hockey", "Northern Ice"): ("Polar Foxes", "Fjord Kings", "Glacier Bay", "Aurora HC"),
    ("tennis", "Amber Open"): ("L. Brandt", "M. Okafor", "J. Lindqvist", "T. Moreau"),
}
FIXTURES: Final = tuple(
    Fixture(sport, league, home, away)
    for (sport, league), names in _LEAGUES.items()
    for home in names
    for away in names
    if home != away
)
#: In hundredths. The house keeps 6 % of each selection.
ODDS: Final = (145, 162, 185, 185, 210, 260, 340)
_RETURN: Final = 94
#: A bet takes one of these numbers of selections, and a stake so many times that of a round.
_SELECTIONS: Final = (1, 1, 1, 2, 3, 4)
_STAKE_FACTOR: Final = 10
_OPEN_SECONDS: Final = (1.5, 8.0)
_BIG_WIN_CENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Bet:
    """A bet as placed: what it may pay, in subunits of the wallet, and whether each selection (by id) comes in."""

    number: int
    stake: int
    potential: int
    results: dict[int, bool]


def bet(life: Life, player: Player) -> Story[None]:
    """Place a bet and see how it ends; now and then the bookmaker has to settle it twice."""
    wallet, rng = player.wallet, life.rng
    stake = wallet.cents(_STAKE_FACTOR * rng.choice(games.STAKES[player.level]))
    if wallet.amount < stake:
        return
    placed, title = _place(life, player, stake)
    wallet.amount -= stake
    cashier.balance(life, wallet)
    life.happened["sport bet"] += 1
    life.say(player, f"bets {games.money(stake, wallet.currency)} on {title}")
    yield rng.uniform(*_OPEN_SECONDS)
    fate, won = rng.random(), all(placed.results.values())
    status, paid = ("WON", placed.potential) if won else ("LOST", 0)
    if fate < 0.03:
        status, paid = "VOID", stake
    elif fate < 0.09:
        status, paid = "CASHOUT", stake * rng.randint(50, 140) // 100
    elif fate < 0.10:
        status, paid = "HALF_LOST", stake // 2
    elif fate < 0.12:  # settled wrongly, taken back, and settled again
        wrong, pays = ("LOST", 0) if won else ("WON", placed.potential)
        for undone in (False, True):
            _settle(life, placed, wrong, pays, undone=undone)
            yield rng.uniform(0.3, 1.5)
        life.happened["resettled bet"] += 1
    _settle(life, placed, status, paid)
    for selection, came_in in placed.results.items():
        result = "VOID" if status == "VOID" else "WON" if came_in else "LOST"
        life.batch.add("results", selection, result, f"{rng.randint(0, 4)}:{rng.randint(0, 3)}")
    wallet.amount += paid
    cashier.balance(life, wallet)
    life.happened[f"bet {status.lower()}"] += 1
    if status == "WON" and paid >= wallet.cents(_BIG_WIN_CENTS):
        life.say(player, f"won {games.money(paid, wallet.currency)} on {title}")


def _place(life: Life, player: Player, stake: int) -> tuple[Bet, str]:
    rng, number, account = life.rng, life.ids.take("sport_bets"), player.wallet.account_id
    fixtures = rng.sample(range(len(FIXTURES)), rng.choice(_SELECTIONS))
    odds = [rng.choice(ODDS) for _ in fixtures]
    live = rng.random() < 0.4
    total = math.prod(odds) * 100 // 100 ** len(odds)
    potential = stake * total // 100
    kind = "single" if len(odds) == 1 else "combo"
    life.batch.add("sport_bets", number, account, kind, stake, total, len(odds), potential, live)
    results: dict[int, bool] = {}
    for index, price in zip(fixtures, odds, strict=True):
        selection, fixture = life.ids.take("sport_bet_selections"), FIXTURES[index]
        place = (fixture.title, fixture.sport, fixture.league)
        pick = rng.choice(("1", "2"))
        life.batch.add(
            "selections", selection, number, index, *place, "winner", pick, price, fixture.home, fixture.away, live
        )
        results[selection] = rng.random() * price < _RETURN
    title = FIXTURES[fixtures[0]].title if len(odds) == 1 else f"{len(odds)} matches"
    return Bet(number, stake, potential, results), title


def _settle(life: Life, placed: Bet, status: str, paid: int, *, undone: bool = False) -> None:
    cashed_out = paid if status == "CASHOUT" else None
    reason = "abandoned" if status == "VOID" else None
    life.batch.add("sport_settlements", placed.number, status, paid, cashed_out, reason, undone)
