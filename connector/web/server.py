"""Serves /health, /metrics, /status and what else is mounted, on a thread. What is said is handed in as functions."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from connector.errors import ConnectorError, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

_STOP_SECONDS: Final = 2


class WebServer:
    """One listener. `start` binds or raises Misconfigured; `stop` is idempotent."""

    def __init__(
        self,
        listen: str,
        *,
        registry: CollectorRegistry,
        stuck: Callable[[], Sequence[str]],
        status: Callable[[], dict[str, Any]],
        mounted: Sequence[Route] = (),
    ) -> None:
        self._listen = listen
        self._registry = registry
        self._stuck = stuck
        self._status = status
        self._mounted = mounted
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind and serve on a thread of its own."""
        host, _, port = self._listen.rpartition(":")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            listener.close()
            hint = "set web.listen to a free HOST:PORT, or web: null"
            raise Misconfigured(f"cannot listen on {self._listen}: {error}", hint=hint) from error
        routes = [Route("/health", self._health), Route("/metrics", self._metrics), Route("/status", self._report)]
        settings = uvicorn.Config(
            Starlette(routes=[*routes, *self._mounted]),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        server = self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_SECONDS)

    async def _health(self, _: Request) -> Response:
        stuck = list(self._stuck())
        return JSONResponse({"ok": not stuck, "stuck": stuck}, status_code=503 if stuck else 200)

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _report(self, _: Request) -> Response:
        try:
            report = await run_in_threadpool(self._status)
        except ConnectorError as error:
            return JSONResponse({"error": str(error)}, status_code=503)
        return Response(json.dumps(report, default=str), media_type="application/json")
