"""Counters and gauges of one process, in Prometheus' format. Owns names and labels, decides nothing."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """One registry per wired application, so that tests and two applications never share counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        stream, lane = ("source", "stream"), ("destination",)
        self.rows_read = Counter("connector_rows_read", "Rows read by the tail", stream, registry=self.registry)
        self.stage_seconds = Counter(
            "connector_stage_seconds",
            "Time spent on pages of the tail: read and normalise of one page overlap commit of the one before",
            (*stream, "stage"),
            registry=self.registry,
        )
        self.late_rows = Counter(
            "connector_late_rows", "Rows that only the sweep found", stream, registry=self.registry
        )
        self.lateness = Histogram(
            "connector_lateness_seconds",
            "Age within which a late row was found",
            stream,
            buckets=(5, 30, 60, 120, 300, 900, 3600, 86400),
            registry=self.registry,
        )
        self.delivered = Counter("connector_items_accepted", "Items accepted by an API", lane, registry=self.registry)
        self.refused = Counter("connector_items_refused", "Items refused for good", lane, registry=self.registry)
        self.failures = Counter("connector_loop_failures", "Failed passes of a loop", ("loop",), registry=self.registry)
        self.last_success = Gauge(
            "connector_loop_last_success", "Unix time of a loop's last good pass", ("loop",), registry=self.registry
        )

    def note_late(self, source: str, stream: str, rows: int, age: float) -> None:
        """Count rows that came late, but within `age` seconds."""
        self.late_rows.labels(source, stream).inc(rows)
        for _ in range(rows):
            self.lateness.labels(source, stream).observe(age)
