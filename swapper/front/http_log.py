"""What aiohttp's server has to say, in our log."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError

log = structlog.get_logger("swapper.front")


class HttpLog(logging.LoggerAdapter[logging.Logger]):
    """Stands in for aiohttp's logger.

    A client that sends no HTTP is a line, not a traceback: whoever can reach the port could fill the
    log with those.
    """

    def __init__(self) -> None:
        super().__init__(logging.getLogger("swapper.http"), {})

    def exception(self, msg: object, *args: Any, exc_info: Any = True, **_: Any) -> None:
        text = str(msg) % args
        if isinstance(exc_info, HttpProcessingError):
            log.info("not an HTTP request", reason=type(exc_info).__name__)
        else:
            log.error(text, exc_info=exc_info)

    def debug(self, msg: object, *args: Any, **_: Any) -> None:
        return None
