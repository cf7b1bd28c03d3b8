"""The table of figures: what was measured and nothing else, and whether it is what it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import report


def results(**figures: dict[str, float]) -> dict[str, Any]:
    machine = {"cpu": "Made-up CPU", "cpus": 2}
    return {"date": "2026-01-02", "machine": machine, "versions": {"connector": "1"}, "figures": figures}


def test_a_figure_that_was_not_measured_has_no_line() -> None:
    measured = results(ingest={"connector_rows_per_second": 1000.0})
    assert [value for _, value, _, _ in report.lines(measured)] == ["1,000 rows/s"]


def test_a_share_is_computed_from_both_speeds_and_compared_to_its_target() -> None:
    speeds = {"connector_rows_per_second": 390.0, "reference_rows_per_second": 1000.0}
    assert ("the connector's share of that", "0.39", "≥ 0.40", True) in report.lines(results(ingest=speeds))


def test_a_bound_from_above_is_missed_only_above_it() -> None:
    for measured, missed in ((0.6, False), (0.61, True)):
        found = report.lines(results(latency={"steady_store_p95_seconds": measured}))
        assert [line[3] for line in found] == [missed]


def test_the_markdown_names_the_machine_and_keeps_bars_inside_their_cells() -> None:
    text = report.markdown(results(ingest={"reference_rows_per_second": 5.0, "rows": 7.0}))
    assert r"| beside it: `COPY \| COPY`, primary and unique key | 5 rows/s |  |" in text
    assert text.splitlines()[-1].startswith("Measured 2026-01-02: 7 casino bets")
    assert "2 cores of Made-up CPU" in text


def test_the_readme_shows_what_was_measured_last() -> None:
    """Its table is the rendering of bench/results.json."""
    assert report.markdown(json.loads(report.RESULTS.read_text())) in Path("README.md").read_text()


def test_the_last_run_has_every_figure_of_the_table() -> None:
    """Nothing that is asked of the connector drops out because a benchmark calls it by another name."""
    assert len(report.lines(json.loads(report.RESULTS.read_text()))) == len(report.FIGURES)
