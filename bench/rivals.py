"""dlt and sling on the same rows: tools that copy tables, installed into an environment of their own.

They keep no totals, no ledger and no position that belongs to the rows: what they show is what merely moving the rows
costs with the tools that people know. When the package index does not have one, its row says so.
"""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

from bench import processes

if TYPE_CHECKING:
    from bench.processes import Spent
    from bench.stand import Stand

#: The versions that the options below were written for.
DLT: Final = ("dlt[postgres,sql_database]==1.31.0", "pyarrow==26.0.1")
SLING: Final = ("sling-linux-amd64==1.4.11",)
_KEYS: Final = {"table_keys": {"primary": ["id"], "unique": ["bet_id"]}}
_SUMS: Final = "select count(*), coalesce(sum(bet_amount), 0), coalesce(sum(win_amount), 0) from {table}"


def install(folder: Path, name: str, packages: tuple[str, ...]) -> Path | None:
    """Return the environment `name` below `folder`, made at first use; None when the index does not have it."""
    environment = folder / name
    if (environment / "complete").exists():
        return environment
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(environment / "bin" / "python")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)],
        [uv, "pip", "install", "--quiet", "--python", python, *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            print(f"{name} is not to be had: {(done.stderr or 'no word').strip().splitlines()[-1]}", flush=True)
            return None
    (environment / "complete").touch()
    return environment


def dlt(environment: Path, stand: Stand, store_url: str, name: str) -> Spent:
    """Load the view with dlt."""
    with psycopg.connect(store_url) as connection:
        connection.execute("create schema if not exists bench")
    told = {
        "FROM": stand.reader_url,
        "TO": store_url,
        "VIEW": stand.casino.views["casino_bets"],
        "FOLDER": str(stand.root / name),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "HOME": str(stand.root),
    }
    command: list[str | Path] = [environment / "bin" / "python", Path(__file__).with_name("dlt_load.py")]
    return processes.run(command, stand.root / f"{name}.log", servers=stand.pids, environment=told)


def sling(environment: Path, stand: Stand, store_url: str, name: str) -> Spent:
    """Load the view with sling, into a table with a primary key and a unique key."""
    told = {
        "SLING_DISABLE_TELEMETRY": "true",
        "SLING_HOME_DIR": str(stand.root / name),
        "HOME": str(stand.root),
        "SOURCE": f"{stand.reader_url}?sslmode=disable",
        "TARGET": f"{store_url}?sslmode=disable",
    }
    options = {"--src-conn": "SOURCE", "--src-stream": stand.casino.views["casino_bets"], "--tgt-conn": "TARGET"}
    options |= {"--tgt-object": "bench.reference", "--mode": "full-refresh", "--tgt-options": json.dumps(_KEYS)}
    command: list[str | Path] = [_binary(environment), "run", *itertools.chain(*options.items())]
    return processes.run(command, stand.root / f"{name}.log", servers=stand.pids, environment=told)


def check(stand: Stand, store_url: str) -> None:
    """Raise AssertionError unless the copy has the view's rows and sums."""
    with psycopg.connect(store_url) as connection:
        copied = connection.execute(_SUMS.format(table="bench.reference").encode()).fetchone()
    with psycopg.connect(stand.casino.admin_url) as connection:
        view = stand.casino.views["casino_bets"]
        expected = connection.execute(_SUMS.format(table=view).encode()).fetchone()
    assert copied == expected, f"copied {copied}, the view has {expected}"


@functools.cache
def _binary(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"))
