"""Contacts in a table of their own: moved there, encrypted, rotated beside a daemon, found again, refused without keys."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
import yaml

from connector import checks, config, contacts
from connector.errors import Misconfigured
from connector.normalised import Normalised
from connector.store import identities, player_contacts
from connector.store.commit import Batch
from tests.integration.revisions import at_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connector.store.database import Database

Writer = Any
Look = Any
TENANT: Final = "kaasino"
DATA_GUARD: Final = {"email": "U2FsdGVkX1+34600000000Zm9vYmFy==", "phone": "5f3a9c0d1e2b4a6f8c7d9e0f1a2b3c4d"}


def secret(byte: int) -> str:
    return base64.b64encode(bytes([byte]) * 32).decode()


FIRST: Final = f"1 {secret(1)}\nmatch {secret(9)}"
SECOND: Final = f"{FIRST}\n2 {secret(2)}"
OLD, NEW = contacts.parse(FIRST), contacts.parse(SECOND)


def people(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Return that many profiles, each with contacts and a name of their own."""
    return [
        {
            "external_id": str(n),
            "email": f"Player.{n}@example.com",
            "phone": f"+34600{n:06}",
            "first_name": f"Anabel{n}",
            **changes,
        }
        for n in range(count)
    ]


def stored(look: Look, keys: contacts.Keys | None) -> dict[str, tuple[str | None, str | None]]:
    """Return every account's contacts, decrypted."""
    rows = look("select external_id, k.* from crm.player_contacts k join crm.players using (player_id)")
    plain = [contacts.opened(row, TENANT, keys) for row in rows]
    return {row["external_id"]: (row["email"], row["phone"]) for row in plain}


def under(look: Look) -> dict[int, int]:
    """Return rows by key, 0: plain."""
    rows = look("select key_id, count(*) as n from crm.player_contacts group by 1")
    return {row["key_id"]: row["n"] for row in rows}


def everything(look: Look) -> str:
    """Return the text of every row of every table of the store."""
    tables = look("select tablename from pg_tables where schemaname = 'crm' order by 1")
    return "\n".join(
        row["line"] for table in tables for row in look(f"select t::text as line from crm.{table['tablename']} t")
    )


# The migration ------------------------------------------------------------------------------------------------------


_BEFORE: Final = """
    insert into crm.tenants (tenant, base_currency) values ('kaasino', 'EUR');
    insert into crm.players (tenant, brand_id, external_id, email, phone, lead) values
        ('kaasino', 'kaasino', '1', 'Ana@Example.com', '+34600000000', null),
        ('kaasino', 'kaasino', '2', null, null, null),
        ('kaasino', 'kaasino', '3', null, '+34600000001', '{"email": "lead@example.com", "first_name": "Bo"}'),
        ('kaasino', 'kaasino', '4', 'enc:v1:1:QUJD', 'call me', '{"phone": "+34600000002", "email": "enc:v9"}'),
        ('kaasino', 'kaasino', '5', repeat('x', 600) || '@example.com', null, '{"first_name": "Eva"}'),
        ('kaasino', 'kaasino', null, 'Lead@Example.com', null, null)
"""
_PLAYERS: Final = "select player_id, external_id, email, phone, lead from crm.players order by player_id"


@pytest.fixture
def old_store(postgres: Any) -> Iterator[str]:
    """Give a store as it was before, with players in it."""
    url = postgres.create("contacts_moved")
    at_revision(url, "0006")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_BEFORE)
    yield url
    postgres.drop("contacts_moved")


def test_contacts_survive_the_move_and_the_way_back(old_store: str) -> None:
    """Of players, leads and claimed leads, whatever they look like; there again they are as before."""
    with psycopg.connect(old_store, autocommit=True) as connection:
        before = connection.execute(_PLAYERS).fetchall()
        for _ in range(2):
            at_revision(old_store, "0007")
            rows = connection.execute(
                "select external_id, k.email, k.phone, lead_email, lead_phone, email_match, phone_match,"
                " lead_email_match, lead_phone_match, key_id, p.lead"
                " from crm.player_contacts k join crm.players p using (player_id) order by player_id"
            ).fetchall()
            long = "x" * 600 + "@example.com"
            assert rows == [
                (
                    "1",
                    "Ana@Example.com",
                    "+34600000000",
                    None,
                    None,
                    "ana@example.com",
                    "+34600000000",
                    *[None] * 2,
                    0,
                    None,
                ),
                (
                    "3",
                    None,
                    "+34600000001",
                    "lead@example.com",
                    None,
                    None,
                    "+34600000001",
                    "lead@example.com",
                    None,
                    0,
                    {"first_name": "Bo"},
                ),
                (
                    "4",
                    "enc:v0:enc:v1:1:QUJD",
                    "call me",
                    "enc:v0:enc:v9",
                    "+34600000002",
                    *[None] * 3,
                    "+34600000002",
                    0,
                    {},
                ),
                ("5", long, *[None] * 7, 0, {"first_name": "Eva"}),
                (None, "Lead@Example.com", *[None] * 3, "lead@example.com", *[None] * 3, 0, None),
            ]
            at_revision(old_store, "0006")
            assert connection.execute(_PLAYERS).fetchall() == before


