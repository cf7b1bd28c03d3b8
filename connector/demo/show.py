"""The demo's live table: per stream rows on the replica, in the store, delivered, rows/s and lag. Owns what is seen."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connector.demo.stage import Sight

_KEPT_SECONDS = 60.0
_RATE_SECONDS = 5.0
_STORIES = 6


@dataclass
class Watch:
    """Sights of the last minute, and what follows from them. Pure: instants are handed in."""

    sights: deque[tuple[float, Sight]] = field(default_factory=deque)

    def add(self, at: float, sight: Sight) -> None:
        """Note a sight taken at `at` (monotonic seconds)."""
        self.sights.append((at, sight))
        while at - self.sights[0][0] > _KEPT_SECONDS:
            self.sights.popleft()

    def rate(self, stream: str) -> float:
        """Return rows/s into the store over the last seconds."""
        now, newest = self.sights[-1]
        then, oldest = next(item for item in self.sights if now - item[0] <= _RATE_SECONDS)
        return (newest.store[stream] - oldest.store[stream]) / (now - then) if now > then else 0.0

    def lag(self, stream: str) -> float:
        """Return for how many seconds the replica has shown a row that the store has not."""
        now, newest = self.sights[-1]
        if newest.replica[stream] <= newest.store[stream]:
            return 0.0
        since = next((at for at, sight in self.sights if sight.replica[stream] > newest.store[stream]), now)
        return now - since


def screen(watch: Watch, stories: Iterable[str], *, left: float | None) -> Group:
    """Draw everything."""
    sight = watch.sights[-1][1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for name in ("stream", "on the replica", "in the store", "delivered", "rows/s", "lag"):
        table.add_column(
            name, justify="left" if name == "stream" else "right", min_width=27 if name == "stream" else 11
        )
    for stream, rows in sight.replica.items():
        stored, lag = sight.store[stream], watch.lag(stream)
        table.add_row(
            stream,
            f"{rows:,}",
            Text(f"{stored:,}", style="green" if stored >= rows else "yellow"),
            f"{sight.delivered[stream]:,}",
            f"{watch.rate(stream):,.0f}",
            Text("0 s" if lag == 0 else f"{lag:.1f} s", style="green" if lag < 3 else "yellow"),
        )
    happening = Text("\n".join(list(stories)[-_STORIES:]), style="dim")
    footer = "Ctrl-C ends the demo" if left is None else f"{max(0.0, left):.0f} s left"
    title = "[bold]A casino, its CRM and Customer.io[/]"
    return Group(
        Panel(Group(table, Text("in the casino", style="bold"), happening), title=title, subtitle=footer, expand=False)
    )
