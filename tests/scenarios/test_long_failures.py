"""A failure that lasts for hours is a few lines in the log, and ends without a trace in the store."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from connector import service

Make = Any


@pytest.mark.parametrize("side", ["source", "store"])
def test_a_side_that_stays_away_is_told_in_few_words(
    side: str, casino_of: Make, proxy_to: Make, reading: Make, serve: Make, wait: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of tries, a line for those whose number doubles, nobody's traceback; then everything is read."""
    casino = casino_of("postgresql", rows=300)
    urls = {"source": casino.operator.url, "store": casino.store.url}
    proxy = proxy_to(urls[side])
    cycle = reading(casino.settings(**{"url" if side == "source" else "store": proxy.through(urls[side])}))
    proxy.refuse()
    monkeypatch.setattr(service, "_BACKOFF", (0.0, 0.001))
    monkeypatch.setattr(service, "QUIET_SECONDS", 0.0)
    with capture_logs() as logs:
        (runner,) = serve(cycle)
        wait(lambda: runner.failures >= 200, what="many tries")
    assert {line["event"] for line in logs} == {"loop.failed"}
    assert 5 <= len(logs) <= 12
    assert not any("exc_info" in line or "Traceback" in str(line) for line in logs)
    proxy.restore()
    wait(lambda: casino.stored() == casino.rows, what="everything is read")
    casino.assert_whole()
