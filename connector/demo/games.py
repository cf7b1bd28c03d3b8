"""What is played: the catalogue, the stakes people choose, and the pay tables that bring the house its few percent.

Pure data and draws, shared by history (as temporary tables) and traffic, so that both have the same return to player.
It knows nothing of accounts or time. Factors and amounts are integers: hundredths of the stake, and subunits.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random


@dataclass(frozen=True)
class Game:
    """One game of the catalogue; `pays` names its pay table."""

    id: str
    title: str
    provider: str
    category: str

    @property
    def pays(self) -> str:
        """Return the name of the game's pay table."""
        return "table" if self.category in {"live", "table"} else "slots"


@dataclass(frozen=True)
class Currency:
    """A wallet's currency: `unit` is the value of a subunit, `per_cent` how many subunits weigh as much as a cent."""

    code: str
    unit: str
    per_cent: int
    digits: int


CURRENCIES: Final = {
    currency.code: currency
    for currency in (
        Currency("EUR", "0.01", 1, 2),
        Currency("GBP", "0.01", 1, 2),
        Currency("TRX", "0.000001", 40_000, 6),
        Currency("BTC", "0.00000001", 10, 8),
        Currency("FUN", "0.01", 1, 2),  # play money
    )
}

#: Stakes in cents that players of a class choose from, and how much they play.
STAKES: Final = {
    "casual": (10, 20, 20, 20, 40, 50, 50, 60, 80, 100),
    "regular": (20, 40, 50, 80, 100, 100, 120, 150, 200, 250),
    "vip": (100, 200, 200, 250, 400, 500, 500, 800, 1000, 2000),
    "whale": (500, 1000, 1000, 2000, 2000, 2500, 2500, 5000, 5000, 10000),
}
WEIGHTS: Final = {"casual": 1, "regular": 6, "vip": 25, "whale": 60}
#: Up to which share of the players a class reaches: 70 % casual, 25.6 % regular, 4 % vip, 0.4 % whales.
CLASSES: Final = (("casual", 0.70), ("regular", 0.956), ("vip", 0.996), ("whale", 1.0))

#: Deposits in cents per class.
DEPOSITS: Final = {
    "casual": (1000, 1000, 2000, 2000, 2500, 3000, 5000),
    "regular": (2000, 2500, 3000, 5000, 5000, 7500, 10000),
    "vip": (10000, 10000, 15000, 20000, 25000, 50000),
    "whale": (50000, 100000, 100000, 200000, 250000, 500000),
}

#: Per pay table: (chances in 100,000, hundredths of the stake that are paid). Slots return 96.0 %, tables 97.2 %.
PAYS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "slots": (
        (8000, 50), (5000, 80), (4500, 120), (4200, 200), (2300, 300), (1900, 500), (1100, 800), (600, 1500),
        (400, 2500), (240, 5000), (100, 10000), (32, 25000),
    ),
    "table": ((44000, 200), (700, 900), (80, 3600)),
}  # fmt: skip

_THEMES: Final = {
    "Fjordlight Studio": ("slots", ("Golden Kraken", "Fjord Riches", "Aurora Spins", "Rune Keeper", "Frost Bells")),
    "Mango Harbour": ("slots", ("Mango Mania", "Monsoon Gold", "Toucan Trail", "Jungle Lanterns", "Coconut Crush")),
    "Redfern Games": ("slots", ("Outlaw Express", "Silver Gulch", "Cactus Cash", "Dustbowl Deluxe", "Sheriff's Dozen")),
    "Velvet Reels": ("slots", ("Midnight Orchid", "Opera of Luck", "Ruby Masquerade", "Carnival Nine", "Pearl Diver")),
    "Tinker & Gear": ("slots", ("Clockwork Carp", "Steam Sultan", "Brass Bonanza", "Copper Comet")),
    "Lucky Otter": ("slots", ("Otter's Fortune", "River Run 10", "Salmon Rush", "Beaver Bank", "Pike & Perch 🎣")),
    "Skyrise": ("crash", ("Rocket Lunch", "Balloonist")),
    "Kestrel Live": ("live", ("Roulette Azur", "Blackjack Salon 7", "Baccarat Jade", "Wheel of Plenty")),
    "Greenbaize": ("table", ("European Roulette", "Classic Blackjack", "Three Card Draw")),
}

GAMES: Final = tuple(
    Game(f"{provider.split()[0].lower()}:{number:03}", title, provider, category)
    for provider, (category, titles) in _THEMES.items()
    for number, title in enumerate(titles, start=1)
)

_STEPS: Final = {
    name: [sum(chance for chance, _ in table[: i + 1]) for i in range(len(table))] for name, table in PAYS.items()
}


def payoff(rng: random.Random, game: Game, *, stake: int) -> int:
    """Return what one round of `game` pays for `stake`, in the same subunits; 0 when it is lost."""
    step = bisect.bisect_right(_STEPS[game.pays], rng.randrange(100_000))
    table = PAYS[game.pays]
    return stake * table[step][1] // 100 if step < len(table) else 0


def paytable() -> list[tuple[str, int, int, int]]:
    """Return the pay tables as rows (table, from, below, factor) for the server's own draws; losses are not listed."""
    return [
        (name, below - chance, below, factor)
        for name, table in PAYS.items()
        for (chance, factor), below in zip(table, _STEPS[name], strict=True)
    ]


def money(amount: int, code: str) -> str:
    """Return `amount` subunits of currency `code` for people: '50.00 EUR'."""
    digits = CURRENCIES[code].digits
    whole, part = divmod(amount, 10**digits)
    return f"{whole:,}.{part:0{digits}} {code}"
