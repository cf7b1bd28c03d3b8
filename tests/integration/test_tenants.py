"""Tenants apart: who reads as crm_app sees one tenant's rows, no contacts, and changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from typer.testing import CliRunner

from connector.cli import app
from connector.errors import Misconfigured
from connector.store import audit_log, database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connector.store.database import Database

Writer = Any
Look = Any
OTHER: Final = "other"
#: A row of another tenant in every table that has one.
_COPIED: Final = """
    insert into crm.tenants (tenant, base_currency) values ('other', 'EUR');
    insert into crm.players (tenant, brand_id, external_id, first_name) values ('other', 'theirs', '1', 'Theirs');
    insert into crm.event_streams (tenant, source, stream, generation, brand_id)
        values ('other', 'casino', 'deposits', 0, 'theirs');
    insert into crm.event_rows (player_id, occurred_at, stream_id, name_id, effect, history, key, properties)
        select player_id, now(), stream_id, 8, 1, false, 'theirs', '{}'
        from crm.players p join crm.event_streams s using (tenant) where tenant = 'other';
    insert into crm.player_money (player_id, currency) select player_id, 'EUR' from crm.players where tenant = 'other';
    insert into crm.player_changes (player_id, reason) select player_id, 'profile' from crm.players where tenant = 'other';
    insert into crm.player_labels select player_id, 'tag', 'theirs', true, now() from crm.players where tenant = 'other';
    insert into crm.quarantine (tenant, source, stream, reason, raw) values ('other', 'casino', 'deposits', 'x', '{}');
    insert into crm.dead_letters (tenant, destination, kind, reason, payload) values ('other', 'd', 'event', 'x', '{}');
    insert into crm.segments (tenant, name, definition) values ('other', 'theirs', '{}');
    insert into crm.player_days (tenant, player_id, day, name_id, events)
        select 'other', player_id, current_date, 8, 1 from crm.players where tenant = 'other';
    update crm.players set segment_ids = '{9}';
    insert into crm.deliveries (tenant, destination, player_ids, seqs) values ('other', 'd', '{1}', '{0}');
"""


@pytest.fixture
def both(writer: Writer, store: Database) -> Iterator[Database]:
    """Give a store that two tenants share."""
    writer.profiles({"external_id": "1", "first_name": "Ours"})
    writer.events({"key": "d1", "external_id": "1"})
    with psycopg.connect(store.url) as connection:
        connection.execute(_COPIED.encode())
        audit_log.append(connection, "kaasino", "replay", "customerio")
        audit_log.append(connection, OTHER, "replay", "customerio")
    return store


def _tables(connection: psycopg.Connection[Any]) -> list[str]:
    """Return every table of the schema but Alembic's own."""
    rows = connection.execute("select tablename from pg_tables where schemaname = 'crm' order by 1").fetchall()
    return [name for (name,) in rows if name != "schema_version"]


def test_every_table_is_under_row_level_security(store: Database) -> None:
    """One that a migration forgets would show every tenant's rows; names of events and leases are nobody's."""
    with psycopg.connect(store.url) as connection:
        bare = connection.execute(
            "select relname from pg_class where relnamespace = 'crm'::regnamespace and relkind = 'r'"
            " and not relrowsecurity order by 1"
        ).fetchall()
        owners = connection.execute(
            "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'crm'::regnamespace"
            " and relkind = 'r' and relname <> 'schema_version'"
        ).fetchall()
    assert [name for (name,) in bare] == ["event_names", "leases", "schema_version"]
    assert owners == [("crm_writer",)]


def test_a_reader_sees_its_own_tenant_and_nothing_of_another(both: Database) -> None:
    """In every table and in the view of events, also where a statement names the other tenant."""
    with both.reader("kaasino", personal=True) as ours, both.reader(OTHER, personal=True) as theirs:
        for connection, mine, foreign in ((ours, "kaasino", OTHER), (theirs, OTHER, "kaasino")):
            assert connection.execute("select distinct tenant from crm.players").fetchall() == [(mine,)]
            assert connection.execute("select distinct tenant from crm.events").fetchall() == [(mine,)]
            assert connection.execute("select count(*) from crm.player_money").fetchall() == [(1,)]
            assert connection.execute("select count(*) from crm.members(9)").fetchall() == [(1,)]
            assert connection.execute("select count(*) from crm.event_rows").fetchall() == [(1,)]
            for table in set(_tables(connection)) - {"leases", "event_names"}:
                whole = connection.execute(f"select to_jsonb(t) from crm.{table} t".encode()).fetchall()
                assert all(row.get("tenant", mine) == mine for (row,) in whole), table
                crossing = f"select from crm.{table} t where to_jsonb(t) ->> 'tenant' = %s"
                assert connection.execute(crossing.encode(), (foreign,)).fetchall() == [], table