def test_encrypted_contacts_do_not_go_back_into_the_players(old_store: str) -> None:
    """No SQL could decrypt them: the way back is refused, and nothing is lost."""
    at_revision(old_store, "0007")
    with psycopg.connect(old_store, autocommit=True) as connection:
        connection.execute("update crm.player_contacts set email = 'enc:v1:12:QUJD' where phone is null")
        assert connection.execute("select max(key_id) from crm.player_contacts").fetchone() == (12,)
    with pytest.raises(RuntimeError, match="encrypted"):
        at_revision(old_store, "0006")


# Encrypted ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [None, OLD])
def test_what_a_page_says_is_stored_and_an_unchanged_page_marks_nobody(
    writer: Writer, look: Look, keys: contacts.Keys | None
) -> None:
    """In plain or encrypted; a changed contact is a change, one that is gone too."""
    writer.keys = keys
    page = people(5)
    assert writer.profiles(*page).players == 5
    marks = look("select * from crm.player_changes order by 1")
    assert writer.profiles(*page).players == 0
    assert look("select * from crm.player_changes order by 1") == marks
    assert stored(look, keys)["3"] == ("Player.3@example.com", "+34600000003")
    assert writer.profiles(*page[:3], {**page[3], "phone": "+34600999999"}, {**page[4], "email": None}).players == 2
    assert stored(look, keys)["3"][1] == "+34600999999"
    assert stored(look, keys)["4"] == (None, "+34600000004")


def test_no_contact_is_anywhere_in_an_encrypted_store(writer: Writer, look: Look, frames: Any) -> None:
    """Not of players, of leads that were claimed, or in rows that were refused."""
    writer.keys = OLD
    writer.profiles(*people(3))
    raw = {"user_email": "Player.7@example.com", "user_phone": "call me on +34600000007", "id": "7", "tags": "[x"}
    refused = frames.rejections({"row_key": "7", "raw": json.dumps(raw), "reason": "not a list", "field": "tags"})
    writer.commit(Batch(writer.checkpoint, Normalised(rejections=refused)))
    text = everything(look)
    assert under(look) == {1: 3}
    assert "Anabel1" in text
    for part in ("player.", "Player.", "example.com", "+34600"):
        assert part not in text, part
    (kept,) = look("select raw from crm.quarantine")
    assert kept["raw"] == {"user_email": "P***@e***.com", "user_phone": "c***", "id": "7", "tags": "[x"}


@pytest.mark.parametrize(("was", "now"), [(None, OLD), (OLD, NEW), (None, NEW)])
def test_keys_that_come_later_change_nobody(
    writer: Writer, look: Look, was: contacts.Keys | None, now: contacts.Keys
) -> None:
    """What a page touches comes under the newest key, the rest waits for `keys rotate`; nobody is marked for it."""
    writer.keys = was
    writer.profiles(*people(4))
    marks = look("select * from crm.player_changes order by 1")
    writer.keys = now
    assert writer.profiles(*people(3)).players == 0
    assert look("select * from crm.player_changes order by 1") == marks
    assert under(look) == {now.newest: 3, was.newest if was else 0: 1}
    assert stored(look, now) == {row["external_id"]: (row["email"], row["phone"]) for row in people(4)}


@pytest.mark.parametrize(("was", "now"), [(None, None), (None, OLD), (OLD, OLD), (OLD, NEW)])
@pytest.mark.parametrize("kind", contacts.KINDS)
def test_who_shares_a_contact_is_found_whatever_it_is_under(
    writer: Writer, look: Look, kind: str, was: contacts.Keys | None, now: contacts.Keys | None
) -> None:
    """Conflicts and leads: of the one row in plain or under an old key, and the other under the newest."""
    writer.keys = was
    mine = {"email": "ana@example.com", "phone": "+34600000000"}
    writer.profiles({"external_id": "7", kind: mine[kind]})
    (made,) = look(
        "insert into crm.players (tenant, brand_id, first_name) values (%s, 'kaasino', 'Bo') returning player_id",
        TENANT,
    )
    staged = contacts.sealed(f"{mine[kind]}9", TENANT, kind, was) if was else (f"{mine[kind]}9",) * 2
    look(
        f"insert into crm.player_contacts (player_id, tenant, {kind}, {kind}_match) values (%s, %s, %s, %s) returning 1",
        *(made["player_id"], TENANT, *staged),
    )
    writer.keys = now
    writer.profiles({"external_id": "8", kind: mine[kind].upper()}, {"external_id": "9", kind: f"{mine[kind]}9"})
    found = identities.conflicts(writer.connection, TENANT)
    assert [(row["external_id"], row["other_external_id"], row["matched_by"]) for row in found] == [("8", "7", kind)]
    assert look("select first_name from crm.players where external_id = '9'") == [{"first_name": "Bo"}]
    writer.profiles({"external_id": "9", "last_name": "Bo"})
    brought = dict(zip(contacts.KINDS, stored(look, now)["9"], strict=True))
    assert brought[kind] == f"{mine[kind]}9"
    writer.profiles({"external_id": "5", kind: f"{mine[kind]}9"})
    assert ("9", "5") in {
        tuple(sorted((row["external_id"], row["other_external_id"]), reverse=True))
        for row in identities.conflicts(writer.connection, TENANT)
    }


