"""A configured stream's place in its source's loop: what runs there, or why nothing does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from connector.position import SECOND

if TYPE_CHECKING:
    from connector import config, poller
    from connector.errors import ConnectorError
    from connector.position import Position

_DAY: Final = 86_400 * SECOND


@dataclass
class Slot:
    """A configured stream: running, or stopped with the reason and the time of the next look."""

    name: str
    settings: config.Stream
    stream: poller.Stream | None = None
    error: ConnectorError | None = None
    look_again: float = 0.0
    counted_at: float = float("-inf")
    rescan_at: float = float("-inf")
    rescanning: tuple[str, ...] | None = None
    idle_said_at: float = float("-inf")
    held_said: bool = False
    late: int = 0
    late_within: float = 0.0
    #: When the source is looked at again (see identity), on which of the reader's connections it was; in doubt at once.
    check_at: float = 0.0
    connections: int = 0
    check_rest: float = 0.0
    doubtful: bool = False
    goal: Position | None = None
    reached: bool = False
    #: The last pass brought nothing; nor has this one anything to read.
    quiet: bool = False
    silent: bool = False

    def open_at(self, now: int) -> bool:
        """Return whether the source's UTC clock stands within the stream's hours; a range may span midnight."""
        if self.settings.hours is None:
            return True
        minute, (start, end) = now % _DAY // (60 * SECOND), self.settings.hours
        return start <= minute < end if start <= end else minute >= start or minute < end
