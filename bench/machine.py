"""Names what figures were measured on: processor and versions, no host and no path."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import connector
from bench import rivals
from connector.store import embedded

if TYPE_CHECKING:
    from collections.abc import Mapping

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Return the processor's name and how many of them there are."""
    words = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    models = [line.partition(":")[2].strip() for line in words if line.startswith("model name")]
    return {"cpu": models[0] if models else platform.machine(), "cpus": os.cpu_count() or 1}


def versions(ingest: Mapping[str, float]) -> dict[str, str]:
    """Return the versions of what was measured: of the tools beside the connector those that have a figure."""
    found = {"connector": connector.__version__, "Python": platform.python_version()}
    found["PostgreSQL"] = _version(embedded.binaries() / "bin" / "postgres")
    if "mariadb_rows_per_second" in ingest and (server := shutil.which("mariadbd")) is not None:
        found["MariaDB"] = _version(server)
    for name, packages in (("dlt", rivals.DLT), ("sling", rivals.SLING)):
        if f"{name}_rows_per_second" in ingest:
            found[name] = packages[0].rpartition("==")[2]
    return found


def _version(program: str | Path) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()