@pytest.mark.parametrize("keys", [None, OLD])
def test_ciphertext_of_the_operators_is_stored_and_matches_nobody(
    writer: Writer, look: Look, keys: contacts.Keys | None
) -> None:
    """Two accounts with one ciphertext are no conflict: nobody knows what it says."""
    writer.keys = keys
    writer.profiles({"external_id": "7", **DATA_GUARD}, {"external_id": "8", **DATA_GUARD})
    assert set(stored(look, keys).values()) == {(DATA_GUARD["email"], DATA_GUARD["phone"])}
    assert identities.conflicts(writer.connection, TENANT) == []
    assert writer.profiles({"external_id": "7", **DATA_GUARD}).players == 0


# Keys that are missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (None, "key 1, which personal_data.keys does not have"),
        (f"2 {secret(2)}\nmatch {secret(9)}", "key 1, which personal_data.keys does not have"),
        (f"1 {secret(2)}\nmatch {secret(9)}", "key 1 of personal_data.keys is not the one"),
        (f"1 {secret(1)}\nmatch {secret(8)}", "match key of personal_data.keys is not the one"),
        (SECOND, None),
    ],
)
def test_a_store_whose_contacts_can_not_be_read_is_refused(writer: Writer, keys: str | None, said: str | None) -> None:
    """At start, with the key that is missing: not one page later."""
    writer.keys = OLD
    writer.profiles(*people(2))
    parsed = None if keys is None else contacts.parse(keys)
    if said is None:
        player_contacts.require(writer.connection, TENANT, parsed)
        return
    with pytest.raises(Misconfigured, match=said):
        player_contacts.require(writer.connection, TENANT, parsed)


