"""Two daemons on one configuration: one works, the other waits; whatever becomes of the first, each row is there once."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

Make = Any
ROWS: Final = 300
STARTS_WITHIN_SECONDS: Final = 60.0
TAKES_OVER_WITHIN_SECONDS: Final = 10.0
LEASE: Final = "select holder, epoch, pids from crm.leases where name like '%%source:%%'"
#: A page that is held by a lock of the test, one whose server waits for its client, and a standby that looks.
HELD: Final = "select pid from pg_stat_activity where query like 'copy crm.event_rows%%' and wait_event_type = 'Lock'"
OPEN: Final = "select pid from pg_stat_activity where pid = %s and wait_event = 'ClientRead'"
LOOKS: Final = """
    select pid from pg_stat_activity
    where query like '%%from crm.leases l where name%%' and pid <> all(%s) and pid <> pg_backend_pid()
"""


@contextlib.contextmanager
def held_in_mid_copy(casino: Any, wait: Make) -> Iterator[int]:
    """Hold a page at the start of its COPY and give its backend; afterwards its server waits for the rows."""
    with psycopg.connect(casino.store.url) as rival:
        rival.execute("lock table crm.event_rows in access exclusive mode")
        casino.deposit(ROWS)
        ((held),) = wait(lambda: casino.look(HELD), what="a page is held")
        yield int(held["pid"])


def two_daemons(casino: Any, daemon: Make, wait: Make) -> list[Any]:
    """Start two daemons at once; returns the one that works first, and the one that stands by then."""
    pair = [daemon(casino.document(page_rows=100)) for _ in range(2)]
    wait(lambda: casino.stored() == casino.rows, what="a daemon reads", seconds=STARTS_WITHIN_SECONDS)
    (lease,) = casino.look(LEASE)
    wait(lambda: casino.look(LOOKS, lease["pids"]), what="the other stands by", seconds=STARTS_WITHIN_SECONDS)
    return sorted(pair, key=lambda each: f":{each.process.pid}:" not in lease["holder"])


def lease_after(casino: Any, before: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the source's lease once it is another's."""
    return [lease for lease in casino.look(LEASE) if lease["epoch"] > before["epoch"]]


def assert_calm(*daemons: Any) -> None:
    """What they logged are records for machines, few of them, and nobody's traceback."""
    for each in daemons:
        lines = each.lines()
        assert len(lines) < 20, lines
        assert all(isinstance(json.loads(line), dict) for line in lines), lines


def test_a_frozen_daemon_is_replaced_and_wakes_up_as_the_standby(casino_of: Make, daemon: Make, wait: Make) -> None:
    """Frozen in mid-COPY, its transaction open: the other ends it and goes on; woken up, it writes nothing, and waits.

    Killed in mid-COPY, the second makes room for the first again.
    """
    casino = casino_of("postgresql", rows=ROWS)
    first, second = two_daemons(casino, daemon, wait)
    (before,) = casino.look(LEASE)
    with held_in_mid_copy(casino, wait) as backend:
        first.process.send_signal(signal.SIGSTOP)
    wait(lambda: casino.look(OPEN, backend), what="the server waits for the frozen one")
    assert before["pids"] == [backend]
    (taken,) = wait(
        lambda: lease_after(casino, before), what="the second takes over", seconds=TAKES_OVER_WITHIN_SECONDS
    )
    wait(lambda: casino.stored() == casino.rows, what="the second commits")
    casino.assert_whole()
    assert taken["holder"] != before["holder"]
    assert taken["epoch"] == before["epoch"] + 1
    assert casino.look("select pid from pg_stat_activity where pid = %s", backend) == []

    first.process.send_signal(signal.SIGCONT)
    wait(lambda: casino.look(LOOKS, taken["pids"]), what="the first stands by")
    casino.deposit(ROWS)
    wait(lambda: casino.stored() == casino.rows, what="the second goes on")
    assert casino.look(LEASE) == [taken]
    casino.assert_whole()

    with held_in_mid_copy(casino, wait):
        second.process.kill()
    wait(lambda: casino.stored() == casino.rows, what="the first commits", seconds=TAKES_OVER_WITHIN_SECONDS)
    assert casino.look(LEASE)[0]["holder"] == before["holder"]
    casino.assert_whole()
    assert_calm(first, second)
