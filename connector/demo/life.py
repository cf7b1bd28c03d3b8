"""Who is awake at the casino, and what is due: a queue of stories in a time of its own, driven by one seeded generator.

Owns players, pace and the order of what happens; pure, without database, clock or thread. What the stories are is in
stories.py, and who writes what they leave behind in traffic.py.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from connector.demo import games, stories
from connector.demo.ledger import Batch, Hold

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable

    from connector.demo.ledger import Story
    from connector.demo.player import Player

#: What one session adds to the views: a round every 2.6 s, and a win in every fourth.
_ROWS_PER_SESSION_SECOND: Final = 0.47
_REFERENCE_RATE: Final = 200.0
#: A machine that falls behind by more than this lets the rest of the past go.
_PATIENCE_SECONDS: Final = 0.5
_TRIES: Final = 12


class IdSource(Protocol):
    """Where ids come from; see ledger.Ids."""

    def take(self, table: str) -> int:
        """Return an id, perhaps one drawn a while ago."""

    def draw(self, table: str) -> int:
        """Return an id drawn now."""


@dataclass(order=True, slots=True)
class Due:
    """A story and when it goes on."""

    at: float
    number: int
    story: Story[object] = field(compare=False)


def pace(rate: float, *, eligible: int) -> tuple[int, float]:
    """Return how many sessions run at once for `rate` rows a second, and the factor on their think time.

    A small casino plays faster instead of in more sessions: half of its players stay free for everything else.
    """
    wanted = max(1, round(rate / _ROWS_PER_SESSION_SECOND))
    sessions = max(1, min(wanted, eligible // 2))
    return sessions, sessions / wanted


class Life:
    """The casino's present. `advance` tells what happened since; `holds` is how many transactions may stay open."""

    def __init__(
        self, players: Iterable[Player], *, ids: IdSource, rate: float, seed: int, today: dt.date, holds: int = 2
    ) -> None:
        self.rng = random.Random(seed)
        self.ids = ids
        self.today = today
        self.batch = Batch()
        self.happened: Counter[str] = Counter()
        self.recent: deque[str] = deque(maxlen=50)
        self.deposits: deque[tuple[Player, int]] = deque(maxlen=200)
        self.free_holds = holds
        self.time = 0.0
        self._holds: list[tuple[Hold, Story[object]]] = []
        self._players: list[Player] = []
        self._weights: list[int] = []
        self._queue: list[Due] = []
        self._numbers = itertools.count()
        for player in players:
            self.welcome(player)
        self.sessions, self.hurry = pace(rate, eligible=len(self._players))
        self._rate = rate
        self._open_the_doors()

    def advance(self, now: float) -> tuple[Batch, list[tuple[Hold, Story[object]]]]:
        """Let everything happen that is due at `now`, in seconds since the start.

        Return what it wrote, and the holds: their stories stand still until `resume`.
        """
        while self._queue and self._queue[0].at <= now:
            due = heapq.heappop(self._queue)
            self.time = max(due.at, now - _PATIENCE_SECONDS)
            self._step(due.story)
        self.time = now
        batch, self.batch = self.batch, Batch()
        holds, self._holds = self._holds, []
        return batch, holds

    def resume(self, story: Story[object]) -> None:
        """Go on with `story`, whose hold has been committed."""
        self.free_holds += 1
        self.tell(story, after=0.0)

    def tell(self, story: Story[object], *, after: float) -> None:
        """Start `story` in `after` seconds."""
        heapq.heappush(self._queue, Due(self.time + after, next(self._numbers), story))

    def begin(self, player: Player, tell: Callable[[Life, Player], Story[object]], *, after: float = 0.0) -> None:
        """Start a story about `player`, who is busy until it ends."""
        player.busy = True
        self.tell(_free_afterwards(player, tell(self, player)), after=after)

    def welcome(self, player: Player) -> None:
        """Let `player` take part from now on."""
        self._players.append(player)
        self._weights.append((self._weights[-1] if self._weights else 0) + games.WEIGHTS[player.level])

    def pick(self, suits: Callable[[Player], bool] = lambda _: True, *, by_play: bool = True) -> Player | None:
        """Return a player who is free and `suits`; None when nobody is. `by_play`: the more they play, the likelier."""
        weights = self._weights if by_play else None
        for _ in range(_TRIES):
            player = self.rng.choices(self._players, cum_weights=weights)[0]
            if not player.busy and not player.gone and suits(player):
                return player
        start = self.rng.randrange(len(self._players))
        circle = itertools.chain(self._players[start:], self._players[:start])
        return next((p for p in circle if not p.busy and not p.gone and suits(p)), None)

    def say(self, player: Player, what: str) -> None:
        """Note for people what `player` did."""
        self.recent.append(f"{player.first_name} from {player.city} {what}")

    def _step(self, story: Story[object]) -> None:
        wish = next(story, None)
        if isinstance(wish, Hold):
            self.free_holds -= 1
            self._holds.append((wish, story))
        elif wish is not None:
            self.tell(story, after=wish)

    def _open_the_doors(self) -> None:
        for _ in range(self.sessions):
            self.tell(stories.chair(self), after=self.rng.random() * 3 * self.hurry)
        for name, rate in stories.RATES.items():
            self.tell(stories.stream(self, name, rate=rate * self._rate / _REFERENCE_RATE), after=self.rng.random())


def _free_afterwards(player: Player, story: Story[object]) -> Story[None]:
    yield from story
    player.busy = False
