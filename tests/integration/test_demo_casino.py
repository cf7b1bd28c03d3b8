"""The demo casino on a real PostgreSQL: its history, its views and their plans, its traffic and how that ends."""

from __future__ import annotations

import shutil
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg import sql

from connector import clock
from connector.demo import casino
from connector.demo.traffic import Floor, Traffic
from connector.store import embedded
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAYERS: Final = 20_000
BETS: Final = 60_000
DEADLINE_SECONDS: Final = 25.0
#: In the casino's own time: over 100,000 rows, and the rarest happening comes once in 8,000.
LIFE_SECONDS: Final = 120.0
BEAT_SECONDS: Final = 0.25
#: View -> (stream, mode, cursor, key, index that serves it).
VIEWS: Final = {
    "user_profile": ("user_profile", None, "dt_update", ("ext_brand_id", "user_ext_id"), "users_crm"),
    "deposits": ("deposits", None, "dt_finalized", ("transaction_id",), "payments_crm"),
    "withdrawals": (
        *("withdrawals", None, "dt_finalized", ("transaction_id", "withdrawal_status")),
        "payment_transitions_crm",
    ),
    "casino_bets": ("casino_bets", "single_table", "id", ("id",), "balance_transactions_pkey"),
    "casino_bets_separate": ("casino_bets", "separate", "id", ("id",), "balance_transactions_pkey"),
    "casino_wins": ("casino_wins", "wins", "id", ("id",), "balance_transactions_wins_crm"),
    "casino_win_per_bet": ("casino_bets", "win_per_bet", "dt", ("bet_id",), "casino_games_crm"),
    "sport_bet_open": ("sport_bet_open", None, "id", ("id",), "sport_bets_pkey"),
    "sport_bet_selection_open": ("sport_bet_selection_open", None, "id", ("id",), "sport_bet_selections_pkey"),
    "sport_bet_settled": ("sport_bet_settled", None, "id", ("id",), "sport_bet_settlements_pkey"),
    "sport_bet_selection_settled": (
        *("sport_bet_selection_settled", None, "id", ("id",)),
        "sport_selection_results_pkey",
    ),
    "failed_deposits": ("failed_deposits", None, "dt_finalized", ("transaction_id",), "payments_failed_crm"),
    "bonuses": ("bonuses", None, "id", ("id",), "bonus_transitions_pkey"),
}
KINDS: Final = {
    *("round", "login", "rollback", "late round", "early id"),
    *("deposit", "declined deposit", "late deposit", "chargeback"),
    *("withdrawal requested", "withdrawal completed", "withdrawal rejected", "withdrawal cancelled"),
    *("registration", "profile edit", "verification", "tagging", "cool-off", "self-exclusion"),
    *("sport bet", "bet won", "bet lost", "bet void", "bet cashout", "resettled bet", "bonus", "bonus ended"),
}


