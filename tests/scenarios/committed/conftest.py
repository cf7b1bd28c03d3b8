"""A casino and its connector, on any of the servers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.scenarios.committed.casino import Casino
from tests.scenarios.committed.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.store.database import Database
    from tests.scenarios.committed.tables import Precision

#: The machine's assertions show what they compare, as a test's own do.
pytest.register_assert_rewrite("tests.scenarios.committed.machine")


@pytest.fixture
def daemon_of(
    request: pytest.FixtureRequest, operator_of: Callable[[str], Any], store: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, Precision], Daemon]]:
    """Give a maker of a daemon and its casino, by dialect and precision of the time columns."""
    with contextlib.ExitStack() as stack:

        def make(dialect: str, precision: Precision) -> Daemon:
            standby = request.getfixturevalue("standby") if dialect == "standby" else None
            casino = Casino(operator_of(dialect), precision, standby)
            casino.create()
            stack.callback(casino.close)
            daemon = Daemon(casino, store)
            stack.callback(daemon.close)
            daemon.install(stack.enter_context(monkeypatch.context()))
            return daemon

        yield make
