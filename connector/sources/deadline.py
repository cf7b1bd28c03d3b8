"""A bound in time for every call to a source: a server or a network that has gone silent costs a call, not the loop.

No driver can be trusted with it: some know no time-out, others count only the time between two bytes.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class SilenceError(Exception):
    """A call did not end in time."""


class _Call(Generic[T]):
    """One call, and who cleans up after it when nobody waits for its end any more."""

    def __init__(self, work: Callable[[], T], leave: Callable[[T | None], None]) -> None:
        self._work, self._leave = work, leave
        self._lock, self._ended, self._left = threading.Lock(), threading.Event(), False
        self._result: T | None = None
        self._error: BaseException | None = None

    def make(self) -> None:
        """Make the call, on the thread that makes calls."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            self._error = error
        with self._lock:
            self._ended.set()
        if self._left:
            self._leave(self._result)

    def wait(self, seconds: float) -> T:
        """Wait for what the call returns, or raises; after `seconds` nobody waits for it any more."""
        try:
            self._ended.wait(seconds)
        finally:
            with self._lock:
                self._left = not self._ended.is_set()
        if self._left:
            raise SilenceError
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._result  # type: ignore[return-value]
        finally:
            del error  # it refers to this frame


class Bounded:
    """Makes one call at a time on a thread of its own, which starts with the first; `close` ends it."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call[Any] | None] | None = None

    def __call__(self, work: Callable[[], T], *, seconds: float, leave: Callable[[T | None], None]) -> T:
        """Call `work` and return what it returns. Raises what it raises, or SilenceError after `seconds`.

        A call that did not end is left alone with its thread until the server or the network lets it go. Then `leave`
        is called there, with what it returned: nothing else may use what the call has in hand.
        """
        if self._calls is None:
            self._calls = SimpleQueue()
            name = f"{threading.current_thread().name}:calls"
            threading.Thread(target=_make, args=(self._calls,), name=name, daemon=True).start()
        call = _Call(work, leave)
        self._calls.put(call)
        try:
            return call.wait(seconds)
        except BaseException:
            self.close()  # whatever it was: a thread that may still be in a call is not asked again
            raise

    def close(self) -> None:
        """End the thread after the call in hand; the next call starts another. Idempotent."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)


def _make(calls: SimpleQueue[_Call[Any] | None]) -> None:
    while (call := calls.get()) is not None:
        call.make()
        del call  # its result may be a page
