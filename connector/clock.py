"""The only place that reads time. Everything else takes an instant, or one of these functions, as an argument."""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic = time.monotonic
sleep = time.sleep


def now() -> datetime:
    """Return this machine's time, aware, in UTC. For display and delivery: a source's rows are judged by its own."""
    return datetime.now(UTC)  # noqa: TID251 - this is that place
