"""The routes of llama-swap that its users' scripts call, in its shapes; the rest is the same here.

Shapes as its documentation gives them: `GET /unload`, `POST /api/models/unload[/{model}]`,
`GET /logs/stream`.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from swapper.front.admin import Admin
from swapper.front.openai import json_response
from swapper.runtime.dispatcher import Dispatcher

UNLOAD: Final = "/api/models/unload"


class LlamaSwap:
    """Unloads and logs, asked for in llama-swap's way."""

    def __init__(self, dispatcher: Dispatcher, admin: Admin) -> None:
        self._dispatcher = dispatcher
        self._admin = admin

    async def unload_all(self, request: web.BaseRequest) -> web.StreamResponse:
        """Unload every model once its answers are done; returns when all are gone."""
        await self._unload_all(request)
        return web.Response(text="OK")

    async def unload(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """One model, or all."""
        name = unquote(path[len(UNLOAD) :]).strip("/")
        if name:
            await self._admin.unload(request, name)
            return web.Response(text="OK")
        await self._unload_all(request)
        return json_response({"msg": "ok"})

    async def _unload_all(self, request: web.BaseRequest) -> None:
        loaded = [worker.model for worker in self._dispatcher.snapshot().workers]
        await asyncio.gather(*(self._admin.unload(request, model) for model in loaded))
