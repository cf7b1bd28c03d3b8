"""The store holds what was committed: every row once, whatever the order of commits, polls, sweeps, cuts and kills.

After every pass nothing is stored that was not committed, everything at or below a sealed mark is stored, and nothing
that may still be committed lies there. At the end, with all of it over, the store equals the casino.
CONNECTOR_EXAMPLES=5000 looks longer than a test run has time for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.scenarios.committed.machine import CommittedIsStored
from tests.scenarios.committed.mutations import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenarios.committed.daemon import Daemon
    from tests.scenarios.committed.tables import Precision

#: Examples for PostgreSQL, both precisions together; the other servers get a share of it beside.
EXAMPLES: Final = int(os.environ.get("CONNECTOR_EXAMPLES", "30"))
STEPS: Final = 12
#: Servers that only a soak has time for.
OTHERS: Final = (
    [("standby", "fine", 0.25), ("mysql", "fine", 0.25), ("mysql", "coarse", 0.25)]
    if "CONNECTOR_EXAMPLES" in os.environ
    else []
)
#: Found out by tests/integration at once, and here only after long: there is time for them in a soak.
RARE: Final = {"no_sweep", "ask_for_no_gaps", "seal_a_second_early", "count_what_is_there"}
#: A mutation that so many examples do not show would pass unnoticed.
MUTATION_EXAMPLES: Final = 400
#: Hypothesis gives up shrinking after five minutes: a failure must come to be printed.
LONGEST_SECONDS: Final = 0 if "CONNECTOR_EXAMPLES" in os.environ else 600

#: A failure is shown smaller only where there is time for it.
SHRINKING: Final[dict[str, Any]] = (
    {} if "CONNECTOR_EXAMPLES" in os.environ else {"phases": [Phase.reuse, Phase.generate]}
)

pytestmark = pytest.mark.timeout(LONGEST_SECONDS)


def run(daemon: Daemon, examples: int, **changes: Any) -> None:
    """Run the machine. Real servers answer every step: what Hypothesis calls slow is the price, not a fault."""
    chosen = settings(
        max_examples=max(1, examples),
        stateful_step_count=STEPS,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow],
        **changes,
    )
    run_state_machine_as_test(lambda: CommittedIsStored(daemon), settings=chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dialect", "precision", "share"),
    [
        ("postgresql", "fine", 0.6),
        ("postgresql", "coarse", 0.4),
        *OTHERS,
    ],
)
def test_the_store_holds_what_was_committed(
    daemon_of: Callable[[str, Precision], Daemon], dialect: str, precision: Precision, share: float
) -> None:
    run(daemon_of(dialect, precision), round(EXAMPLES * share), **SHRINKING)


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if LONGEST_SECONDS == 0 or name not in RARE])
def test_a_connector_that_loses_or_doubles_rows_is_found_out(
    daemon_of: Callable[[str, Precision], Daemon], monkeypatch: pytest.MonkeyPatch, mutation: str
) -> None:
    daemon = daemon_of("postgresql", "fine")
    MUTATIONS[mutation](monkeypatch)
    with pytest.raises(AssertionError) as found:
        run(daemon, MUTATION_EXAMPLES, phases=[Phase.generate], derandomize=True)
    print(found.value)
