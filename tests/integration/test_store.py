"""THE transaction on a real PostgreSQL: all of a page or nothing, one writer at a time, `seq` in commit order."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings, strategies as st

from connector import clock
from connector.errors import LeaseLost, Misconfigured, Transient
from connector.normalised import Normalised
from connector.position import EARLIEST, Position
from connector.store import checkpoints, database, lease as leases
from connector.store.commit import Batch
from connector.store.draft import draft

if TYPE_CHECKING:
    from collections.abc import Callable

Writer = Any
Look = Any
Frames = Any
AT: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_TABLES: Final = ("event_rows", "players", "player_money", "player_changes", "quarantine", "checkpoints", "fx_pending")


def contents(look: Look) -> dict[str, list[Any]]:
    """Return all that a commit can write."""
    return {table: look(f"select * from crm.{table} order by 1, 2, 3") for table in _TABLES}


def deposit(key: str, player: str = "7", amount: str = "10.00", **changes: Any) -> dict[str, Any]:
    """Return a deposit event."""
    return {"key": key, "external_id": player, "amount": Decimal(amount), "occurred_at": AT, **changes}


# Schema -------------------------------------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(store: database.Database, look: Look) -> None:
    """The schema is created once; a second time finds it current."""
    shape = "select table_name, column_name, data_type from information_schema.columns where table_schema = 'crm' order by 1, 2"
    before = look(shape)
    assert database.is_current(store)
    assert database.migrate(store) == database.migrate(store)
    assert look(shape) == before


def test_a_column_that_a_page_leaves_out_is_null(look: Look) -> None:
    """What no row of a page tells is not sent: only the number has a default, and it is always sent."""
    told = "select column_name from information_schema.columns where table_schema = 'crm' and table_name = 'event_rows'"
    assert look(f"{told} and column_default is not null") == [{"column_name": "seq"}]


def test_two_processes_may_migrate_at_once(postgres: Any) -> None:
    """One creates the schema, the other waits and finds it."""
    fresh = database.Database(postgres.create("migrated_twice"))
    assert not database.is_current(fresh)
    found: list[object] = []
    gate = threading.Barrier(3)

    def migrate() -> None:
        gate.wait()
        try:
            found.append(database.migrate(fresh))
        except Exception as error:  # noqa: BLE001 - judged below
            found.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 1, found
    assert database.is_current(fresh)
    postgres.drop("migrated_twice")


def test_a_role_that_may_not_create_is_told_so(postgres: Any) -> None:
    """The message says which right is missing; nothing is left behind."""
    url = postgres.create("locked_down")
    with pytest.raises(Misconfigured, match="permission denied") as caught:
        database.migrate(database.Database(postgres.reading(url)))
    assert "grant" in caught.value.hint
    postgres.drop("locked_down")


def test_a_schema_of_a_newer_version_is_left_alone(store: database.Database, look: Look) -> None:
    """Whoever goes back to an older version is told which one to run; nothing was changed."""
    look("update crm.schema_version set version_num = '9999' returning 1")
    with pytest.raises(Misconfigured, match="newer version: revision 9999") as caught:
        database.migrate(store)
    assert "the version that migrated it" in caught.value.hint
    assert look("select version_num from crm.schema_version") == [{"version_num": "9999"}]


def test_a_reader_may_not_run_on_a_schema_that_is_current(store: database.Database, postgres: Any) -> None:
    """It could not write a page either: it is told at the start, and what to do."""
    with pytest.raises(Misconfigured, match="permission denied for schema crm") as caught:
        database.migrate(database.Database(postgres.reading(store.url)))
    assert "crm_writer" in caught.value.hint


def test_the_newest_revision_is_the_one_of_the_last_file() -> None:
    """Each migration's file begins with its revision, and they are in one line."""
    script = ScriptDirectory(str(database.MIGRATIONS), version_locations=[str(database.MIGRATIONS)])
    assert script.get_heads() == [database.newest_revision()]
    for item in script.walk_revisions():
        assert item.path.rpartition("/")[2].startswith(f"{item.revision}_")


# All or nothing -----------------------------------------------------------------------------------------------------


