"""The process's page: health, metrics and status."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from connector import clock
from connector.errors import Misconfigured, Transient
from connector.metrics import Metrics
from connector.web.server import WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Page = tuple[httpx.Client, list[str], list[Any]]


@pytest.fixture
def page() -> Iterator[Page]:
    """A page whose stuck loops and status a test may set."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    stuck: list[str] = []
    report: list[Any] = [{"streams": {}}]

    def status() -> dict[str, Any]:
        if isinstance(report[0], Exception):
            raise report[0]
        return dict(report[0])

    metrics = Metrics()
    metrics.rows_read.labels("kaasino", "deposits").inc(7)
    web = WebServer(address, registry=metrics.registry, stuck=lambda: stuck, status=status)
    web.start()
    with httpx.Client(base_url=f"http://{address}") as client:
        _wait(lambda: client.get("/health").is_success)
        yield client, stuck, report
    web.stop()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = clock.monotonic() + 10
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert clock.monotonic() < deadline
        clock.sleep(0.01)


def test_health_is_green_while_every_loop_reports(page: Page) -> None:
    """200 and no names."""
    answer = page[0].get("/health")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "stuck": []})


def test_health_is_red_and_names_the_loop_that_is_stuck(page: Page) -> None:
    """503, so that a load balancer or a monitor notices."""
    page[1].append("source:kaasino")
    answer = page[0].get("/health")
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "stuck": ["source:kaasino"]})


def test_metrics_are_in_prometheus_format(page: Page) -> None:
    """Counters carry their labels."""
    assert 'connector_rows_read_total{source="kaasino",stream="deposits"} 7.0' in page[0].get("/metrics").text


def test_status_is_the_commands_report(page: Page) -> None:
    """The same JSON as `connector status --json`."""
    assert page[0].get("/status").json() == {"streams": {}}


def test_status_says_when_the_store_is_away(page: Page) -> None:
    """503 with the reason, no traceback."""
    page[2][0] = Transient("the store is not available")
    answer = page[0].get("/status")
    assert (answer.status_code, answer.json()) == (503, {"error": "the store is not available"})


def test_an_address_in_use_is_one_clear_message() -> None:
    """The configuration is to blame, and the remedy says how to go without."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        web = WebServer(address, registry=Metrics().registry, stuck=list, status=dict)
        with pytest.raises(Misconfigured, match=r"cannot listen .*web: null"):
            web.start()
