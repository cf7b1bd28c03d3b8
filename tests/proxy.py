"""A TCP proxy on loopback that fails on command: the network between a connector and its servers.

One thread owns every socket. A control hands it a change and returns when the change is made. Faults that wait for
their moment (a number of bytes, a pattern) strike once and set `struck`; after a cut, new connections are let through.
"""

from __future__ import annotations

import queue
import select
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from connector import clock

if TYPE_CHECKING:
    from collections.abc import Callable

#: Small, so that a fault falls in mid-page and a stalled reader stops its server soon.
_CHUNK: Final = 16 << 10
_MOST_LINKS: Final = 64
_ABORT: Final = struct.pack("ii", 1, 0)
_TICK_SECONDS: Final = 0.02
_CONTROL_SECONDS: Final = 10.0


@dataclass(eq=False)
class _Link:
    """One connection: its two ends, and what each end has still to be given."""

    client: socket.socket
    server: socket.socket
    down: bytearray = field(default_factory=bytearray)
    up: bytearray = field(default_factory=bytearray)
    said: bytes = b""
    ending: bool = False
    doomed: bool = False
    stranded: bool = False

    def doom(self, data: bytes) -> None:
        """Pass on what was said, and nothing that is answered."""
        self.up += data
        self.doomed = True

    def strand(self, _: bytes) -> None:
        """Move nothing any more."""
        self.stranded = True

    def close(self, *, abort: bool) -> None:
        """Close both ends, with a reset or in order."""
        for end in (self.client, self.server):
            with suppress(OSError):
                if abort:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            end.close()


@dataclass
class _Faults:
    """What goes wrong now. `left`: bytes until a cut or a stall, and the direction that they are counted in."""

    stalled: bool = False
    refusing: bool = False
    rate: float | None = None
    left: int | None = None
    counts_up: bool = False
    then_stalls: bool = False
    pattern: bytes | None = None
    then: Callable[[_Link, bytes], None] | None = None