def test_a_page_is_committed_whole_or_not_at_all(writer: Writer, look: Look, frames: Frames) -> None:
    """A failure at the very last step, the lease, leaves no trace of players, events, totals, rejections or position."""
    checkpoints.create(writer.connection, writer.checkpoint)
    writer.profiles({"external_id": "7"})
    before = contents(look)
    position = Position("2026-01-05 12:00:00+00", ("d1",), 1)
    batch = Batch(
        writer.checkpoint,
        Normalised(
            events=frames.events(deposit("d1"), deposit("d2", player="new")),
            rejections=frames.rejections({"row_key": "bad"}),
        ),
        advance=frames.advance(seen=position, sealed=position),
        rows=2,
    )
    look("update crm.leases set epoch = epoch + 1 returning 1")
    with pytest.raises(LeaseLost):
        writer.commit(batch)
    assert contents(look) == before

    writer.lease = replace(writer.lease, epoch=writer.lease.epoch + 1)
    writer.commit(batch)
    after = contents(look)
    assert len(after["event_rows"]) == 2
    assert len(after["quarantine"]) == 1
    (checkpoint,) = after["checkpoints"]
    assert (checkpoint["seen_cursor"], checkpoint["sealed_key"], checkpoint["rows"]) == (position.cursor, ["d1"], 2)
    assert checkpoints.load(writer.connection, "kaasino", "casino", "deposits") == replace(
        writer.checkpoint, seen=position, sealed=position, started=EARLIEST
    )


def test_a_failure_after_the_rows_takes_them_back(writer: Writer, look: Look, frames: Frames) -> None:
    """What a page brings beside its rows belongs to the same transaction."""
    before = contents(look)

    def fail(_: object) -> None:
        raise RuntimeError("the range could not be written")

    with pytest.raises(RuntimeError):
        writer.commit(Batch(writer.checkpoint, Normalised(events=frames.events(deposit("d1"))), fresh=True, after=fail))
    assert contents(look) == before


def test_a_rejection_seen_again_is_counted(writer: Writer, look: Look, frames: Frames) -> None:
    """It stands in the quarantine once, with its newest payload."""
    for field in ("amount", "amount", "amount", "currency"):
        refused = frames.rejections({"row_key": "bad", "field": field})
        writer.commit(Batch(writer.checkpoint, Normalised(rejections=refused)))
    assert [(row["field"], row["seen_count"]) for row in look("select * from crm.quarantine order by id")] == [
        ("amount", 3),
        ("currency", 1),
    ]


# One writer at a time -----------------------------------------------------------------------------------------------


def test_a_lease_has_one_holder(store: database.Database, writer: Writer) -> None:
    """Another process gets none while it is held, one after it was released, with a higher epoch."""
    with store.connect() as other, store.connect() as again:
        assert leases.acquire(other, writer.lease.name, holder="other") is None
        leases.release(writer.connection, writer.lease)
        taken = leases.acquire(other, writer.lease.name, holder="other")
        assert taken is not None
        assert taken.epoch > writer.lease.epoch
        leases.release(again, writer.lease)  # another's by now: nothing happens
        assert leases.acquire(again, writer.lease.name) is None


def test_a_writer_that_lost_its_lease_writes_nothing(store: database.Database, writer: Writer, look: Look) -> None:
    """A successor ends its session; woken up, with a new session and the old epoch, it is refused."""
    writer.events(deposit("d1"))
    backend = writer.connection.info.backend_pid
    look("update crm.leases set expires_at = '-infinity' returning 1")
    with store.connect() as connection:
        taken = leases.acquire(connection, writer.lease.name, holder="other")
        assert taken is not None
        assert look("select count(*) n from pg_stat_activity where pid = %s", backend)[0]["n"] == 0
        with pytest.raises((Transient, psycopg.OperationalError)):
            writer.events(deposit("d2"))
        writer.close()
        writer.connection = store.connect()
        with pytest.raises(LeaseLost):
            writer.events(deposit("d3"))
    assert [row["key"] for row in look("select key from crm.event_rows")] == ["d1"]


def test_a_transaction_left_open_cannot_commit_after_a_takeover(
    store: database.Database, writer: Writer, look: Look
) -> None:
    """A process frozen in the middle of its commit wakes up to a session that is gone."""
    writer.connection.execute("begin")
    writer.connection.execute(
        "insert into crm.players (tenant, brand_id, external_id) values ('kaasino', 'b', 'frozen')"
    )
    look("update crm.leases set expires_at = '-infinity' returning 1")
    with store.connect() as connection:
        assert leases.acquire(connection, writer.lease.name, holder="other") is not None
    with pytest.raises(psycopg.OperationalError):
        writer.connection.execute("commit")
    assert look("select * from crm.players") == []


