"""What the benchmarks stand on: an operator's server with the demo's casino, and a store's server.

Both are the embedded PostgreSQL. The operator's may lose everything in a power cut, the store's is as a user gets it.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import yaml
from psycopg import sql

from connector.demo import casino
from connector.store import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TENANT: Final = "bench"
BRAND: Final = casino.BRAND
FX: Final = {"GBP": "1.17", "TRX": "0.25", "BTC": "60000"}
_THROWAWAY: Final = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Stand:
    """Two running servers, a casino in the first, and a directory that goes with them."""

    root: Path
    operator: embedded.Server = field(repr=False)
    store: embedded.Server = field(repr=False)
    casino: casino.Casino = field(repr=False)

    @property
    def reader_url(self) -> str:
        """Return the reading role's libpq URL of the casino, which the connector and everyone beside it uses."""
        return self.casino.url.replace("postgresql+psycopg:", "postgresql:")

    @property
    def pids(self) -> dict[str, int]:
        """Return the process id of each server."""
        processes = {"source": self.operator.process, "store": self.store.process}
        return {name: process.pid for name, process in processes.items() if process is not None}

    def configure(
        self,
        name: str,
        store_url: str,
        streams: Mapping[str, Mapping[str, Any]],
        *,
        url: str | None = None,
        source: str = "casino",
        destinations: Sequence[Mapping[str, Any]] = (),
    ) -> Path:
        """Write a configuration and return its path."""
        document = {
            "tenant": TENANT,
            "base_currency": "EUR",
            "fx": {"fixed": FX},
            "store": {"url": store_url},
            "sources": [{"name": source, "url": url or self.casino.url, "streams": dict(streams)}],
            "destinations": list(destinations),
            "web": None,
        }
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def copy_of(self, template: str, name: str) -> str:
        """Create a database of the store's server as another one is, settle what that wrote, and return its URL."""
        with psycopg.connect(self.store.url(), autocommit=True) as connection:
            names = sql.Identifier(name), sql.Identifier(template)
            connection.execute(sql.SQL("create database {} template {} strategy file_copy").format(*names))
        settle(self.store)
        return self.store.url(name)

    def drop(self, name: str) -> None:
        """Drop a database of the store's server."""
        with psycopg.connect(self.store.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def stand(*, players: int, bets: int) -> Iterator[Stand]:
    """Start both servers, build the casino, and take everything down at the end."""
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as name, contextlib.ExitStack() as stack:
        root = Path(name)
        root.chmod(0o755)
        operator = embedded.start(root / "operator", settings=_THROWAWAY)
        stack.callback(operator.stop)
        store = embedded.start(root / "store")
        stack.callback(store.stop)
        yield Stand(root, operator, store, casino.build(operator, players=players, bets=bets))


def settle(server: embedded.Server) -> None:
    """Write out what is dirty, so that nobody pays for the work of the one before."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("checkpoint")
