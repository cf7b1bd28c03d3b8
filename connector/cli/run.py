"""`connector run`: the daemon; `--once`: to the heads seen at the start, then out."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from connector import logs
from connector.cli.options import DEFAULT_CONFIG, ConfigFile

if TYPE_CHECKING:
    from types import FrameType


class Level(StrEnum):
    """How much to log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


#: So many objects more than before may be garbage. A step of a lane makes thousands that are not, and to look through
#: them at each 700 costs time; but an answer of the API and its request, with all that was sent, are a ring of objects,
#: which must not wait for long.
_GARBAGE = 5_000


def run(
    config: ConfigFile = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Read to today's heads, drain the destinations, exit.")] = False,
    log_level: Annotated[Level, typer.Option(help="How much to log.")] = Level.INFO,
) -> None:
    """Keep the CRM in step until SIGTERM or Ctrl-C."""
    gc.disable()  # imports leave no garbage, and to look for it takes a tenth of a second of the start
    from connector import app as application

    gc.freeze()  # nor will there be any in them: to look through them again and again costs a lane a tenth
    gc.set_threshold(_GARBAGE)
    gc.enable()
    logs.configure(level=log_level.value)
    settings = application.load_config(config)
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    app = application.build(settings, once=once, waits=not once)
    gc.freeze()  # what was built stays, too
    if not once:
        if not app.run(stopping):
            os._exit(0)  # a loop is stuck in a call; threads must not keep the process
        sys.exit(0)
    failed = app.run_once(stopping)
    for name, error in failed.items():
        print(f"connector: {name}: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  remedy: {error.hint}", file=sys.stderr)
    sys.exit(1 if failed else 0)
