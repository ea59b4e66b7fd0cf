"""The routes of llama-swap that its users' scripts call, in its shapes; the rest is the same here.

Shapes as its documentation gives them: `GET /unload`, `POST /api/models/unload[/{model}]`,
`GET /logs/stream`, which `Admin` has.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from swapper.front.admin import Admin
from swapper.front.openai import json_response
from swapper.front.routing import Routes
from swapper.runtime.dispatcher import Dispatcher


class LlamaSwap:
    """Unloads, asked for in llama-swap's way."""

    def __init__(self, dispatcher: Dispatcher, admin: Admin) -> None:
        self._dispatcher = dispatcher
        self._admin = admin

    def routes(self) -> Routes:
        """By path template."""
        return {
            "/unload": {"GET": self.unload_all},
            "/api/models/unload": {"POST": self.unload_all_of_the_api},
            "/api/models/unload/{model}": {"POST": self.unload},
        }

    async def unload(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        await self._admin.unload(request, name)
        return web.Response(text="OK")

    async def unload_all(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._unload_all(request)
        return web.Response(text="OK")

    async def unload_all_of_the_api(self, request: web.BaseRequest) -> web.StreamResponse:
        await self._unload_all(request)
        return json_response({"msg": "ok"})

    async def _unload_all(self, request: web.BaseRequest) -> None:
        """Once their answers are done; returns when all are gone."""
        loaded = [worker.model for worker in self._dispatcher.snapshot().workers]
        await asyncio.gather(*(self._admin.unload(request, model) for model in loaded))
