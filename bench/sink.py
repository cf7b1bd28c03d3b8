"""A Track v2 API that accepts everything, answers late and counts cheaply: what `bench.delivery` delivers to.

`python -m bench.sink PORT LOG`: a process of its own. Every batch is answered SECONDS after it was read, and leaves one
line in LOG: monotonic time, bytes, profiles in it, and the ids of its events. Nothing is parsed but the ids.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

#: Seconds that the API thinks about a batch.
SECONDS: Final = 0.05
_PROFILE: Final = b'"action":"identify"'
_EVENT_ID: Final = re.compile(rb'"id":"([0-9A-HJKMNP-TV-Z]{26})"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_REGION: Final = b'{"url":"http://127.0.0.1","region":"eu","environment_id":1}'


@dataclass(frozen=True)
class Request:
    """One batch as it came: when, how large, how many profiles, and its events' ids."""

    at: float
    bytes: int
    profiles: int
    ids: list[str]

    @property
    def items(self) -> int:
        """Return how many items it held."""
        return self.profiles + len(self.ids)


class Sink(asyncio.Protocol):
    """One connection: requests one after the other, each answered before the next is sent."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", 0, 4096)
        if end < 0:
            return
        found = _LENGTH.search(self._buffer, 0, end)
        size = end + 4 + (int(found[1]) if found else 0)
        if len(self._buffer) < size:
            return
        head, body = bytes(self._buffer[:end]), bytes(self._buffer[end + 4 : size])
        del self._buffer[:size]
        if head.startswith(b"POST /api/v2/batch "):
            self._note(body)
            asyncio.get_running_loop().call_later(SECONDS, self._answer, b"{}\n")
        else:
            self._answer(_REGION)

    def _note(self, body: bytes) -> None:
        ids = b" ".join(_EVENT_ID.findall(body))
        line = b"%.6f %d %d %b\n" % (time.monotonic(), len(body), body.count(_PROFILE), ids)
        self._log.write(line)

    def _answer(self, body: bytes) -> None:
        assert self._transport is not None
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)


def read(log: Path, offset: int, requests: list[Request]) -> int:
    """Append what came since `offset` to `requests` and return the next offset; half a line is left for then."""
    with log.open("rb") as file:
        file.seek(offset)
        whole = file.read().rpartition(b"\n")[0]
    requests += [_parsed(line) for line in whole.decode().splitlines()]
    return offset + len(whole) + bool(whole)


def _parsed(line: str) -> Request:
    at, size, profiles, *ids = line.split()
    return Request(float(at), int(size), int(profiles), ids)


async def _serve(port: int, log: Path) -> None:
    with log.open("ab", buffering=0) as file:
        server = await asyncio.get_running_loop().create_server(lambda: Sink(file), "127.0.0.1", port)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))
