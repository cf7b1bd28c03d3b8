"""The audit: what is missing in the store is found, put there once, and nothing else is touched; on every dialect."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from connector import app as application, audit, backfill, buckets, config
from connector.errors import Halted, Misconfigured, Superseded, Transient
from connector.position import SECOND, mark_of
from connector.sources.reader import Reader
from connector.store import audits
from connector.store.audits import Outcome, Shelf
from connector.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.audit import Audit
    from connector.buckets import Sums
    from connector.store.database import Database

OperatorDatabase = Any
_STAMP: Final = {"postgresql": "timestamptz", "mysql": "datetime(6)"}
_MONEY: Final = {"postgresql": "numeric(24,6)", "mysql": "decimal(24,6)"}
_IDENTITY: Final = "ext_brand_id varchar(20), user_ext_id varchar(40)"
_TABLES: Final = {
    "user_profile": f"dt_update STAMP, {_IDENTITY}, core_account_status varchar(20), core_registration_date STAMP, "
    "core_user_language varchar(5), core_wallet_currency varchar(5)",
    "deposits": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "deposit_amount AMOUNT, currency varchar(5)",
    "withdrawals": f"dt_finalized STAMP, {_IDENTITY}, transaction_id varchar(40), transaction_date STAMP, "
    "withdrawal_amount AMOUNT, withdrawal_status varchar(20), currency varchar(5)",
    "casino_bets": f"id IDENTIFIER, {_IDENTITY}, type varchar(20), bet_date STAMP, bet_amount AMOUNT, "
    "win_amount AMOUNT, currency varchar(5), game_id varchar(20), game_name varchar(40)",
}
BEGAN: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
#: What no dialect does in its own way.
ON_POSTGRESQL: Final = pytest.mark.parametrize("operator", ["postgresql"], indirect=True)


@dataclass
class Casino:
    """An operator's tables, and a store that has read them."""

    operator: OperatorDatabase
    store: Database
    streams: dict[str, Any] = field(default_factory=lambda: {"user_profile": {}, "deposits": {}})
    count: int = 0

    def create(self, *names: str) -> None:
        """Create tables and views."""
        family = self.operator.family
        identifier = {"postgresql": "numeric(20,0)", "mysql": "bigint unsigned"}[family]
        for name in names:
            columns = _TABLES[name].replace("STAMP", _STAMP[family]).replace("AMOUNT", _MONEY[family])
            columns = columns.replace("IDENTIFIER", identifier)
            self.operator.execute(
                f"create table {name}_rows ({columns})", f"create view {name} as select * from {name}_rows"
            )

    def user(self, player: str, *, at: datetime = BEGAN, status: str = "ACTIVE") -> None:
        """Add a user."""
        self.operator.fill("user_profile_rows", [(text(at), "kaasino", player, status, text(BEGAN), "EN", "EUR")])

    def deposit(
        self, *keys: str, amount: str = "10.50", at: datetime = BEGAN, every: float = 60.0, brand: str = "kaasino"
    ) -> None:
        """Add deposits, one a minute."""
        stamps = [text(at + timedelta(seconds=every * n)) for n in range(len(keys))]
        self.operator.fill(
            "deposits_rows", [(s, brand, "1", k, s, amount, "EUR") for k, s in zip(keys, stamps, strict=True)]
        )

    @property
    def settings(self) -> config.Config:
        """The configuration."""
        source = {
            "name": "casino",
            "url": self.operator.url,
            "lateness": "1s",
            "page_rows": 50,
            "streams": self.streams,
        }
        document = {"tenant": "kaasino", "store": {"url": self.store.url}, "web": None, "sources": [source]}
        return config.parse(document, streams=list(STREAMS))

    def read(self) -> None:
        """Let the daemon read everything and, since all rows are old, seal it."""
        assert application.build(self.settings, once=True).run_once(threading.Event()) == {}

    def audit(
        self, stream: str = "deposits", *, repair: bool = True, since: str | None = None, until: str | None = None
    ) -> Outcome:
        """Audit a stream and return what was found, without the number of rows."""
        return self.run(stream, repair=repair, since=since, until=until).outcome

    def run(
        self, stream: str = "deposits", *, repair: bool = True, since: str | None = None, until: str | None = None
    ) -> Audit:
        """Audit a stream."""
        with application.desk(self.settings, source=None, stream=stream, purpose="audit") as desk:
            opened = audit.open_stream(desk, stream)
            assert opened is not None
            ranges = audit.bounded(opened, audit.promised(desk, opened), since, until)
            run = audit.Audit(desk, opened, "command", ranges, repair)
            run.run()
            return run

    def ask(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Read or change the store."""
        with psycopg.connect(self.store.url, row_factory=dict_row) as connection:
            done = connection.execute(query.encode(), values)
            return done.fetchall() if done.description else []

    def keys(self, stream: str = "deposits") -> list[str]:
        """Return the keys of a stream's events in the store, twice if twice."""
        return [row["key"] for row in self.ask("select key from crm.events where stream = %s order by key", stream)]


def text(at: datetime) -> str:
    """Write a stamp as every dialect reads it, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def found(outcome: Outcome) -> dict[str, int]:
    """Return what an audit found, zeros and the number of rows left out."""
    return {name: count for name, count in vars(outcome).items() if count and name != "rows"}


@pytest.fixture
def casino(operator: OperatorDatabase, store: Database) -> Casino:
    """Give a casino of every dialect with one player and no deposits."""
    made = Casino(operator, store)
    made.create("user_profile", "deposits")
    made.user("1")
    return made


def test_a_store_that_has_everything_is_found_complete(casino: Casino) -> None:
    """Nothing is missing, and no row is compared by itself."""
    casino.deposit(*(f"d{n}" for n in range(120)))
    casino.read()
    run = casino.run()
    assert run.outcome == Outcome(rows=120)
    assert run.queries < 20


def test_neither_side_waits_for_the_other(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source and store are asked for a bucket's sums at once."""
    casino.deposit("d1", "d2")
    casino.read()
    both = threading.Barrier(2, timeout=20)

    def meeting(asked: Callable[..., Sums]) -> Callable[..., Sums]:
        def ask(*words: Any, **named: Any) -> Sums:
            both.wait()
            return asked(*words, **named)

        return ask

    monkeypatch.setattr(Reader, "sums", meeting(Reader.sums))
    monkeypatch.setattr(Shelf, "sums", meeting(Shelf.sums))

    assert casino.run().outcome == Outcome(rows=2)


def test_sums_agree_without_a_look_at_rows(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a key looks like, both sides digest the same text."""
    keys = [
        "plain",
        "Case",
        "case",
        "ünï Łódź",
        "漢字🙂",
        "a|b",
        "back\\slash",
        "it's",
        "50%",
        " lead",
        "trail ",
        "0012",
    ]
    casino.deposit(*keys)
    casino.read()
    assert casino.keys() == sorted(keys)
    monkeypatch.setattr(audit.evidence, "compare", lambda *_: pytest.fail("a row was compared"))
    assert casino.run().outcome == Outcome(rows=len(keys))


def test_what_the_store_lost_is_found_and_put_back_once(casino: Casino) -> None:
    """Rows, totals and all; the second audit finds nothing."""
    keys = ["plain", "Case", "case", "ünï Łódź", "漢字🙂", "a|b", "back\\slash", "it's", "trail ", "trail"]
    casino.deposit(*keys)
    casino.read()
    casino.ask(
        "delete from crm.event_rows where key <> 'case' and stream_id in (select stream_id from crm.event_streams where stream = 'deposits')"
    )
    casino.ask("update crm.player_money set deposited = 10.5, deposit_count = 1")
    casino.ask("update crm.players set total_deposited = 1050")
    assert found(casino.audit(repair=False)) == {"missing": 9}
    assert casino.keys() == ["case"]
    assert found(casino.audit()) == {"missing": 9, "repaired": 9}
    assert casino.keys() == sorted(keys)
    assert casino.ask("select deposited, deposit_count from crm.player_money") == [
        {"deposited": 105, "deposit_count": 10}
    ]
    assert casino.ask("select total_deposited from crm.players") == [{"total_deposited": 10500}]
    assert found(casino.audit()) == {}


def test_rows_that_appear_below_the_seal_are_found(casino: Casino) -> None:
    """Committed later than any lateness: the daemon never looks there again, and the window widens for a day."""
    casino.deposit(*(f"d{n}" for n in range(40)))
    casino.read()
    casino.deposit("late1", "late2", at=BEGAN + timedelta(seconds=90), every=600)
    casino.read()
    assert len(casino.keys()) == 40
    assert found(casino.audit()) == {"missing": 2, "repaired": 2}
    assert len(casino.keys()) == 42
    point = casino.ask("select late_rows, lateness from crm.checkpoints where stream = 'deposits'")
    assert point == [{"late_rows": 2, "lateness": 900.0}]
    assert found(casino.audit()) == {}


def test_a_row_that_the_source_lost_is_reported_and_kept(casino: Casino) -> None:
    """So is one whose cursor it has taken back; one that has only moved is neither gone nor missing."""
    casino.deposit(*(f"d{n}" for n in range(10)))
    casino.read()
    casino.operator.execute("delete from deposits_rows where transaction_id in ('d0', 'd3')")
    casino.operator.execute("update deposits_rows set dt_finalized = null where transaction_id = 'd4'")
    moved = text(BEGAN + timedelta(seconds=100))
    casino.operator.execute(f"update deposits_rows set dt_finalized = '{moved}' where transaction_id = 'd5'")
    assert found(casino.audit()) == {"gone": 3}
    assert len(casino.keys()) == 10
    assert found(casino.audit()) == {"gone": 3}


@ON_POSTGRESQL
def test_a_row_that_has_moved_is_compared_by_sums_from_then_on(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mark in the store follows."""
    casino.deposit(*(f"d{n}" for n in range(10)))
    casino.read()
    moved = text(BEGAN + timedelta(seconds=100))
    casino.operator.execute(f"update deposits_rows set dt_finalized = '{moved}' where transaction_id = 'd5'")
    assert found(casino.audit()) == {}
    monkeypatch.setattr(audit.evidence, "compare", lambda *_: pytest.fail("a row was compared"))
    assert found(casino.audit()) == {}


@ON_POSTGRESQL
def test_another_amount_under_the_same_key_is_reported(casino: Casino) -> None:
    """It is never counted again; both versions go to the quarantine when the audit repairs."""
    casino.deposit(*(f"d{n}" for n in range(10)))
    casino.read()
    casino.operator.execute("update deposits_rows set deposit_amount = 99 where transaction_id = 'd3'")
    assert found(casino.audit(repair=False)) == {"changed": 1}
    assert casino.ask("select * from crm.quarantine") == []
    assert found(casino.audit()) == {"changed": 1}
    (kept,) = casino.ask("select reason, row_key, raw from crm.quarantine")
    assert (kept["reason"], kept["row_key"], kept["raw"]["new"]["amount"]) == ("changed", "d3", 99)
    assert casino.ask("select sum(amount) as sum from crm.events") == [{"sum": 105}]


@ON_POSTGRESQL
def test_rows_in_the_quarantine_are_not_missing(casino: Casino) -> None:
    """Unless the quarantine has lost them too. Mended rows wait there for a person all the same."""
    casino.deposit("good", "bad", "worse")
    casino.operator.execute("update deposits_rows set deposit_amount = -1 where transaction_id in ('bad', 'worse')")
    casino.read()
    assert found(casino.audit()) == {}
    casino.ask("delete from crm.quarantine where row_key = 'worse'")
    assert found(casino.audit()) == {"missing": 1, "repaired": 1}
    assert [row["row_key"] for row in casino.ask("select row_key from crm.quarantine order by 1")] == ["bad", "worse"]
    assert casino.keys() == ["good"]
    casino.operator.execute("update deposits_rows set deposit_amount = 5")
    assert found(casino.audit()) == {"changed": 1}
    assert casino.keys() == ["good"]


def test_rows_stored_before_marks_were_get_theirs(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found by key, one that is missing among them too; the next audit is as cheap as any."""
    casino.deposit(*(f"d{n}" for n in range(30)))
    casino.read()
    casino.ask("update crm.event_rows set mark = null")
    casino.ask("delete from crm.event_rows where key = 'd7'")
    assert found(casino.audit()) == {"missing": 1, "repaired": 1}
    assert casino.ask("select count(*) from crm.event_rows where mark is null and key <> '1'") == [{"count": 0}]
    monkeypatch.setattr(audit.evidence, "compare", lambda *_: pytest.fail("a row was compared"))
    assert casino.run().outcome == Outcome(rows=30)


def test_bytes_that_are_no_text_are_not_missing(operator_of: Callable[[str], Any], store: Database) -> None:
    """What the reader carries as other characters differs in its digest, and is the same row all the same."""
    casino = Casino(operator_of("mysql"), store)
    casino.create("user_profile")
    casino.user("1")
    columns = _TABLES["deposits"].replace("STAMP", "datetime(6)").replace("AMOUNT", "decimal(24,6)")
    columns = columns.replace("transaction_id varchar(40)", "transaction_id varbinary(40)")
    casino.operator.execute(
        f"create table deposits_rows ({columns})", "create view deposits as select * from deposits_rows"
    )
    casino.deposit("a", "b", "c")
    casino.operator.execute("update deposits_rows set transaction_id = x'62ff' where transaction_id = 'b'")
    casino.read()
    assert casino.keys() == ["a", "b\U0010f7ff", "c"]
    assert found(casino.audit()) == {}
    casino.ask("delete from crm.event_rows where key like 'b%%'")
    assert found(casino.audit()) == {"missing": 1, "repaired": 1}


def test_ids_beyond_64_signed_bits_are_compared_too(operator: OperatorDatabase, store: Database) -> None:
    """The store can't tell them apart by their marks, but by their keys."""
    casino = Casino(operator, store, {"casino_bets": {"start": "beginning"}})
    casino.create("casino_bets")
    ids = [5, 2**63 - 2, 2**63 - 1, 2**63, 2**63 + 7, 2**64 - 2]
    rows = [(n, "kaasino", "1", "bet", text(BEGAN), "1.5", None, "EUR", "g", "G") for n in ids]
    casino.operator.fill("casino_bets_rows", rows)
    casino.read()
    assert len(casino.keys("casino_bets")) == 6
    _seal(casino, "casino_bets", str(2**64 - 2))
    assert casino.audit("casino_bets") == Outcome(rows=6)
    for lost in (5, 2**63 - 1, 2**63 + 7):
        casino.ask("delete from crm.event_rows where key = %s", str(lost))
    assert found(casino.audit("casino_bets")) == {"missing": 3, "repaired": 3}
    assert casino.audit("casino_bets") == Outcome(rows=6)


def _seal(casino: Casino, stream: str, cursor: str) -> None:
    """Seal an id stream as time would."""
    casino.ask(
        "update crm.checkpoints set sealed_cursor = %s, sealed_key = array[%s], sealed_mark = %s::numeric,"
        " seen_cursor = %s, seen_key = array[%s], seen_mark = %s::numeric where stream = %s",
        *([cursor] * 6),
        stream,
    )


def test_bets_and_wins_are_summed_by_their_own_types(
    operator: OperatorDatabase, store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the operator's own words, written anyhow; the stake on a win row counts for nothing."""
    bets = {"start": "beginning", "values": {"type": {"3": "WIN", "fun": "LOSS"}}}
    casino = Casino(operator, store, {"casino_bets": bets})
    casino.create("casino_bets")
    kinds = ["BET", " bet ", "3", "Loss", "fun", "rollback_bet", "WIN_ROLLBACK", "win"]
    rows = [
        (n, "kaasino", "1", kind, text(BEGAN), "2.25", "7.5", "EUR", "g", "G") for n, kind in enumerate(kinds, start=1)
    ]
    casino.operator.fill("casino_bets_rows", rows)
    casino.read()
    _seal(casino, "casino_bets", str(len(kinds)))
    with monkeypatch.context() as patch:
        patch.setattr(audit.evidence, "compare", lambda *_: pytest.fail("a row was compared"))
        assert casino.audit("casino_bets") == Outcome(rows=len(kinds))
    casino.operator.execute("update casino_bets_rows set win_amount = 8 where id in (1, 3)")
    assert found(casino.audit("casino_bets")) == {"changed": 1}


@ON_POSTGRESQL
def test_an_event_that_changed_its_name_is_neither_missing_nor_gone(
    casino: Casino, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A withdrawal whose status moves on under one key has an event of each; but one it should have had is missing."""
    casino.streams = {"user_profile": {}, "withdrawals": {"key": ["transaction_id"]}}
    casino.create("withdrawals")
    rows = [(text(BEGAN), "kaasino", "1", f"w{n}", text(BEGAN), "5", "REQUESTED", "EUR") for n in range(5)]
    casino.operator.fill("withdrawals_rows", rows)
    casino.read()
    later = text(BEGAN + timedelta(minutes=10))
    casino.operator.execute(
        f"update withdrawals_rows set withdrawal_status = 'COMPLETED', dt_finalized = '{later}' where transaction_id < 'w3'"
    )
    casino.read()
    assert len(casino.keys("withdrawals")) == 8
    casino.ask(
        "delete from crm.event_rows e using crm.event_names n where n.name_id = e.name_id and key = 'w1' and name = 'withdrawal_confirmed'"
    )
    assert found(casino.audit("withdrawals")) == {"missing": 1, "repaired": 1}
    assert found(casino.audit("withdrawals")) == {}
    with monkeypatch.context() as patch:
        patch.setattr(audit.evidence, "compare", lambda *_: pytest.fail("a row was compared"))
        assert found(casino.audit("withdrawals")) == {}


def test_users_are_compared_one_by_one(casino: Casino) -> None:
    """One that is missing or older here is put right; one that the source has lost is reported; a newer one is fine."""
    for n in range(2, 12):
        casino.user(str(n), at=BEGAN + timedelta(minutes=n))
    casino.deposit("d1")
    casino.read()
    assert found(casino.audit("user_profile")) == {}
    casino.operator.execute("delete from user_profile_rows where user_ext_id = '5'")
    casino.operator.execute("update user_profile_rows set dt_update = null where user_ext_id = '10'")
    casino.ask("delete from crm.player_changes")
    casino.ask("delete from crm.players where external_id = '6'")
    casino.ask("update crm.players set source_updated_at = '2026-01-01', status = 'x' where external_id = '7'")
    casino.ask("update crm.players set source_updated_at = now() where external_id = '8'")
    casino.ask("update crm.players set is_stub = true where external_id = '9'")
    assert found(casino.audit("user_profile", repair=False)) == {"missing": 3, "gone": 1}
    assert found(casino.audit("user_profile")) == {"missing": 3, "repaired": 3, "gone": 1}
    assert (
        casino.ask("select status, is_stub from crm.players where external_id in ('6', '7', '9')")
        == [{"status": "active", "is_stub": False}] * 3
    )
    assert found(casino.audit("user_profile")) == {"gone": 1}


_SHAPES: Final = {
    "a day": ({"dt_finalized": {"postgresql": "date", "mysql": "date"}}, {}),
    "a second": ({"dt_finalized": {"postgresql": "timestamp(0)", "mysql": "datetime"}}, {}),
    "milliseconds since 1970": ({"dt_finalized": {"postgresql": "bigint", "mysql": "bigint"}}, {}),
    "amounts that are no exact numbers": ({"deposit_amount": {"postgresql": "float8", "mysql": "double"}}, {}),
    "keys of several columns": ({}, {"key": ["ext_brand_id", "transaction_id", "user_ext_id"]}),
    "padded keys": ({"transaction_id": {"postgresql": "char(12)", "mysql": "char(12)"}}, {}),
    "number keys": ({"transaction_id": {"postgresql": "numeric(12,2)", "mysql": "decimal(12,2)"}}, {}),
}


@pytest.mark.parametrize("operator", ["postgresql", "mysql"], indirect=True)
@pytest.mark.parametrize("shape", _SHAPES)
def test_views_of_any_shape_are_compared(operator: OperatorDatabase, store: Database, shape: str) -> None:
    """Coarse and whole-numbered cursors, odd amounts and keys: what is lost and what comes late is found, once."""
    changes, stream = _SHAPES[shape]
    casino = Casino(operator, store, {"user_profile": {}, "deposits": stream})
    casino.create("user_profile")
    casino.user("1")
    columns = _TABLES["deposits"]
    for name, types in changes.items():
        kind = {"dt_finalized": "STAMP", "deposit_amount": "AMOUNT", "transaction_id": "varchar(40)"}[name]
        columns = columns.replace(f"{name} {kind}", f"{name} {types[operator.family]}")
    columns = columns.replace("STAMP", _STAMP[operator.family]).replace("AMOUNT", _MONEY[operator.family])
    operator.execute(f"create table deposits_rows ({columns})", "create view deposits as select * from deposits_rows")

    def stamp(n: int) -> object:
        at = BEGAN + timedelta(hours=7 * (n // 3))
        return int(at.timestamp() * 1000) + n if "since 1970" in shape else text(at)

    key = "{:d}" if shape == "number keys" else "a|{:d}\\"
    rows = [(stamp(n), "kaasino", "1", key.format(n), text(BEGAN), "0.1", "EUR") for n in range(60)]
    operator.fill("deposits_rows", rows[:40] + rows[43:])
    casino.read()
    assert found(casino.audit()) == {}
    kept = casino.keys()
    casino.ask("delete from crm.event_rows where key = any(%s)", [kept[5], kept[30], kept[-1]])
    operator.fill("deposits_rows", rows[40:43])
    assert found(casino.audit()) == {"missing": 6, "repaired": 6}
    assert len(casino.keys()) == 60
    assert set(casino.keys()) > set(kept)
    assert found(casino.audit()) == {}


@ON_POSTGRESQL
def test_rows_behind_the_seal_are_the_daemons(casino: Casino) -> None:
    """Those that share its cursor are looked at once they are sealed."""
    casino.deposit(*(f"d{n}" for n in range(5)), every=0.0)
    casino.read()
    casino.ask("update crm.checkpoints set sealed_key = '{d2}' where stream = 'deposits'")
    casino.ask("delete from crm.event_rows where key in ('d1', 'd3')")
    assert found(casino.audit(repair=False)) == {"missing": 1}


@ON_POSTGRESQL
def test_rows_that_are_no_event_yet_are_not_missing(casino: Casino) -> None:
    """A deposit that is pending is neither in the store nor refused."""
    casino.operator.execute(
        "alter table deposits_rows add deposit_status text default 'COMPLETED'",
        "drop view deposits",
        "create view deposits as select * from deposits_rows",
    )
    casino.operator.execute(
        "insert into deposits_rows select now() - interval '1 day', 'kaasino', '1', g::text, now(), 1, 'EUR',"
        " case when g % 2 = 0 then 'PENDING' else 'PAID' end from generate_series(1, 10) g"
    )
    casino.read()
    assert len(casino.keys()) == 5
    assert found(casino.audit()) == {}


@ON_POSTGRESQL
def test_brands_may_use_the_same_keys(casino: Casino) -> None:
    """Each brand's row is a row of its own."""
    casino.deposit("d1", "d2")
    casino.deposit("d1", "d2", brand="other", at=BEGAN + timedelta(hours=1))
    casino.read()
    assert len(casino.keys()) == 4
    casino.ask(
        "delete from crm.event_rows e using crm.event_streams s where s.stream_id = e.stream_id and brand_id = 'other'"
    )
    casino.operator.execute("delete from deposits_rows where ext_brand_id = 'kaasino' and transaction_id = 'd2'")
    assert found(casino.audit()) == {"missing": 2, "repaired": 2, "gone": 1}
    assert casino.keys() == ["d1", "d1", "d2", "d2"]


@ON_POSTGRESQL
def test_users_of_another_source_are_not_gone(casino: Casino) -> None:
    """Players belong to the tenant: this source answers for its own brands."""
    casino.deposit("d1")
    casino.read()
    casino.ask("insert into crm.checkpoints (tenant, source, stream) values ('kaasino', 'second', 'user_profile')")
    casino.ask(
        "insert into crm.players (tenant, brand_id, external_id, source_updated_at) values"
        " ('kaasino', 'elsewhere', '5', '2026-01-05 12:00:00+00'), ('kaasino', 'kaasino', '6', '2026-01-05 12:00:00+00')"
    )
    assert found(casino.audit("user_profile")) == {"gone": 1}


@ON_POSTGRESQL
def test_a_repair_is_not_written_over_a_persons_answer(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another generation counts its rows itself: what was read for the old one is left."""
    casino.deposit("d1", "d2")
    casino.read()
    casino.ask("delete from crm.event_rows where key = 'd1'")
    real = audit.evidence.compare

    def answered(*args: Any) -> Outcome:
        casino.ask("update crm.checkpoints set revision = revision + 1")
        return real(*args)

    monkeypatch.setattr(audit.evidence, "compare", answered)
    with pytest.raises(Superseded):
        casino.audit()
    assert casino.keys() == ["d2"]


@ON_POSTGRESQL
def test_differences_with_another_server_are_not_believed(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failover in between, or a replica that is behind: a person looks at it first."""
    casino.deposit("d1", "d2")
    casino.read()
    casino.ask("delete from crm.event_rows where key = 'd1'")
    real = Reader.sample
    for change in ({"server": "postgresql:another"}, {"progress": 0}):
        samples = iter([{}, change, change])
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "sample", lambda self, samples=samples: replace(real(self), **next(samples)))
            with pytest.raises(Halted):
                casino.audit()
    assert casino.keys() == ["d2"]


@ON_POSTGRESQL
def test_rows_below_the_start_were_never_promised(casino: Casino) -> None:
    """Until a backfill has loaded them; then they are audited like any other."""
    casino.streams["deposits"] = {"start": text(BEGAN + timedelta(minutes=10))}
    casino.deposit(*(f"d{n:02}" for n in range(20)))
    casino.read()
    assert len(casino.keys()) == 10
    assert found(casino.audit()) == {}
    assert found(casino.audit(since="2026-01-01")) == {}
    _backfill(casino, text(BEGAN), text(BEGAN + timedelta(minutes=3)))
    assert len(casino.keys()) == 14
    casino.ask("delete from crm.event_rows where key in ('d02', 'd15')")
    assert found(casino.audit()) == {"missing": 2, "repaired": 2}


def _backfill(casino: Casino, since: str, until: str) -> None:
    with application.desk(casino.settings, source=None, stream="deposits") as desk:
        stream = backfill.open_stream(desk, "deposits")
        job = backfill.prepare(desk, stream, since=since, until=until)
        backfill.run(desk, stream, job, send_to={}, report=lambda _: None, stopped=lambda: False)


def test_a_part_is_audited_by_its_bounds(casino: Casino) -> None:
    """Both are included; a bound that is no cursor value is refused."""
    casino.deposit(*(f"d{n:02}" for n in range(20)))
    casino.read()
    casino.ask("delete from crm.event_rows where key <> '1'")
    since, until = text(BEGAN + timedelta(minutes=3)), text(BEGAN + timedelta(minutes=5))
    assert found(casino.audit(since=since, until=until)) == {"missing": 3, "repaired": 3}
    assert casino.keys() == ["d03", "d04", "d05"]
    with pytest.raises(Misconfigured, match="is no time of cursor"):
        casino.audit(since="yesterday")


@ON_POSTGRESQL
@pytest.mark.parametrize("side", ["source", "store"])
def test_a_bucket_that_takes_too_long_is_halved(casino: Casino, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    """Whichever side it is: the audit goes on with less at a time, and says when even that does not help."""
    casino.deposit(*(f"d{n}" for n in range(64)))
    casino.read()
    source, store, widest = Reader.sums, Shelf.sums, 10 * 60 * SECOND

    def slow_source(self: Reader, view: Any, low: str, high: str, **rest: Any) -> Any:
        if mark_of(high, "time") - mark_of(low, "time") > widest:
            raise Transient("statement timeout")
        return source(self, view, low, high, **rest)

    def slow_store(self: Shelf, bucket: buckets.Bucket) -> Any:
        if bucket.high - bucket.low > widest:
            raise psycopg.errors.QueryCanceled("statement timeout")
        return store(self, bucket)

    if side == "source":
        monkeypatch.setattr(Reader, "sums", slow_source)
    else:
        monkeypatch.setattr(Shelf, "sums", slow_store)
    casino.ask("delete from crm.event_rows where key = 'd50'")
    assert found(casino.audit()) == {"missing": 1, "repaired": 1}
    widest = -1
    with pytest.raises(Transient):
        casino.audit()


@ON_POSTGRESQL
def test_many_rows_are_cut_down_to_the_bucket_that_differs(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of ten thousand costs a few sums more, and one look at few rows."""
    monkeypatch.setattr(buckets, "LEAF_ROWS", 50)
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 5000)
    casino.deposit(*(f"d{n}" for n in range(4000)), every=1.0)
    casino.read()
    equal = casino.run()
    casino.ask("delete from crm.event_rows where key = 'd1234'")
    looks: list[int] = []
    real = audit.evidence.compare
    monkeypatch.setattr(audit.evidence, "compare", lambda *args: (looks.append(1), real(*args))[1])
    run = casino.run()
    assert found(run.outcome) == {"missing": 1, "repaired": 1}
    assert len(looks) == 1
    assert run.queries - equal.queries <= 40


@ON_POSTGRESQL
def test_results_are_kept_and_the_oldest_forgotten(casino: Casino, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stand in crm.audits."""
    monkeypatch.setattr(audits, "KEPT", 3)
    casino.deposit("d1")
    casino.read()
    for _ in range(5):
        casino.audit()
    rows = casino.ask("select kind, rows, missing, finished_at from crm.audits order by audit_id")
    assert [(row["kind"], row["rows"], row["missing"]) for row in rows] == [("command", 1, 0)] * 3
    assert None not in [row["finished_at"] for row in rows]
