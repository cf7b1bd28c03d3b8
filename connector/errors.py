"""The error tree. A caller asks what to do next, never which library failed.

    ConnectorError
    |- Misconfigured      a person must change something: one message, a remedy, exit code 2
    |- Unhealthy          a command found something wrong outside the configuration: exit code 3
    |- Transient          try again later, from the last committed position
    |  |- Throttled       ... not before `after` seconds
    |  `- Superseded      ... from a checkpoint that a person has moved meanwhile
    |- Halted             this stream or destination stops and asks; everything else goes on
    |  |- Paused          ... and does not start again by itself
    |  `- Waiting         ... has been answered: wait until the source is what it was
    `- LeaseLost          another process took over: stop writing, become the standby

Messages name the thing and never hold row values, so they are safe to log.
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Root of every error that this package raises on purpose; `hint` is the remedy, one sentence."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Misconfigured(ConnectorError):
    """The configuration, or what it names, cannot work."""


class Unhealthy(ConnectorError):
    """A check or a command failed on the state of a system."""


class Transient(ConnectorError):
    """A cut connection, a time-out, a deadlock, a standby conflict: repeat the unit of work."""


class Throttled(Transient):
    """The other side asked to wait `after` seconds."""

    def __init__(self, message: str, *, after: float) -> None:
        super().__init__(message)
        self.after = after


class Superseded(Transient):
    """A person answered for this stream: what was read before the answer is not written; open the stream again."""


class Halted(ConnectorError):
    """Going on could lose or double rows, or is refused for good: a person has to answer."""


class Paused(Halted):
    """Too much of what is read is refused: that is drift, and going on would fill the quarantine."""


class Waiting(Halted):
    """A person knows that the source does not hold the data yet: look again now and then, and go on when it does."""


class LeaseLost(ConnectorError):
    """The lease has another holder or epoch; nothing of this transaction was written."""
