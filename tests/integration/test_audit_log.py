"""The audit log: it only grows, and whoever changes it all the same is found out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from typer.testing import CliRunner

from connector.cli import app
from connector.store import audit_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Writer = Any
Look = Any
TENANT: Final = "kaasino"


@pytest.fixture
def log(writer: Writer) -> psycopg.Connection[Any]:
    """Give a connection to a store whose log has three entries, and one of another tenant."""
    connection: psycopg.Connection[Any] = writer.connection
    for number in range(3):
        audit_log.append(connection, TENANT, "stream.reset", f"casino.deposits{number}", {"from": None, "é": "ü"})
    audit_log.append(connection, "other", "replay", "customerio")
    return connection


def test_entries_follow_each_other(log: psycopg.Connection[Any]) -> None:
    """Each tenant has a chain of its own, whole as it was written."""
    verdict = audit_log.verify(log, TENANT)
    assert (verdict.entries, verdict.broken) == (3, None)
    assert audit_log.verify(log, "other").entries == 1
    newest = audit_log.listed(log, TENANT, limit=1)[0]
    assert (newest["entry_id"], newest["hash"], newest["subject"]) == (3, verdict.head, "casino.deposits2")
    assert newest["details"] == {"from": None, "é": "ü"}


@pytest.mark.parametrize(
    "statement",
    [
        "update crm.audit_log set actor = 'nobody'",
        "delete from crm.audit_log where entry_id = 2",
        "truncate crm.audit_log",
    ],
)
def test_no_statement_changes_it(log: psycopg.Connection[Any], statement: str) -> None:
    """Not even the owner's."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only grows"):
        log.execute(statement.encode())
    assert audit_log.verify(log, TENANT).broken is None


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("update crm.audit_log set actor = 'nobody' where entry_id = 2 and tenant = 'kaasino'", 2),
        ("update crm.audit_log set at = at + interval '1 second' where entry_id = 1 and tenant = 'kaasino'", 1),
        ("""update crm.audit_log set details = '{}' where entry_id = 3 and tenant = 'kaasino'""", 3),
        ("delete from crm.audit_log where entry_id = 1 and tenant = 'kaasino'", 1),
        ("delete from crm.audit_log where entry_id = 2 and tenant = 'kaasino'", 2),
        ("update crm.audit_log set hash = repeat('a', 64) where entry_id = 2 and tenant = 'kaasino'", 2),
        (
            (
                "insert into crm.audit_log select 'kaasino', 4, at, actor, action, subject, details, hash, hash"
                " from crm.audit_log where entry_id = 3"
            ),
            4,
        ),
    ],
)
def test_what_was_tampered_with_is_named(log: psycopg.Connection[Any], statement: str, broken: int) -> None:
    """By one who could switch the protection off."""
    log.execute("set session_replication_role = replica")
    log.execute(statement.encode())
    assert audit_log.verify(log, TENANT).broken == broken


def test_an_end_that_was_cut_off_is_seen_by_a_hash_that_was_kept(log: psycopg.Connection[Any]) -> None:
    """A shorter chain is a whole chain: only who kept the last hash knows."""
    head = audit_log.verify(log, TENANT).head
    log.execute("set session_replication_role = replica")
    log.execute("delete from crm.audit_log where entry_id = 3 and tenant = 'kaasino'")
    assert audit_log.verify(log, TENANT).broken is None
    verdict = audit_log.verify(log, TENANT, known=head)
    assert verdict.broken == 3
    assert "is gone" in verdict.why


def test_what_is_rolled_back_is_not_written_down(log: psycopg.Connection[Any]) -> None:
    """The deed and its entry are one transaction."""
    with pytest.raises(RuntimeError), audit_log.recorded(log, TENANT, "replay", "customerio"):
        raise RuntimeError
    assert audit_log.verify(log, TENANT).entries == 3


def test_commands_list_and_verify_it(log: psycopg.Connection[Any], configured: Callable[..., Path]) -> None:
    """A whole log is exit code 0, another one 3 with the entry named."""
    path = str(configured())
    listed = CliRunner().invoke(app, ["audit-log", "list", "--config", path, "--json"])
    assert [row["entry_id"] for row in json.loads(listed.stdout)] == [3, 2, 1]
    whole = CliRunner().invoke(app, ["audit-log", "verify", "--config", path])
    assert whole.output.startswith("3 entries, whole.")
    log.execute("set session_replication_role = replica")
    log.execute("update crm.audit_log set subject = 'x' where entry_id = 2")
    broken = CliRunner().invoke(app, ["audit-log", "verify", "--config", path])
    assert "entry 2: its text is not what was written" in str(broken.exception)