def test_of_two_successors_one_gets_the_lease(store: database.Database, writer: Writer, look: Look) -> None:
    """However close they come, the epoch lets one through."""
    for _ in range(5):
        look("update crm.leases set expires_at = '-infinity' returning 1")
        gate, taken = threading.Barrier(4), []
        connections = [store.connect() for _ in range(4)]

        def take(number: int, gate: threading.Barrier, taken: list[Any], connection: psycopg.Connection[Any]) -> None:
            gate.wait()
            taken.append(leases.acquire(connection, writer.lease.name, holder=f"holder {number}"))

        threads = [threading.Thread(target=take, args=(n, gate, taken, each)) for n, each in enumerate(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for connection in connections:
            connection.close()
        assert len(taken) == 4
        assert sum(lease is not None for lease in taken) == 1


def test_a_renewed_lease_does_not_expire(writer: Writer, look: Look) -> None:
    """Renewing moves the expiry of what is held, and nothing of what is another's."""
    look("update crm.leases set expires_at = clock_timestamp() + interval '1 second' returning 1")
    leases.renew(writer.connection, [writer.lease, replace(writer.lease, name="nobody's")])
    (row,) = look("select expires_at - clock_timestamp() as left from crm.leases")
    assert row["left"] > timedelta(seconds=leases.TTL_SECONDS - 2)
    leases.renew(writer.connection, [replace(writer.lease, epoch=writer.lease.epoch - 1)])


# Order --------------------------------------------------------------------------------------------------------------


def test_no_event_ever_appears_below_one_that_was_seen(
    store: database.Database, writer_of: Callable[..., Writer]
) -> None:
    """`seq` and `change_seq` are commit order: of two threads committing, a reader can skip nothing."""
    writers = [writer_of(stream="deposits"), writer_of(stream="withdrawals")]
    failures: list[BaseException] = []

    def commit(writer: Writer, number: int) -> None:
        try:
            for page in range(25):
                rows = [deposit(f"{number}.{page}.{row}", player=str(row % 7)) for row in range(1 + page * 7 % 40)]
                writer.events(*rows, fresh=bool(page % 2))
                writer.profiles({"external_id": str(page % 7), "email": f"{number}.{page}@example.com"})
        except BaseException as error:  # noqa: BLE001 - judged below
            failures.append(error)

    threads = [threading.Thread(target=commit, args=(writer, number)) for number, writer in enumerate(writers)]
    for thread in threads:
        thread.start()
    seen: dict[str, set[int]] = {"event_rows.seq": set(), "player_changes.change_seq": set()}
    with store.connect() as reader:
        while any(thread.is_alive() for thread in threads):
            for name, known in seen.items():
                table, _, column = name.partition(".")
                highest = max(known, default=0)
                visible = {row[0] for row in reader.execute(f"select {column} from crm.{table}".encode())}
                assert min(visible - known, default=highest + 1) > highest, name
                known.update(visible)
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen["event_rows.seq"]) > 0


# Two ways in --------------------------------------------------------------------------------------------------------


def _mixed_page() -> list[dict[str, Any]]:
    return [
        deposit("d1", amount="10.005"),
        deposit("d2", amount="0.015", currency="GBP"),
        deposit("d3", amount="5", currency=None),
        deposit("d4", amount="7.25", currency="XXX"),
        deposit("d5", player="stub|\\", currency=None),
        deposit("d6", amount="3", name="custom_deposit_reversed", sign=-1),
        deposit("b1", amount="1.335", name="bet_placed", effect="wagered"),
        deposit("b2", amount="2.5", name="bet_settled", effect="won", stake=Decimal("4.445")),
        deposit("w1", amount="4", name="withdrawal_requested", effect=None),
        deposit(
            'odd "key", with\ncomma', properties='{"note":"a \\"quoted\\", line\\nbreak 🙂"}', transaction_id="t,1"
        ),
        deposit("none", amount="1", properties="{}", currency="EUR"),
    ]


def test_the_fast_path_and_staging_give_the_same_store(writer: Writer, look: Look) -> None:
    """COPY straight in or through staging: events, totals and what waits for a rate are the same."""
    views: list[dict[str, list[Any]]] = []
    for fresh in (True, False):
        writer.connection.execute(
            "truncate crm.event_rows, crm.players, crm.fx_pending, crm.event_streams restart identity cascade"
        )
        look("select setval('crm.event_seq', 1, false)")
        writer.profiles({"external_id": "7", "default_currency_code": "GBP"})
        assert writer.events(*_mixed_page(), fresh=fresh).events == len(_mixed_page())
        ignored = {"stored_at", "since", "changed_at", "change_seq"}
        found = contents(look)
        views.append(
            {
                table: [{k: v for k, v in row.items() if k not in ignored} for row in rows]
                for table, rows in found.items()
            }
        )
    assert views[0] == views[1]
    assert len(views[0]["fx_pending"]) == 2


def test_a_page_reads_its_own_players_whatever_the_store_held_before(writer: Writer, look: Look) -> None:
    """A plan made for an empty store is kept until autovacuum comes by: meanwhile no page may read all other players."""
    for number in range(12):  # the driver prepares what it has seen five times, the server keeps a plan after five more
        writer.events(deposit(str(number)), fresh=True)
    look(
        "insert into crm.players (tenant, brand_id, external_id, is_stub)"
        " select tenant, brand_id, n::text, false from crm.players, generate_series(1000, 5999) n returning 1"
    )
    read = "select seq_tup_read + idx_tup_fetch as n from pg_stat_user_tables where relname = 'players'"
    writer.connection.execute("select pg_stat_force_next_flush()")
    before = look(read)[0]["n"]
    writer.events(deposit("100", "3000"), deposit("101", "4000"), fresh=True)
    writer.connection.execute("select pg_stat_force_next_flush()")
    assert 0 < look(read)[0]["n"] - before < 50


def test_plans_of_small_pages_are_for_small_pages(writer: Writer, frames: Frames) -> None:
    """What is best for thousands of rows would be kept for three, and the other way round; a rejection is one row."""

    def told(what: str) -> list[tuple[Any, ...]]:
        query = f"select {what} from pg_prepared_statements where statement not like '%crm.quarantine%'"
        return writer.connection.execute(query.encode(), prepare=False).fetchall()

    def large(page: int) -> None:
        refused = frames.rejections(*({"row_key": f"{page}-{row}"} for row in range(3)))
        brought = Normalised(frames.events(*(deposit(f"{page}-{row}") for row in range(600))), rejections=refused)
        writer.commit(Batch(writer.checkpoint, brought, fresh=True, rows=603))

    for page in range(6):
        large(page)
    assert told("statement") == []
    for number in range(6):
        writer.events(deposit(str(number)), fresh=True)
    kept = told("sum(generic_plans + custom_plans)")
    assert kept > [(0,)]
    large(6)
    assert told("sum(generic_plans + custom_plans)") == kept
    rejected = "select generic_plans + custom_plans from pg_prepared_statements where statement like '%crm.quarantine%'"
    assert writer.connection.execute(rejected).fetchall() == [(21,)]


def test_what_changes_between_a_draft_and_its_transaction_counts(writer: Writer, look: Look, frames: Frames) -> None:
    """A draft knows no player: who is erased, or has got a currency, when it is written is so in the store."""
    texts = {"properties": '{"note":"Ana"}'}
    brought = Normalised(
        events=frames.events(deposit("1", currency=None, **texts), deposit("2", "8", currency=None, **texts))
    )
    own = Normalised(events=frames.events(deposit("3", **texts)))
    drafts = {id(page): draft(page, writer.rates) for page in (brought, own)}
    writer.profiles({"external_id": "7", "default_currency_code": "GBP"}, {"external_id": "8"})
    look("update crm.players set erased_at = now() where external_id = '7' returning 1")
    for page in (brought, own):
        writer.commit(Batch(writer.checkpoint, page, fresh=True, rows=page.events.height, drafted=drafts[id(page)]))

    rows = look("select key, currency, amount_base, properties from crm.events order by key")
    assert [(row["key"], row["currency"], row["properties"]) for row in rows] == [
        ("1", "GBP", {}),
        ("2", "EUR", {"note": "Ana"}),
        ("3", "EUR", {}),
    ]
    assert look("select count(*) as n from crm.fx_pending") == [{"n": 0}]
    money = look("select external_id, deposit_count, total_deposited from crm.players order by external_id")
    base = {row["key"]: row["amount_base"] for row in rows}
    assert [tuple(row.values()) for row in money] == [("7", 2, base["1"] + base["3"]), ("8", 1, base["2"])]


def test_a_broken_promise_of_freshness_counts_nothing_twice(writer: Writer, look: Look) -> None:
    """A page that was promised to be new and overlaps goes through staging; the rest of it is stored."""
    writer.events(deposit("d1"), deposit("d2"), fresh=True)
    again = writer.events(deposit("d2"), deposit("d3"), fresh=True)
    assert again.events == 1
    assert [row["key"] for row in look("select key from crm.event_rows order by key")] == ["d1", "d2", "d3"]
    assert [row["total_deposited"] for row in look("select * from crm.players")] == [3000]


_KEYS: Final = st.integers(0, 24)
_PAGES: Final = st.lists(st.tuples(st.lists(_KEYS, min_size=1, max_size=12), st.booleans()), min_size=1, max_size=6)
_RUNS: Final = itertools.count(1)


def _row(run: int, key: int) -> dict[str, Any]:
    """Return the row that this key always has: its content follows from the key."""
    kind = (
        ("deposit_confirmed", "deposited"),
        ("withdrawal_confirmed", "withdrawn"),
        ("bet_placed", "wagered"),
        ("bet_settled", "won"),
    )
    name, effect = kind[key % 4]
    sign = -1 if key % 9 == 4 else 1
    currency = ("EUR", "GBP", "XXX")[key % 3]
    amount = Decimal(key * 7919 % 100_003) / 1000
    return {
        "key": f"{run}.{key}",
        "external_id": f"{run}.{key % 3}",
        "name": name,
        "effect": effect,
        "sign": sign,
        "amount": amount,
        "currency": currency,
        "occurred_at": AT + timedelta(seconds=key),
    }


@settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(pages=_PAGES)
def test_any_order_overlap_or_repetition_of_pages_gives_the_totals_of_the_set(
    writer: Writer, look: Look, pages: list[tuple[list[int], bool]]
) -> None:
    """Totals count each row once, whichever pages bring it, however often and by which way in."""
    run = next(_RUNS)
    for keys, fresh in pages:
        writer.events(*(_row(run, key) for key in keys), fresh=fresh)

    expected: dict[tuple[str, str], int] = {}
    native: dict[tuple[str, str, str], Decimal] = {}
    for key in {key for keys, _ in pages for key in keys}:
        row = _row(run, key)
        rate = {"EUR": Decimal(1), "GBP": Decimal("1.17")}.get(row["currency"])
        if rate is not None:
            place = (row["external_id"], row["effect"])
            cents = (row["amount"] * rate).quantize(Decimal("0.01"))  # half to even, as the store rounds
            expected[place] = expected.get(place, 0) + row["sign"] * int(cents * 100)
        spot = (row["external_id"], row["currency"], row["effect"])
        native[spot] = native.get(spot, Decimal(0)) + row["sign"] * row["amount"]
    columns = {
        "deposited": "total_deposited",
        "withdrawn": "total_withdrawn",
        "wagered": "total_wagered",
        "won": "total_won",
    }
    stored = look("select * from crm.players where external_id like %s", f"{run}.%")
    assert {
        (r["external_id"], effect): r[column] for r in stored for effect, column in columns.items() if r[column]
    } == {place: total for place, total in expected.items() if total}
    money = look(
        "select p.external_id, m.* from crm.player_money m join crm.players p using (player_id) where external_id like %s",
        f"{run}.%",
    )
    assert {(r["external_id"], r["currency"], effect): r[effect] for r in money for effect in columns if r[effect]} == {
        spot: total for spot, total in native.items() if total
    }


# Profiles -----------------------------------------------------------------------------------------------------------


def test_an_unchanged_profile_marks_nobody(writer: Writer, look: Look) -> None:
    """Only what a destination can see moves `change_seq`; being touched does not."""
    writer.profiles({"external_id": "7", "email": "a@example.com"})
    (before,) = look("select * from crm.player_changes")
    writer.profiles({"external_id": "7", "email": "a@example.com", "source_updated_at": clock.now()})
    assert look("select * from crm.player_changes") == [before]
    writer.profiles({"external_id": "7", "email": "b@example.com"})
    (after,) = look("select * from crm.player_changes")
    assert after["change_seq"] > before["change_seq"]


def test_another_reader_never_overwrites_a_newer_profile(writer: Writer, look: Look) -> None:
    """Within the production reader the later read wins; a backfill's older row loses, its newer one wins."""
    writer.profiles({"external_id": "7", "email": "first@example.com"})
    earlier, later = AT - timedelta(days=1), AT + timedelta(days=1)
    for email, at, production, wins in (
        ("old@example.com", earlier, False, False),
        ("early@example.com", earlier, True, True),
        ("late@example.com", later, False, True),
    ):
        writer.profiles({"external_id": "7", "email": email, "source_updated_at": at}, production=production)
        assert ([row["email"] for row in look("select email from crm.player_contacts")] == [email]) is wins


def test_the_currency_of_a_player_never_changes(writer: Writer, look: Look) -> None:
    """The first one known stays: amounts were counted in it."""
    writer.profiles({"external_id": "7", "default_currency_code": None})
    writer.profiles({"external_id": "7", "default_currency_code": "GBP"})
    writer.profiles({"external_id": "7", "default_currency_code": "EUR"})
    assert [row["default_currency_code"] for row in look("select * from crm.players")] == ["GBP"]
