"""The units of systemd/: systemd accepts them, they are hardened, and they fit the code's own times."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from connector import service

UNITS: Final = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))
DAEMON: Final = next(unit for unit in UNITS if unit.name == "connector.service")
#: The first version whose offline analysis knows all settings used here.
OLDEST: Final = 252
#: Exposure, in tenths: 2.0 of 10.
THRESHOLD: Final = 20


@pytest.fixture
def analyze() -> str:
    """Give the path of systemd-analyze, or skip."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.split()[1].partition("~")[0].partition(".")[0]) < OLDEST:
        pytest.skip(f"systemd-analyze is older than {OLDEST}")
    return program


def _setting(unit: Path, name: str) -> str:
    values = re.findall(rf"(?m)^{name}=(.*)$", unit.read_text())
    assert len(values) == 1, f"{unit.name}: {name}"
    return values[0]


def test_the_daemon_and_the_backfill_have_units() -> None:
    assert {unit.name for unit in UNITS} == {"connector.service", "connector-backfill@.service"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path, analyze: str, tmp_path: Path) -> None:
    """An unknown key is only a line on stderr. The program is not installed here, so another stands in."""
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", unit.read_text()))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert [line for line in done.stderr.splitlines() if unit.name.partition(".")[0] in line] == []
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_is_hardened(unit: Path, analyze: str) -> None:
    command = [analyze, "security", "--offline=true", f"--threshold={THRESHOLD}", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if not line.startswith("✓"))


def test_both_units_are_hardened_alike() -> None:
    settings = [
        unit.read_text().partition("CapabilityBoundingSet=")[2].partition("\n[Install]")[0].strip() for unit in UNITS
    ]
    assert settings[0] == settings[1]


def test_the_daemon_gets_the_time_that_the_code_takes() -> None:
    assert float(_setting(DAEMON, "TimeoutStopSec")) > service.STOP_SECONDS
    assert float(_setting(DAEMON, "WatchdogSec")) >= service.WATCHDOG_SECONDS
    assert _setting(DAEMON, "Type") == "notify"
    assert _setting(DAEMON, "NotifyAccess") == "main"


def test_the_daemon_never_gives_up() -> None:
    assert _setting(DAEMON, "Restart") == "always"
    assert _setting(DAEMON, "StartLimitIntervalSec") == "0"


def test_only_the_connector_is_told_to_stop() -> None:
    """It ends an embedded PostgreSQL itself, after its last commit."""
    assert {_setting(unit, "KillMode") for unit in UNITS} == {"mixed"}
