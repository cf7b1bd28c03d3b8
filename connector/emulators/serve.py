"""Runs the emulator: a uvicorn server in a thread of its own, stopped and saved through one handle.

It binds the socket, keeps the state file and the webhook sender; the application itself is `customerio`'s.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from connector import clock
from connector.emulators import customerio
from connector.emulators.snapshot import Keeper
from connector.emulators.webhooks import Sender, Settings
from connector.emulators.workspace import Workspace
from connector.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from starlette.types import Scope

    from connector.emulators.options import Faults, Options
    from connector.emulators.tls import Certificate

START_SECONDS = 10.0
GRACE_SECONDS = 1.0  # for requests under way when the emulator is stopped
STOP_SECONDS = 10.0


@dataclass(kw_only=True, slots=True)
class Running:
    """A running emulator. As a context manager it stops at the end of the block."""

    url: str
    workspace: Workspace
    sender: Sender
    #: The certificate served, None on plain http; its file is what a client has to trust.
    certificate: Certificate | None
    _server: uvicorn.Server
    _thread: threading.Thread
    _keeper: Keeper | None
    _stopped: bool = field(default=False)

    @property
    def alive(self) -> bool:
        """Whether the server is still running."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop listening, finish what is under way, save the state. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._server.should_exit = True
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive():
            _abandon(self._server)
            self._thread.join(STOP_SECONDS)
        self.sender.stop()
        if self._keeper is not None:
            self._keeper.stop()
        if self.certificate is not None:
            self.certificate.discard()

    def __enter__(self) -> Self:
        """Return itself: it is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


def start(
    options: Options | None = None,
    *,
    faults: Faults | None = None,
    webhooks: Settings | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    state_file: Path | None = None,
    save_seconds: float = 5.0,
    certificate: Certificate | None = None,
    now: Callable[[], datetime] = clock.now,
    seed: int | None = None,
) -> Running:
    """Start an emulator and return when it answers; port 0 takes a free one.

    Raise `Misconfigured` if the address is taken or the state file cannot be read.
    """
    workspace = Workspace(options, faults=faults, now=now, seed=seed)
    keeper = Keeper(workspace, state_file, every=save_seconds) if state_file is not None else None
    sender = Sender(webhooks, now=now, seed=seed)
    workspace.listen(sender.enqueue)
    listener = _listen(host, port)
    try:
        server, thread = _run(workspace, sender, listener=listener, certificate=certificate, seed=seed)
    except BaseException:
        listener.close()
        raise
    if keeper is not None:
        keeper.start()
    return Running(
        url=_url(listener, secure=certificate is not None),
        workspace=workspace,
        sender=sender,
        certificate=certificate,
        _server=server,
        _thread=thread,
        _keeper=keeper,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's delay off (40 ms an answer) only on sockets that name it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise Misconfigured(
            f"cannot listen on {host}:{port}: {error}", hint="choose another address, or stop what holds this one"
        ) from error
    return listener


def _url(listener: socket.socket, *, secure: bool) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def _run(
    workspace: Workspace,
    sender: Sender,
    *,
    listener: socket.socket,
    certificate: Certificate | None,
    seed: int | None,
) -> tuple[uvicorn.Server, threading.Thread]:
    holder: list[uvicorn.Server] = []
    app = customerio.build(workspace, cut=lambda scope: _cut(holder[0], scope), sender=sender, seed=seed)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    config.load()
    if certificate is not None:
        config.ssl = _context(certificate)
    server = uvicorn.Server(config)
    holder.append(server)
    thread = threading.Thread(target=server.run, args=([listener],), name="emulator", daemon=True)
    thread.start()
    _await_start(server, thread)
    return server, thread


def _await_start(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = clock.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or clock.monotonic() > deadline:
            raise Misconfigured("the emulator's server did not start", hint="look at the log lines above")
        clock.sleep(0.002)


def _context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate.cert_file, certificate.key_file)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"cannot use the certificate {certificate.cert_file}: {error}",
            hint="give a PEM certificate and its unencrypted PEM key",
        ) from error
    return context


def _abandon(server: uvicorn.Server) -> None:
    """Close what is left at the end: clients that sleep in a slow answer, or never close their side of TLS."""
    for protocol in list(server.server_state.connections):
        left: Any = protocol
        left.loop.call_soon_threadsafe(left.transport.abort)
    server.force_exit = True


def _cut(server: uvicorn.Server, scope: Scope) -> None:
    """Reset the connection of a request: the client sees neither status nor orderly close."""
    for protocol in list(server.server_state.connections):
        if getattr(protocol, "client", None) != scope["client"]:
            continue
        transport: Any = protocol.transport
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