@pytest.fixture
def site(store: Database, tmp_path: Path) -> Callable[..., Path]:
    """Give a writer of configuration files, by what stands in the file of keys."""

    def write(keys: str | None) -> Path:
        source = {"name": "casino", "url": "postgresql://reader@127.0.0.1:9/casino", "streams": {"user_profile": {}}}
        document: dict[str, Any] = {"tenant": TENANT, "store": {"url": store.url}, "sources": [source], "web": None}
        if keys is not None:
            (tmp_path / "keys").write_text(keys)
            document["personal_data"] = {"keys_file": str(tmp_path / "keys")}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def command(path: Path, *words: str) -> tuple[int, str]:
    """Run a command as a process; returns exit code and all that it said."""
    line = [sys.executable, "-m", "connector", *words, "--config", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=90, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_daemon_without_the_key_does_not_start(writer: Writer, site: Callable[..., Path]) -> None:
    """Exit 2, the key named, and what to do."""
    writer.keys = OLD
    writer.profiles(*people(2))
    code, said = command(site(None), "run", "--once")
    assert (code, "encrypted with key 1" in said, "put the line of key 1 back" in said) == (2, True, True)


# Rotation -----------------------------------------------------------------------------------------------------------


def test_a_rotation_that_is_killed_half_way_goes_on_where_it_was(
    store: Database, writer: Writer, look: Look, site: Callable[..., Path], wait: Any
) -> None:
    """Nothing is lost, doubled or changed, and contacts are found all the time; then the old key may go."""
    count = 2 * player_contacts.PIECE + 500
    writer.keys = OLD
    writer.profiles(*people(count))
    before = stored(look, OLD)
    with psycopg.connect(store.url, autocommit=True) as gate:
        gate.execute(
            "create function crm.hold() returns trigger language plpgsql as"
            " $$ begin perform pg_advisory_xact_lock(4711); return new; end $$"
        )
        last = (
            f"select max(player_id) from (select player_id from crm.players order by 1 limit {player_contacts.PIECE}) p"
        )
        (first_piece,) = gate.execute(last).fetchone() or (0,)
        gate.execute(
            "create trigger hold before update on crm.player_contacts for each row"
            f" when (old.player_id = {first_piece + 10}) execute function crm.hold()"
        )
        gate.execute("select pg_advisory_lock(4711)")
        path = site(SECOND)
        process = subprocess.Popen([sys.executable, "-m", "connector", "keys", "rotate", "--config", str(path)])
        held = "select count(*) as n from pg_locks where locktype = 'advisory' and objid = 4711 and not granted"
        wait(lambda: look(held)[0]["n"] == 1, what="the second piece is being written")
        assert under(look) == {1: count - player_contacts.PIECE, 2: player_contacts.PIECE}
        process.send_signal(signal.SIGKILL)
        process.wait()
        gate.execute("select pg_advisory_unlock(4711)")
        gate.execute("drop trigger hold on crm.player_contacts")
    waiting = "select count(*) as n from pg_stat_activity where datname = current_database() and state <> 'idle'"
    wait(
        lambda: look(f"{waiting} and pid <> pg_backend_pid()")[0]["n"] == 0, what="the dead process's session has ended"
    )
    assert under(look) == {1: count - player_contacts.PIECE, 2: player_contacts.PIECE}
    assert stored(look, NEW) == before

    marks = look("select max(change_seq) as seq from crm.player_changes")
    writer.keys = NEW
    shared = [{"external_id": f"new{n}", "email": f"PLAYER.{n}@example.com"} for n in (1, count - 1)]
    writer.profiles(*shared)
    assert {row["other_external_id"] for row in identities.conflicts(writer.connection, TENANT)} == {
        "1",
        str(count - 1),
    }
    code, said = command(site(SECOND), "keys", "rotate")
    assert (code, f"{count - player_contacts.PIECE:,} rotated to key 2, 0 left" in said) == (0, True)
    assert "no contact is under key 1 any more" in said
    alone = f"2 {secret(2)}\nmatch {secret(9)}"
    found = stored(look, contacts.parse(alone))
    assert {name: found[name] for name in before} == before
    told = look("select count(*) as n from crm.player_changes where change_seq > %s", marks[0]["seq"])[0]["n"]
    assert told == len(shared)
    code, said = command(site(alone), "keys", "show", "--json")
    assert (code, json.loads(said)) == (0, {"newest": 2, "players": {"2": count + 2}})
    player_contacts.require(writer.connection, TENANT, contacts.parse(alone))
    writer.keys = contacts.parse(alone)
    assert writer.profiles(*people(10)).players == 0


def test_a_row_that_can_not_be_decrypted_is_named_and_holds_up_nothing(
    writer: Writer, look: Look, site: Callable[..., Path]
) -> None:
    """The others are rotated; the source's next word of that player mends it."""
    writer.keys = OLD
    writer.profiles(*people(3))
    look("update crm.player_contacts set email = 'enc:v1:1:AAAA' where player_id = 2 returning 1")
    code, said = command(site(SECOND), "keys", "rotate")
    assert (code, "2 rotated to key 2, 1 left" in said, "of players 2" in said) == (1, True, True)
    writer.keys = NEW
    assert writer.profiles(*people(3)).players == 1
    assert under(look) == {2: 3}
    assert stored(look, NEW) == {row["external_id"]: (row["email"], row["phone"]) for row in people(3)}


def test_show_counts_rows_by_key_and_tells_no_secret(writer: Writer, site: Callable[..., Path]) -> None:
    """Plain ones, those under each key, and a key that the file does not have."""
    writer.profiles(*people(5))
    writer.keys = OLD
    writer.profiles(*people(2))
    code, said = command(site(FIRST), "keys", "show")
    assert (code, said.splitlines()) == (
        0,
        ["plain                    3 player(s)", "key 1                    2 player(s)  new ones are written so"],
    )
    code, said = command(site(None), "keys", "show")
    assert "not in personal_data.keys" in said
    assert secret(1) not in said


def test_check_warns_while_contacts_are_not_under_the_newest_key(writer: Writer, site: Callable[..., Path]) -> None:
    """In plain or under an old key; without the key at all it is an error."""
    writer.profiles(*people(5))
    writer.keys = OLD
    writer.profiles(*people(2))

    def found(keys: str | None) -> set[tuple[str, str]]:
        settings = config.load(site(keys))
        return {(one.level, one.text) for one in checks._store(settings, checks._Money("EUR"))}

    assert {
        ("warn", "contacts of 3 player(s) are stored in plain"),
        ("warn", "contacts of 2 player(s) are stored under key 1"),
        ("ok", "contacts of 0 player(s) are under key 2"),
    } <= found(SECOND)
    assert any(level == "error" and "key 1" in text for level, text in found(None))
