"""Backfill: history once, in ranges, through the same path, beside the daemon."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from connector import app as application, backfill, config
from connector.emulators import serve
from connector.emulators.options import Faults
from connector.errors import Halted, Misconfigured
from connector.sources.reader import Reader
from connector.store import lease as leases
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.backfill import Progress
    from connector.store.database import Database

USERS = """
    create view user_profile as select timestamptz '2026-01-01' as dt_update, 'kaasino' as ext_brand_id, user_ext_id,
        'ACTIVE' as core_account_status, timestamptz '2025-01-01' as core_registration_date, 'EN' as core_user_language,
        'EUR' as core_wallet_currency from generate_series(1, 3) as user_ext_id
"""
BETS = "create table bets (id bigint primary key, bet_date timestamptz, bet_amount numeric)"
VIEW = """
    create view casino_bets as select id, 'kaasino' as ext_brand_id, id % 3 + 1 as user_ext_id, 'bet' as type, bet_date,
        bet_amount, null::numeric as win_amount, 'EUR' as currency, 'g1' as game_id, 'Lemons' as game_name from bets
"""


class Casino:
    """An operator with bets, a store, and a configuration that reads bets from now on."""

    def __init__(self, operator: Any, store: Database, destination: str | None = None) -> None:
        self.operator, self.store = operator, store
        operator.execute(USERS, BETS, VIEW)
        self.play(1, 50)
        source = {"name": "casino", "url": operator.url, "page_rows": 7, "lateness": "1s"}
        source["streams"] = {"user_profile": {}, "casino_bets": {}}
        document: dict[str, Any] = {"tenant": "kaasino", "store": {"url": store.url}, "web": None, "sources": [source]}
        if destination is not None:
            sent = {"url": destination, "site_id": "s", "api_key": "k", "events": ["bet_placed"]}
            document["destinations"] = [{"name": "api", "kind": "customerio_track", "lanes": 1, **sent}]
        self.settings = config.parse(document, streams=list(STREAMS))

    def play(self, first: int, last: int, when: str = "now() - interval '30 days'") -> None:
        """Add bets of one euro."""
        self.operator.execute(f"insert into bets select g, {when}, 1 from generate_series({first}, {last}) g")

    def run(self) -> None:
        """Let the daemon's one-shot form read to the heads and deliver."""
        assert application.build(self.settings, once=True).run_once(threading.Event()) == {}

    def fill(
        self, *, stop_after: int | None = None, send: bool = False, since: str | None = None, until: str | None = None
    ) -> Progress:
        """Run the backfill, stopped after so many pages if asked to."""
        pages: list[Progress] = []
        with application.desk(self.settings, source=None, stream="casino_bets") as desk:
            stream = backfill.open_stream(desk, "casino_bets")
            job = backfill.prepare(desk, stream, since=since, until=until, sends=send)
            return backfill.run(
                desk,
                stream,
                job,
                send_to={"api": ["bet_placed"]} if send else {},
                report=pages.append,
                stopped=lambda: stop_after is not None and len(pages) > stop_after,
            )

    def look(self, query: str) -> list[Any]:
        """Read the store."""
        with psycopg.connect(self.store.url) as connection:
            return connection.execute(query).fetchall()

    @property
    def stored(self) -> list[int]:
        """The bets in the store."""
        return sorted(int(row[0]) for row in self.look("select key from crm.events where stream = 'casino_bets'"))


@pytest.fixture
def casino(operator_of: Callable[[str], Any], store: Database) -> Casino:
    """Give a casino whose fifty bets are older than the first start."""
    made = Casino(operator_of("postgresql"), store)
    made.run()
    return made


def test_history_that_the_daemon_left_out_is_loaded_once(casino: Casino) -> None:
    """Bets start `now`; the backfill brings what was before, as history, and totals count it once."""
    assert casino.stored == []
    done = casino.fill()
    assert (done.rows, done.ranges_done) == (50, done.ranges)
    assert casino.stored == list(range(1, 51))
    assert casino.look("select bool_and(history), sum(amount) from crm.events where stream = 'casino_bets'") == [
        (True, 50)
    ]
    assert casino.look("select sum(total_wagered), sum(bet_count) from crm.players") == [(5000, 50)]
    assert casino.fill() == done
    assert casino.look("select sum(total_wagered), sum(bet_count) from crm.players") == [(5000, 50)]