def test_a_reader_without_a_tenant_sees_nothing(both: Database) -> None:
    """Who forgets to say whose rows are meant gets none."""
    with psycopg.connect(both.url) as connection:
        connection.execute("set role crm_app")
        assert connection.execute("select count(*) from crm.players").fetchone() == (0,)
        assert connection.execute("select count(*) from crm.events").fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "update crm.players set first_name = 'x'",
        "delete from crm.players",
        "insert into crm.tenants (tenant, base_currency) values ('x', 'EUR')",
        "truncate crm.players cascade",
        "copy crm.players (tenant) to stdout",
        "alter table crm.players disable row level security",
        "drop policy one_tenant on crm.players",
        "select * from crm.leases",
        "select raw from crm.quarantine",
        "select payload from crm.dead_letters",
        "set role crm_writer",
    ],
)
def test_a_reader_gets_no_further(both: Database, statement: str) -> None:
    """No row changes, nothing personal shows, and the fence stays."""
    with psycopg.connect(both.url) as connection:
        connection.execute("create role bi_reader login password 'reading'; grant crm_app to bi_reader")
        connection.commit()
        try:
            url = both.url.replace(both.url.partition("://")[2].partition("@")[0], "bi_reader:reading")
            with psycopg.connect(url) as reader:
                reader.execute("select set_config('app.tenant_id', 'kaasino', false)")
                if statement.startswith("copy"):  # reading by COPY is reading: the fence holds there too
                    with reader.cursor().copy(statement.encode()) as copied:
                        assert b"".join(copied) == b"kaasino\n"
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(statement.encode())
        finally:
            connection.execute("drop role bi_reader")


def test_a_store_of_an_ordinary_role_needs_its_roles_first(postgres: Any) -> None:
    """Where the connector's role may create none, it says what an administrator has to run; then it goes on."""
    name = "store_of_an_ordinary_role"
    url = postgres.create(name)
    with psycopg.connect(postgres.server.url(), autocommit=True) as admin:
        admin.execute(f"create role plain login password 'plain'; grant create on database {name} to plain".encode())
    plain = database.Database(url.replace(url.partition("://")[2].partition("@")[0], "plain:plain"))
    try:
        with pytest.raises(Misconfigured) as refused:
            database.migrate(plain)
        remedy = refused.value.hint
        assert "crm_writer" in str(refused.value)
        with psycopg.connect(postgres.server.url(), autocommit=True) as admin:
            admin.execute(remedy.removeprefix("let an administrator run: ").encode())
        database.migrate(plain)
        with plain.connect() as connection:
            connection.execute("insert into crm.tenants (tenant, base_currency) values ('kaasino', 'EUR')")
            with connection.cursor().copy("copy crm.players (tenant, brand_id, external_id) from stdin") as copy:
                copy.write("kaasino\tkaasino\t1\n")
        with plain.reader("kaasino") as reader:
            assert reader.execute("select count(*) from crm.players").fetchone() == (1,)
    finally:
        postgres.drop(name)
        with psycopg.connect(postgres.server.url(), autocommit=True) as admin:
            admin.execute("drop role plain")


@pytest.mark.usefixtures("both")
@pytest.mark.parametrize(
    "words", ["status", "players conflicts", "players totals", "quarantine list", "audit-log list", "audit-log verify"]
)
def test_reading_commands_ask_as_a_reader(
    configured: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """What they ask can't cross to another tenant, and changes nothing, whatever its text."""
    asked: list[str] = []
    read = database.Database.reader

    def reader(store: Database, tenant: str, *, personal: bool = False) -> psycopg.Connection[Any]:
        connection = read(store, tenant, personal=personal)
        asked.append(str(connection.execute("select current_user").fetchone()))
        return connection

    monkeypatch.setattr(database.Database, "reader", reader)
    done = CliRunner().invoke(app, [*words.split(), "--config", str(configured())])
    assert done.exit_code == 0, done.output
    assert asked == ["('crm_app',)"]
