"""Runs a process from its start to its end and says what it took: seconds, CPU and memory, its servers' CPU too."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from connector import clock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOOK_SECONDS: Final = 0.02
_TICK_SECONDS: Final = 1 / os.sysconf("SC_CLK_TCK")
_WORDS: Final = 2000
#: Nothing that is measured takes so long, unless it hangs.
_PATIENCE_SECONDS: Final = 400.0


@dataclass(frozen=True)
class Spent:
    """Wall seconds, CPU seconds of the process and of each server meanwhile, and its greatest resident memory."""

    seconds: float
    cpu_seconds: float
    rss_mb: float
    servers: Mapping[str, float] = field(default_factory=dict)


def run(
    command: Sequence[str | Path],
    log: Path,
    *,
    servers: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Spent:
    """Run `command` to its end. `servers`: name -> pid of each server whose CPU is asked for.

    Raises RuntimeError with the last words of `log` when it fails or does not come to an end.
    """
    before = {name: tree_cpu_seconds(pid) for name, pid in (servers or {}).items()}
    started = clock.monotonic()
    with log.open("wb") as words:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env=_environment(environment or {}),
        )
    greatest = 0.0
    while True:  # the kernel's own maximum of a child starts at its parent's: it is asked for while it lives
        greatest = max(greatest, sum(rss_mb(member) for member in (process.pid, *_children(process.pid))))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if clock.monotonic() > started + _PATIENCE_SECONDS:
            process.kill()
        clock.sleep(_LOOK_SECONDS)
    seconds = clock.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {log.read_text(errors='replace')[-_WORDS:]}")
    after = {name: tree_cpu_seconds(pid) - before[name] for name, pid in (servers or {}).items()}
    return Spent(seconds, usage.ru_utime + usage.ru_stime, greatest, after)


def _environment(told: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process: as an installed one, which has its bytecode from the run before."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONUNBUFFERED": "1", **told}


def rss_mb(pid: int) -> float:
    """Return the greatest resident memory that a process has had so far (VmHWM), 0 when it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def tree_cpu_seconds(pid: int) -> float:
    """Return the CPU that a server, its living children and those it has waited for have used."""
    return sum(cpu_seconds(member, waited=member == pid) for member in (pid, *_children(pid)))


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def cpu_seconds(pid: int, *, waited: bool = False) -> float:
    """Return the CPU that a process has used, with its children that have ended and were waited for if asked."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11 : 15 if waited else 13]) * _TICK_SECONDS
