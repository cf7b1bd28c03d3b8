"""The embedded PostgreSQL: where it runs from, what it refuses, how it is found again."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from connector.errors import Misconfigured
from connector.store import embedded

if TYPE_CHECKING:
    from pathlib import Path


def test_a_copy_of_the_binaries_runs_by_itself(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root with a virtual environment that the server's user can't reach, the server runs from a copy of the wheel's files."""
    monkeypatch.setattr(embedded, "CACHE", directory / "cache")
    monkeypatch.setattr(embedded, "_reachable", lambda path: directory in path.parents)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    copied = embedded.binaries()
    assert directory / "cache" in copied.parents
    assert embedded.binaries() == copied
    server = embedded.start(directory / "from-copy", settings={"fsync": "off"})
    try:
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
    finally:
        server.stop()


def test_a_running_server_is_joined_and_left_running(directory: Path) -> None:
    """A command beside the daemon uses the daemon's server; who did not start it does not stop it."""
    started = embedded.start(directory / "joined", settings={"fsync": "off"})
    joined = embedded.ensure(directory / "joined")
    joined.stop()
    assert (joined.port, joined.alive(), started.alive()) == (started.port, True, True)
    started.stop()
    assert not joined.alive()
    assert embedded.running(directory / "joined") is None


def test_its_password_is_nobody_elses(directory: Path) -> None:
    """It listens on loopback, where other users of the machine are too."""
    server = embedded.start(directory / "guarded", settings={"fsync": "off"})
    try:
        assert (directory / "guarded" / "password").stat().st_mode & 0o077 == 0
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres:guess@127.0.0.1:{server.port}/postgres")
    finally:
        server.stop()


def test_without_the_wheel_the_remedy_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has a name."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match=r"\[embedded\]"):
        embedded.start(directory / "nothing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs it as somebody else")
def test_a_directory_that_its_user_cannot_reach_is_refused(directory: Path) -> None:
    """One message, before anything is created there."""
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(Misconfigured, match="cannot reach"):
        embedded.start(closed / "data")