class Proxy:
    """Forwards to a port of loopback until told otherwise. Every control may be called from any thread."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.struck = threading.Event()
        self._faults = _Faults()
        self._links: list[_Link] = []
        self._changes: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._woken, self._waker = socket.socketpair()
        self._open = True
        self._pause_until = 0.0
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def through(self, url: str) -> str:
        """Return a database URL that leads here instead of to the target."""
        assert f":{self.target}/" in url, url
        return url.replace(f":{self.target}/", f":{self.port}/")

    # Controls -------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection now; new ones are let through."""
        self._do(self._abort)

    def cut_after(self, number: int, *, up: bool = False) -> None:
        """Reset every connection once this many more bytes have come down from the server, or gone `up` to it."""
        self._fail(left=number, counts_up=up)

    def cut_before(self, pattern: bytes) -> None:
        """Reset every connection in place of passing on what a client says with `pattern` in it."""
        self._fail(pattern=pattern, then=lambda _, __: self._abort())

    def cut_answer(self, pattern: bytes) -> None:
        """Pass on what a client says with `pattern` in it, and reset every connection in place of the answer."""
        self._fail(pattern=pattern, then=_Link.doom)

    def strand_before(self, pattern: bytes) -> None:
        """Forget the connection on which a client says `pattern`: nothing moves on it any more, and nothing is reset.

        New connections are let through, as by a firewall that has lost its table.
        """
        self._fail(pattern=pattern, then=_Link.strand)

    def stall(self) -> None:
        """Accept connections and move nothing, until `resume`: the kernel answers, the server does not."""
        self._fail(stalled=True)

    def stall_after(self, number: int) -> None:
        """Stall once this many more bytes have come down from the server."""
        self._fail(left=number, then_stalls=True)

    def slow(self, bytes_per_second: float) -> None:
        """Move no more than this, both directions together."""
        self._fail(rate=bytes_per_second)

    def refuse(self) -> None:
        """Reset every connection, and each new one."""
        self._fail(refusing=True)
        self.cut()

    def resume(self) -> None:
        """Move on what a stall held up; `restore` by another name."""
        self.restore()

    def restore(self) -> None:
        """End every fault; connections that live go on."""
        self._fail()

    def close(self) -> None:
        """Close everything and end the thread; idempotent."""
        if self._open:
            self._do(self._shut)
            self._thread.join(_CONTROL_SECONDS)

    # The thread -----------------------------------------------------------------------------------------------------

    def _fail(self, **faults: object) -> None:
        def change() -> None:
            self._faults, self._pause_until = _Faults(**faults), 0.0  # type: ignore[arg-type]
            self.struck.clear()

        self._do(change)

    def _do(self, change: Callable[[], None]) -> None:
        done = threading.Event()
        self._changes.put((change, done))
        self._waker.send(b".")
        assert done.wait(_CONTROL_SECONDS), "the proxy's thread has ended"

    def _run(self) -> None:
        while self._open:
            pause = self._pause_until - clock.monotonic()
            readable, writable = ([], []) if self._faults.stalled or pause > 0 else self._wanted()
            timeout = pause if pause > 0 else None
            ready, free, _ = select.select([self._listener, self._woken, *readable], writable, [], timeout)
            if self._woken in ready:
                self._woken.recv(1)
                change, done = self._changes.get()
                change()
                done.set()
                continue  # sockets may have been closed
            if self._listener in ready:
                self._accept()
            for link in list(self._links):
                self._serve(link, ready, free)

    def _wanted(self) -> tuple[list[socket.socket], list[socket.socket]]:
        """Return the sockets to read from and to write to: each end is read when the other has taken all."""
        moving = [link for link in self._links if not link.stranded]
        readable = [link.client for link in moving if not link.up and not link.ending]
        readable += [link.server for link in moving if not link.down and not link.ending]
        return readable, [link.client for link in moving if link.down] + [link.server for link in moving if link.up]

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _CHUNK)
        link = _Link(client, server)
        try:
            if self._faults.refusing or len(self._links) >= _MOST_LINKS:
                raise ConnectionRefusedError
            server.connect(("127.0.0.1", self.target))
        except OSError:
            link.close(abort=True)
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._links.append(link)

    def _serve(self, link: _Link, ready: list[socket.socket], free: list[socket.socket]) -> None:
        try:
            if link.client in ready and link in self._links:
                self._hear(link, link.client.recv(_CHUNK))
            if link.server in ready and link in self._links:
                self._answer(link, link.server.recv(_CHUNK))
            if link.server in free and link in self._links:
                self._pass(link.server, link.up, up=True)
            if link.client in free and link in self._links:
                self._pass(link.client, link.down, up=False)
        except OSError:  # one end is gone: so is the other
            self._drop(link, abort=True)
        if link.ending and not link.up and not link.down and link in self._links:
            self._drop(link, abort=False)

    def _hear(self, link: _Link, data: bytes) -> None:
        link.ending = not data
        link.said = (link.said + data)[-_CHUNK - 64 :]
        pattern, then = self._faults.pattern, self._faults.then
        if pattern is None or then is None or pattern not in link.said:
            link.up += data
            return
        self._faults = _Faults()
        if then is not _Link.doom:  # that one strikes when the answer comes
            self.struck.set()
        then(link, data)

    def _answer(self, link: _Link, data: bytes) -> None:
        link.ending, link.said = link.ending or not data, b""
        if link.doomed and data:
            self._strike()
            return
        link.down += data

    def _pass(self, end: socket.socket, waiting: bytearray, *, up: bool) -> None:
        faults = self._faults
        counted = faults.left is not None and faults.counts_up == up
        most = len(waiting)
        if faults.rate is not None:
            most = min(most, max(1, int(faults.rate * _TICK_SECONDS)))
        if counted:
            most = min(most, faults.left or 0)
        sent = end.send(waiting[:most]) if most else 0
        del waiting[:sent]
        if faults.rate is not None:
            self._pause_until = max(clock.monotonic(), self._pause_until) + sent / faults.rate
        if counted:
            faults.left = (faults.left or 0) - sent
            if faults.left == 0:
                self._strike()

    def _strike(self) -> None:
        stalls = self._faults.then_stalls
        self._faults = _Faults(stalled=stalls)
        self.struck.set()
        if not stalls:
            self._abort()

    def _abort(self) -> None:
        for link in list(self._links):
            self._drop(link, abort=True)

    def _drop(self, link: _Link, *, abort: bool) -> None:
        self._links.remove(link)
        link.close(abort=abort)

    def _shut(self) -> None:
        self._open = False
        self._abort()
        for end in (self._listener, self._woken, self._waker):
            end.close()