@pytest.fixture(scope="module")
def built() -> Iterator[casino.Casino]:
    """Give a casino with some months of history."""
    directory = Path(tempfile.mkdtemp(prefix="demo-casino."))
    directory.chmod(0o755)
    server = embedded.start(directory, settings={"fsync": "off"})
    try:
        yield casino.build(server, players=PLAYERS, bets=BETS, seed=11)
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def reader(built: casino.Casino) -> Iterator[psycopg.Connection]:
    """Give a session of the connector's own role."""
    with psycopg.connect(built.url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def owner(built: casino.Casino) -> Iterator[psycopg.Connection]:
    """Give a session of the owner."""
    with psycopg.connect(built.admin_url, autocommit=True) as connection:
        yield connection


def until(condition: Callable[[], bool], *, what: str) -> None:
    """Wait for a condition, and fail with `what` when it does not come true in time."""
    deadline, pause = clock.monotonic() + DEADLINE_SECONDS, threading.Event()
    while not condition():
        assert clock.monotonic() < deadline, what
        pause.wait(0.02)


def one(connection: psycopg.Connection, query: str, *parameters: object) -> Any:
    """Return the first column of the only row."""
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def test_history_has_the_promised_numbers(built: casino.Casino, owner: psycopg.Connection) -> None:
    """As many players and casino rows as asked for, two deposits a player, withdrawals in all their statuses."""
    counts = built.counts()

    assert tuple(counts) == built.streams
    assert counts["user_profile"] == PLAYERS
    assert counts["casino_bets"] == BETS
    assert 1.7 * PLAYERS < counts["deposits"] < 2.3 * PLAYERS
    assert 1.0 * PLAYERS < counts["withdrawals"] < 1.6 * PLAYERS
    assert one(owner, "select count(distinct status) from casino.payment_transitions") == 7
    assert one(owner, "select count(*) from casino.payments where action = 'deposit' and not success") > PLAYERS / 10
    assert one(owner, "select count(distinct type) from crm_export.casino_bets") == 4
    assert one(owner, "select count(*) from crm_export.deposits where is_rollback") > 0
    assert 0.7 * PLAYERS < counts["sport_bet_open"] < 1.5 * PLAYERS
    assert counts["sport_bet_open"] < counts["sport_bet_selection_open"]
    assert one(owner, "select count(distinct bet_status) from crm_export.sport_bet_settled") == 5
    assert one(owner, "select count(*) from crm_export.sport_bet_settled where is_rollback") > 0
    assert counts["failed_deposits"] > PLAYERS / 10
    assert one(owner, "select count(distinct status) from crm_export.bonuses") == 6


def test_history_is_believable(owner: psycopg.Connection) -> None:
    """The house keeps a little, most play little, all are grown up, made up, and live before now."""
    returned = one(owner, "select sum(win_amount) / sum(bet_amount) from crm_export.casino_bets where currency = 'EUR'")
    assert 0.7 < returned < 1.25
    paid = """
        select sum(win_amount) / sum(bet_amount) from crm_export.sport_bet_settled where currency = 'EUR'
        and bet_status <> 'VOID' and bet_id not in (select bet_id from crm_export.sport_bet_settled where is_rollback)
    """
    assert 0.7 < one(owner, paid) < 1.1
    assert one(owner, "select max(settlement_date) < timezone('UTC', now()) from crm_export.sport_bet_settled")
    share = """
        with per_player as (select user_ext_id, count(*) as n from crm_export.casino_bets group by 1)
        select percentile_cont(0.5) within group (order by n) / max(n) from per_player
    """
    assert one(owner, share) < 0.3
    assert one(owner, "select bool_and(user_email like '%%@example.com') from crm_export.user_profile")
    assert one(owner, "select max(user_birthdate) < now() - interval '18 years' from crm_export.user_profile")
    assert one(owner, "select max(bet_date) < timezone('UTC', now()) from crm_export.casino_bets")
    assert one(owner, "select count(distinct core_account_status) from crm_export.user_profile") == 7
    assert one(owner, "select max(n) from (select count(*) as n from crm_export.user_profile group by dt_update)") > 20


@pytest.mark.parametrize("view", VIEWS)
def test_view_has_every_required_column(view: str, reader: psycopg.Connection) -> None:
    """The reader's role can select each view, and finds all that the stream's contract asks for."""
    stream, mode, cursor, key, _ = VIEWS[view]
    found = reader.execute(sql.SQL("select * from {} limit 1").format(sql.Identifier(casino.SCHEMA, view)))
    columns = {column.name for column in found.description or ()}

    assert found.fetchone() is not None
    assert {cursor, *key} <= columns
    for column in STREAMS[stream].columns_for(mode):
        assert not column.required or {column.name, *column.aliases} & columns, column.name


@pytest.mark.parametrize("form", ["row values", "expanded"])
@pytest.mark.parametrize("view", VIEWS)
def test_page_is_served_by_the_index(view: str, form: str, reader: psycopg.Connection) -> None:
    """A page in the middle of the view starts in the index, and nothing is sorted."""
    _, _, cursor, key, index = VIEWS[view]
    names = [sql.Identifier(name) for name in dict.fromkeys((cursor, *key))]
    table, columns = sql.Identifier(casino.SCHEMA, view), sql.SQL(", ").join(names)
    first = sql.SQL("select {} from {} where {} is not null order by {} offset 500 limit 1")
    row = reader.execute(first.format(columns, table, names[0], columns)).fetchone()
    assert row is not None
    values = [sql.Literal(value) for value in row]
    bound = sql.SQL(", ").join(values)
    condition = sql.SQL("({}) > ({})").format(columns, bound)
    if form == "expanded":
        condition = sql.SQL("{c} >= {v} and ({c} > {v} or ({c} = {v} and ({columns}) > ({bound})))").format(
            c=names[0], v=values[0], columns=columns, bound=bound
        )
    page = sql.SQL("explain select * from {} where {} order by {} limit 1000").format(table, condition, columns)
    plan = "\n".join(line for (line,) in reader.execute(page))

    assert f"using {index}" in plan, plan
    assert "Sort" not in plan, plan
    assert "Seq Scan on users" not in plan, plan


def test_reader_sees_the_views_and_nothing_else(reader: psycopg.Connection) -> None:
    """The role can neither read the base tables nor write."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("select 1 from casino.users")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        reader.execute("create table public.mine (id integer)")


@pytest.mark.parametrize(
    "change",
    [
        "update casino.profiles set city = city where user_id = %s",
        "update casino.phones set active = active where user_id = %s",
        "insert into casino.users_tags values (%s, 'touched', now())",
        "delete from casino.users_tags where user_id = %s",
        "insert into casino.users_groups values (%s, '00099', now())",
        "update casino.users set state = state where id = %s",
    ],
)
def test_every_change_moves_dt_update(change: str, owner: psycopg.Connection) -> None:
    """Whatever table a player's column comes from, its change is a new dt_update."""
    player = one(owner, "select min(user_id) from casino.users_tags join casino.phones using (user_id)")
    query = "select dt_update from crm_export.user_profile where user_ext_id = %s"
    before = one(owner, query, player)
    owner.execute(change.encode(), (player,))

    assert before < one(owner, query, player)


def test_rows_without_cursor_do_not_count(built: casino.Casino, owner: psycopg.Connection) -> None:
    """A deposit that succeeded and is not final shows in the view, and not in the counts."""
    before = built.counts()["deposits"]
    owner.execute(
        "update casino.payments set finished_at = null where id = (select min(transaction_id) from crm_export.deposits"
        " where dt_finalized is not null)"
    )

    assert before - 1 == built.counts()["deposits"]


def test_life_brings_every_happening_and_late_commits(built: casino.Casino, reader: psycopg.Connection) -> None:
    """Two minutes bring each kind of happening, news in every view, and a bet that appears below visible ones."""
    before, highest = built.counts(), one(reader, "select max(id) from crm_export.casino_bets")
    seen: set[int] = set()
    late: set[int] = set()
    with closing(Floor(built.admin_url, rate=1200, seed=5)) as floor:
        life = floor.life
        while not late or KINDS - life.happened.keys():
            assert life.time < LIFE_SECONDS, f"not everything happened: {KINDS - life.happened.keys()}"
            floor.beat(life.time + BEAT_SECONDS)
            if not late:
                rows = reader.execute("select id from crm_export.casino_bets where id > %s", (highest,)).fetchall()
                late.update(number for (number,) in rows if seen and number < max(seen) and number not in seen)
                seen.update(number for (number,) in rows)
        floor.end()
    after = built.counts()

    assert all(before[stream] < after[stream] for stream in built.streams)
    assert after["casino_bets"] - before["casino_bets"] <= floor.written
    assert any("deposited" in sentence for sentence in life.recent)


def test_traffic_keeps_time_by_itself(built: casino.Casino, reader: psycopg.Connection) -> None:
    """Once started, traffic shows bets after bets, and tells people about them."""
    highest = one(reader, "select max(id) from crm_export.casino_bets")
    bets = "select count(*) from crm_export.casino_bets where id > %s"
    traffic = Traffic(built.admin_url, rate=1200, seed=5)
    traffic.start()
    try:
        until(lambda: traffic.failed is not None or one(reader, bets, highest) > 400, what="the casino stands still")
    finally:
        traffic.stop()

    assert traffic.failed is None
    assert traffic.recent


def test_stop_leaves_nothing_behind(built: casino.Casino, owner: psycopg.Connection) -> None:
    """When stop returns, no session of the traffic is left and no count changes any more; stopping again is nothing."""
    query = "select count(*) from pg_stat_activity where application_name = 'casino'"
    traffic = Traffic(built.admin_url, rate=400, seed=6)
    traffic.start()
    open_query = f"{query} and state = 'idle in transaction'"
    until(lambda: bool(one(owner, open_query)), what="no transaction stayed open")
    traffic.stop()
    counts = built.counts()
    traffic.stop()

    assert traffic.failed is None
    until(lambda: one(owner, query) == 0, what="a session is left")
    assert counts == built.counts()


def test_failure_is_shown(built: casino.Casino, owner: psycopg.Connection) -> None:
    """Traffic whose connection is cut ends, and says why."""
    traffic = Traffic(built.admin_url, rate=100, seed=7)
    traffic.start()
    owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'casino'")
    until(lambda: traffic.failed is not None, what="the failure was not noticed")
    traffic.stop()

    assert isinstance(traffic.failed, psycopg.OperationalError)
