"""How log lines look: for people on a terminal, one JSON object a line otherwise."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
import structlog


def set_up_logs(level: str = "info") -> None:
    """Configure structlog, once, for the process; lines go to standard error."""
    is_terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if is_terminal:
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        last: list[structlog.typing.Processor] = [stamp, _console()]
    else:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        trace = structlog.processors.format_exc_info
        last = [stamp, trace, structlog.processors.JSONRenderer(_as_json)]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=_factory(is_terminal),
    )


def _console() -> structlog.dev.ConsoleRenderer:
    """Without the values of variables in tracebacks: they may be somebody's prompt."""
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _factory(is_terminal: bool) -> Any:
    """Bytes where they are JSON anyway: a line for every request is worth a few microseconds less."""
    if is_terminal:
        return structlog.PrintLoggerFactory(sys.stderr)
    return structlog.BytesLoggerFactory(sys.stderr.buffer)


def _as_json(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
