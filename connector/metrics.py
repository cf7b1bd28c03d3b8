"""Counters and gauges of one process, in Prometheus' format. Owns names and labels, decides nothing."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """One registry per wired application, so that tests and two applications never share counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        stream, lane = ("source", "stream"), ("destination",)
        self.rows_read = Counter("connector_rows_read", "Rows read by the tail", stream, registry=self.registry)
        self.late_rows = Counter(
            "connector_late_rows", "Rows that only the sweep found", stream, registry=self.registry
        )
        self.delivered = Counter("connector_items_accepted", "Items accepted by an API", lane, registry=self.registry)
        self.refused = Counter("connector_items_refused", "Items refused for good", lane, registry=self.registry)
        self.failures = Counter("connector_loop_failures", "Failed passes of a loop", ("loop",), registry=self.registry)
        self.last_success = Gauge(
            "connector_loop_last_success", "Unix time of a loop's last good pass", ("loop",), registry=self.registry
        )
