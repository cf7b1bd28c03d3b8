"""Reporting webhooks, outbound: signed, retried in order, on demand doubled and out of order.

It sends what it is given, one event per request; what happened in the workspace is not its business.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from connector import clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from connector.emulators.options import Json

#: Answers after which the live service waits an hour before its first retry.
LONG_WAIT = frozenset({400, 401, 402, 403, 404, 405, 410, 429, 500, 502, 521})


@dataclass(kw_only=True, slots=True)
class Settings:
    """Where webhooks go and how badly."""

    #: Where to send; None: nowhere, events are dropped.
    url: str | None = None
    signing_key: str = "emulator-webhook-key"
    timeout: float = field(default=4.0, metadata={"above": 0})
    #: Seconds before the first retry, doubled for each further one; the live service backs off for days.
    retry_after: float = field(default=1.0, metadata={"min": 0})
    retry_limit: float = field(default=60.0, metadata={"min": 0})
    #: Seconds before the first retry after one of the answers in `LONG_WAIT` (3600 live).
    long_wait: float = field(default=1.0, metadata={"min": 0})
    #: Attempts before an event is given up.
    attempts: int = field(default=20, metadata={"min": 1})
    #: Sign every attempt anew; else the first signature is repeated.
    resign: bool = True
    #: Share of events that are sent twice, and of those that overtake what is queued before them.
    duplicate_rate: float = field(default=0.0, metadata={"min": 0, "max": 1})
    overtake_rate: float = field(default=0.0, metadata={"min": 0, "max": 1})


def signature(key: str, *, timestamp: int, body: bytes) -> str:
    """Return the hex HMAC-SHA256 over `v0:<timestamp>:<body>` that goes into `X-CIO-Signature`."""
    return hmac.new(key.encode(), b"v0:%d:" % timestamp + body, hashlib.sha256).hexdigest()


def pause(settings: Settings, *, attempt: int, status: int | None) -> float:
    """Return the seconds to wait after the failed attempt number `attempt` (from 1)."""
    first = settings.long_wait if status in LONG_WAIT else settings.retry_after
    return float(min(first * 2 ** min(attempt - 1, 30), max(settings.retry_limit, first)))


class Sender:
    """Sends queued webhook bodies from its own thread, one at a time: a failing one holds back the others.

    `enqueue` returns at once and may be called from any thread; `stop` is idempotent and abandons what is queued.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        now: Callable[[], datetime] = clock.now,
        seed: int | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.counts: Counter[str] = Counter()
        self._now = now
        self._random = random.Random(seed)  # noqa: S311  chance, no secrets
        self._queue: deque[bytes] = deque()
        self._in_flight = False
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def enqueue(self, body: Json) -> None:
        """Take an event for sending; it is dropped and counted if there is no target."""
        if self.settings.url is None:
            self.counts["dropped"] += 1
            return
        raw = json.dumps(body, separators=(",", ":")).encode()
        copies = 2 if self._random.random() < self.settings.duplicate_rate else 1
        with self._wake:
            for _ in range(copies):
                overtakes = self._queue and self._random.random() < self.settings.overtake_rate
                place = self._random.randrange(len(self._queue)) if overtakes else len(self._queue)
                self._queue.insert(place, raw)
            self._start()
            self._wake.notify_all()

    @property
    def waiting(self) -> int:
        """How many events are queued or under way."""
        with self._wake:
            return len(self._queue) + self._in_flight

    def stop(self) -> None:
        """End the thread after its present attempt."""
        self._stopping.set()
        with self._wake:
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(self.settings.timeout + 1)

    def _start(self) -> None:
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._run, name="webhook-sender", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        with httpx.Client(follow_redirects=False, trust_env=False) as client:
            while (raw := self._next()) is not None:
                self._deliver(client, raw)
                with self._wake:
                    self._in_flight = False

    def _next(self) -> bytes | None:
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._stopping.is_set())
            if self._stopping.is_set():
                return None
            self._in_flight = True
            return self._queue.popleft()

    def _deliver(self, client: httpx.Client, raw: bytes) -> None:
        timestamp = int(self._now().timestamp())
        for attempt in range(1, self.settings.attempts + 1):
            if self.settings.resign and attempt > 1:
                timestamp = int(self._now().timestamp())
            status = self._post(client, raw, timestamp)
            if status is not None and 200 <= status < 300:
                self.counts["delivered"] += 1
                return
            self.counts["failed_attempts"] += 1
            if self._stopping.wait(pause(self.settings, attempt=attempt, status=status)):
                return
        self.counts["given_up"] += 1

    def _post(self, client: httpx.Client, raw: bytes, timestamp: int) -> int | None:
        if self.settings.url is None:
            return None
        headers = {
            "content-type": "application/json",
            "x-cio-timestamp": str(timestamp),
            "x-cio-signature": signature(self.settings.signing_key, timestamp=timestamp, body=raw),
        }
        self.counts["attempts"] += 1
        try:
            return client.post(
                self.settings.url, content=raw, headers=headers, timeout=self.settings.timeout
            ).status_code
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