def test_a_stopped_job_goes_on_where_it_was(casino: Casino) -> None:
    """The range's position is committed with its rows."""
    first = casino.fill(stop_after=3)
    assert 0 < first.rows < 50
    assert casino.stored == list(range(1, first.rows + 1))
    assert casino.fill().rows == 50
    assert casino.stored == list(range(1, 51))


def test_a_part_is_loaded_by_its_bounds(casino: Casino) -> None:
    """Both bounds are included."""
    casino.fill(since="11", until="20")
    assert casino.stored == list(range(11, 21))


def test_live_rows_are_left_to_the_daemon(casino: Casino) -> None:
    """A bet after the first start is never loaded as history: its event would be taken from the destinations."""
    casino.play(51, 55, "now()")
    casino.fill()
    assert casino.stored == list(range(1, 51))
    casino.run()
    assert casino.stored == list(range(1, 56))
    assert casino.look("select count(*) from crm.events where not history") == [(5,)]


@pytest.mark.parametrize("bound", ["yesterday", "x", "2026-01-01"])
def test_a_bound_that_is_no_cursor_value_is_refused(casino: Casino, bound: str) -> None:
    """A job's name must mean the same tomorrow."""
    with pytest.raises(Misconfigured, match="is no id of cursor id"):
        casino.fill(since=bound)


def test_two_backfills_of_a_stream_do_not_run_at_once(casino: Casino) -> None:
    """The second is told, and nothing is written by it."""
    with casino.store.connect() as other:
        assert leases.acquire(other, "kaasino/backfill:casino:casino_bets", holder="another process") is not None
        with pytest.raises(Halted, match="is running already"):
            casino.fill()
    assert casino.stored == []


def test_an_unknown_stream_is_named_with_those_that_are_configured(casino: Casino) -> None:
    """One message with the remedy."""
    with (
        application.desk(casino.settings, source=None, stream="bets") as desk,
        pytest.raises(Misconfigured, match="configured are: user_profile, casino_bets"),
    ):
        backfill.open_stream(desk, "bets")


def test_history_is_sent_on_demand_once_it_can_trigger_nothing(
    operator_of: Callable[[str], Any], store: Database
) -> None:
    """Without --send-events none is sent; with it those older than 72 hours are, and younger ones wait."""
    with serve.start(faults=Faults(app_rate=None)) as api:
        made = Casino(operator_of("postgresql"), store, api.url)
        made.play(51, 60, "now() - interval '2 hours'")
        made.run()
        made.fill()
        made.run()
        assert api.workspace.counts()["events"] == 0
        made.fill(send=True)
        made.run()
        assert api.workspace.counts()["events_by_name"] == {"bet_placed": 50}
        assert made.look("select count(*) from crm.parked_events where history") == [(10,)]
        made.run()
        assert api.workspace.counts()["duplicates"] == 0


@pytest.mark.parametrize(("since", "until", "kind"), [("1", "1000000", "id"), ("2026-01-01", "2026-03-01", "time")])
def test_ranges_cover_the_whole_without_a_gap(since: str, until: str, kind: str) -> None:
    """Neighbours share their bound; rows on it are read twice and stored once."""
    ranges = backfill.split(since, until, kind=kind)
    assert (ranges[0][0], ranges[-1][1]) == (since, until)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(ranges))


def test_a_range_is_done_only_when_nothing_is_left_of_it(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is cut by bytes as well as by rows: a short one is never taken for the last."""
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda *args, **limits: replace(read(*args, **limits), full=False))
    assert casino.fill().rows == 50
    assert casino.stored == list(range(1, 51))


def test_rereading_ends_only_when_nothing_is_left_of_it(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart everything from `sealed` to `seen` is read again, however short its pages are."""
    casino.play(51, 90, "now()")
    casino.run()
    with psycopg.connect(casino.store.url) as store:
        store.execute("delete from crm.event_rows where transaction_id is null and key::bigint between 80 and 90")
        store.execute(
            "update crm.checkpoints set sealed_cursor = '50', sealed_key = '{50}', sealed_mark = 50 where stream = 'casino_bets'"
        )
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda *args, **limits: replace(read(*args, **limits), full=False))
    casino.run()
    assert casino.stored == list(range(51, 91))
