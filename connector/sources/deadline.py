"""A bound in time for every call to a source: a server or a network that has gone silent costs a call, not the loop.

No driver can be trusted with it: some know no time-out, others count only the time between two bytes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SilenceError(Exception):
    """A call did not end in time."""


class _Call(Generic[T]):
    """One call on a thread of its own, and who cleans up after it."""

    def __init__(self, work: Callable[[], T], leave: Callable[[T | None], None]) -> None:
        self._work, self._leave = work, leave
        self._lock, self._ended, self._left = threading.Lock(), False, False
        self._result: T | None = None
        self._error: BaseException | None = None
        name = f"{threading.current_thread().name}:call"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            self._error = error
        with self._lock:
            self._ended = True
        if self._left:
            self._leave(self._result)

    def wait(self, seconds: float) -> T:
        """Make the call and return what it returned; after `seconds` nobody waits for it any more."""
        self._thread.start()
        try:
            self._thread.join(seconds)
        finally:
            with self._lock:
                self._left = not self._ended
        if self._left:
            raise SilenceError
        self._thread.join()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result  # type: ignore[return-value]
        finally:
            del error  # it refers to this frame


def bounded(work: Callable[[], T], *, seconds: float, leave: Callable[[T | None], None]) -> T:
    """Call `work` and return what it returns. Raises what it raises, or SilenceError after `seconds`.

    A call that did not end is left alone with its thread until the server or the network lets it go. Then `leave` is
    called there, with what it returned: nothing else may use what the call has in hand.
    """
    return _Call(work, leave).wait(seconds)
