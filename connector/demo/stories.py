"""What happens and how often: the endless stories that begin all the others.

A story is a generator: it adds rows to the batch at hand and yields the seconds until it goes on, or a Hold when what
it wrote shall commit late. It owns its player while it runs, so no two open transactions ever touch the same player.
The happenings themselves are in play.py, sportsbook.py, cashier.py and profile.py.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from connector.demo import cashier, play, profile, sportsbook

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.demo.ledger import Story
    from connector.demo.life import Life
    from connector.demo.player import Player

#: How often each happening begins, a second, at 200 rows a second. Sessions follow each other without end.
RATES: Final = {
    "deposit": 1.6,
    "withdrawal": 0.8,
    "registration": 0.4,
    "preferences": 0.6,
    "verification": 0.4,
    "tagging": 0.4,
    "cool_off": 0.12,
    "exclusion": 0.08,
    "chargeback": 0.08,
    "sport_bet": 1.2,
}


def chair(life: Life) -> Story[None]:
    """Seat one player after the other, for ever. The first has been sitting there already."""
    for number in itertools.count():
        player = life.pick()
        if player is None:
            yield 0.5
            continue
        player.busy = True
        yield from play.session(life, player, login=number > 0)
        player.busy = False
        yield life.rng.uniform(0.1, 1.5) * life.hurry


def stream(life: Life, name: str, *, rate: float) -> Story[None]:
    """Begin the happening `name` again and again, `rate` times a second on average."""
    suits, tell = _HAPPENINGS[name]
    while True:
        player = life.pick(suits, by_play=name in {"deposit", "withdrawal", "sport_bet"})
        if player is not None:
            life.begin(player, tell)
        yield life.rng.expovariate(rate)


def _anybody(_: Player) -> bool:
    return True


def _has_money(player: Player) -> bool:
    return player.wallet.amount >= player.wallet.cents(5000)


def _is_unverified(player: Player) -> bool:
    return not player.verified


_HAPPENINGS: Final[dict[str, tuple[Callable[[Player], bool], Callable[[Life, Player], Story[object]]]]] = {
    "deposit": (_anybody, cashier.deposit),
    "withdrawal": (_has_money, cashier.withdrawal),
    "registration": (_anybody, profile.registration),
    "preferences": (_anybody, profile.preferences),
    "verification": (_is_unverified, profile.verification),
    "tagging": (_anybody, profile.tagging),
    "cool_off": (_anybody, profile.cool_off),
    "exclusion": (_anybody, profile.exclusion),
    "chargeback": (_anybody, cashier.chargeback),
    "sport_bet": (_has_money, sportsbook.bet),
}
