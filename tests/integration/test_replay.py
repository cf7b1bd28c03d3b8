"""Sending again on demand: whole players whatever went before, events under their old ids or as new ones."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from typer.testing import CliRunner

from connector import clock, relay
from connector.cli import app
from connector.store import audit_log
from tests.integration.test_relay import Feed, deposits, feed, feed_of, players

if TYPE_CHECKING:
    from pathlib import Path

    from connector.emulators import serve
    from connector.store.database import Database

Writer = Any
__all__ = ["feed", "feed_of"]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for what waits in every step, not now and then."""
    monkeypatch.setattr(relay, "_TIDY_SECONDS", 0.0)


@pytest.fixture
def configured(store: Database, emulator: serve.Running, tmp_path: Path) -> Path:
    """Give a configuration of the same tenant, store and destination as the feed's."""
    destination = {
        "name": "customerio",
        "kind": "customerio_track",
        "url": emulator.url,
        "site_id": "s",
        "api_key": "k",
    }
    source = {"name": "casino", "url": "postgresql://nobody@127.0.0.1:9/none", "streams": {"deposits": {}}}
    document = {
        "store": {"url": store.url},
        "tenant": "kaasino",
        "sources": [source],
        "destinations": [destination],
        "web": None,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def replay(configured: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["replay", "--config", str(configured), "--destination", "customerio", *options])


def drained(feed: Feed) -> Counter[str]:
    """Return what is sent from here on, by kind."""
    before = len(feed.log)
    feed.drain()
    return Counter(kind for kind, *_ in feed.log[before:])


def test_every_player_goes_again(feed: Feed, writer: Writer, configured: Path) -> None:
    """Whole, though the destination has them as they are; and once."""
    writer.profiles(*players())
    feed.drain()
    assert "5 player(s)" in replay(configured).output
    (entry,) = audit_log.listed(writer.connection, "kaasino", limit=1)
    assert (entry["action"], entry["subject"], entry["details"]["players"]) == ("replay", "customerio", 5)
    assert drained(feed) == {"profile": 5}
    assert drained(feed) == {}


def test_chosen_players_go_again(feed: Feed, writer: Writer, configured: Path) -> None:
    """Those named, of the brand named."""
    writer.profiles(*players(), {"external_id": "1", "brand_id": "other"})
    feed.drain()
    replay(configured, "--players", "1", "--players", "3", "--brand", "kaasino")
    assert drained(feed) == {"profile": 2}


def test_members_of_a_segment_go_again(feed: Feed, writer: Writer, configured: Path) -> None:
    """By its name; nobody else, and their events as well."""
    writer.profiles(*players())
    writer.events(*deposits(*range(5), occurred_at=clock.now()))
    feed.drain()
    made = CliRunner().invoke(
        app,
        ["segments", "create", "two", "--file", "-", "--refresh-strategy", "on_demand", "--config", str(configured)],
        input='{"operator": "AND", "conditions": [{"type": "trait", "field": "external_id", "op": "in", "value": ["1", "3"]}]}',
    )
    assert made.exit_code == 0, (made.output, made.exception)
    assert CliRunner().invoke(app, ["segments", "refresh", "two", "--config", str(configured)]).exit_code == 0
    feed.drain()
    assert "2 player(s)" in replay(configured, "--segment", "two").output
    assert drained(feed) == {"profile": 2}
    replay(configured, "--segment", "two", "--event", "deposit_confirmed", "--yes")
    assert drained(feed) == {"event": 2}
    assert "there is no segment" in str(replay(configured, "--segment", "three").exception)


def test_events_go_again_under_the_ids_that_they_had(
    feed: Feed, writer: Writer, configured: Path, emulator: serve.Running
) -> None:
    """The API knows them: it has no more than before. Those of the time asked for alone."""
    at = clock.now()
    writer.profiles(*players())
    writer.events(*deposits(*range(5), occurred_at=at), *deposits(*range(5, 8), occurred_at=at - timedelta(hours=5)))
    feed.drain()
    since = (at - timedelta(hours=1)).isoformat()
    asked = replay(configured, "--event", "deposit_confirmed", "--from", since, "--yes")
    assert asked.exit_code == 0, asked.output
    assert drained(feed) == {"event": 5}
    assert (emulator.workspace.counts()["events"], emulator.workspace.counts()["duplicates"]) == (8, 5)


def test_events_go_again_as_new_ones(feed: Feed, writer: Writer, configured: Path, emulator: serve.Running) -> None:
    """With ids of their own, the same ones in every attempt; also those that would be too old for a first sending."""
    writer.profiles(*players())
    writer.events(*deposits(*range(3), occurred_at=clock.now() - timedelta(days=30)))
    feed.drain()
    assert emulator.workspace.counts()["events"] == 0  # older than max_age
    for _ in range(2):
        assert replay(configured, "--event", "deposit_confirmed", "--new-ids", "--yes").exit_code == 0
        assert drained(feed) == {"event": 3}
    assert emulator.workspace.counts()["events"] == 6


def test_young_events_are_asked_about(feed: Feed, writer: Writer, configured: Path) -> None:
    """A campaign may answer them: nobody there to say so, nothing is sent."""
    writer.profiles(*players())
    writer.events(*deposits(1))
    feed.drain()
    asked = replay(configured, "--event", "deposit_confirmed")
    assert asked.exit_code != 0
    assert drained(feed) == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--event", "bet_placed"), "is not sent 'bet_placed'"),
        (("--from", "2026-01-01"), "are about events"),
        (("--event", "deposit_confirmed", "--from", "yesterday"), "is no time"),
    ],
)
def test_a_mistake_is_told(configured: Path, options: tuple[str, ...], said: str) -> None:
    """What is wrong, and what would be right."""
    result = replay(configured, *options)
    assert result.exit_code != 0
    assert said in str(result.exception)
