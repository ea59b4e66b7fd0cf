"""Connections that have not sent a whole request head yet. They have so long for it, and no longer.

aiohttp's own limit is that of idle connections, which is long; whoever opens many and sends each of them
half a head would hold them all that time.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

HEAD_S: Final = 15.0


class Server(web.Server):
    """aiohttp's, which drops newcomers that do not speak."""

    newcomers: Newcomers

    def __call__(self) -> web.RequestHandler:
        connection = super().__call__()
        self.newcomers.came(connection)
        return connection


class Newcomers:
    """Owner of what is known of them; costs nothing while there are none."""

    def __init__(self, most_s: float = HEAD_S) -> None:
        self._most_s = most_s
        self._since: dict[object, float] = {}  # in the order they came
        self._timer: asyncio.TimerHandle | None = None

    def came(self, connection: web.RequestHandler) -> None:
        """A connection was made."""
        loop = asyncio.get_running_loop()
        self._since[connection] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._most_s, self._drop_silent)

    def spoke(self, connection: object) -> None:
        """The head of a request of it is here."""
        self._since.pop(connection, None)

    def stop(self) -> None:
        """No server is there any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _drop_silent(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for connection, since in list(self._since.items()):
            if (left := since + self._most_s - loop.time()) > 0:
                self._timer = loop.call_later(left, self._drop_silent)
                break
            del self._since[connection]
            assert isinstance(connection, web.RequestHandler)
            connection.force_close()
