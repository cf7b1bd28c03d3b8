"""What was sent of a player, and on the basis of which consents: asked of the store, for any moment since."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from connector import clock
from connector.cli import app
from connector.store import consents
from tests.integration.test_relay import Feed, feed, feed_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Writer = Any
Look = Any
__all__ = ["feed", "feed_of"]


def test_each_sending_is_known_with_the_consents_that_held_then(
    feed: Feed, writer: Writer, look: Look, configured: Callable[..., Path]
) -> None:
    """Given, then withheld: what went before bears the first version and its basis, what went after the second."""
    now = clock.now()
    known = {"external_id": "1", "source_updated_at": now - timedelta(hours=2), "cursor": "1", "email_disabled": False}
    writer.profiles({**known, "traits": json.dumps({"consent_basis": "double opt-in"})})
    writer.events({"key": "d1", "external_id": "1", "occurred_at": now - timedelta(minutes=5)})
    feed.drain()
    (first,) = look("select max(sent_at) as at from crm.deliveries")
    since = clock.now()
    writer.profiles({**known, "email_disabled": True, "source_updated_at": since, "cursor": "2"})
    writer.events({"key": "d2", "external_id": "1", "occurred_at": now})
    feed.drain()

    done = CliRunner().invoke(app, ["players", "sent", "kaasino", "1", "--config", str(configured()), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [(row["version"], row["granted"], row["basis"]) for row in told["consents"]] == [
        (1, True, "double opt-in"),
        (2, False, "email_disabled"),
    ]
    versions = {(row["name"], row["sent_at"] <= str(first["at"])): row["consents"]["email"] for row in told["sent"]}
    assert {key: said["version"] for key, said in versions.items()} == {
        ("profile", True): 1,
        ("deposit_confirmed", True): 1,
        ("profile", False): 2,
        ("deposit_confirmed", False): 2,
    }
    assert "consent email version 2: withheld" in _told(configured())


def test_what_was_refused_was_not_sent(writer: Writer, look: Look) -> None:
    """Nothing is known of an account that nothing went out for."""
    writer.profiles({"external_id": "1"})
    (player,) = look("select player_id from crm.players")
    assert consents.sent(writer.connection, "kaasino", player["player_id"], since=None, limit=10) == []


def _told(path: Path) -> str:
    return CliRunner().invoke(app, ["players", "sent", "kaasino", "1", "--config", str(path)]).output
