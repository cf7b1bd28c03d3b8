"""Log lines: a constant action name and bound facts; JSON unless a person watches. Never a row's values."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, level: str = "INFO") -> None:
    """Set up logging once, at start; everything goes to standard error, where journald takes it."""
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
