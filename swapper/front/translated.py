"""Requests in other dialects than OpenAI's: translated, asked of a worker, translated back.

The rules are those of `front/proxy.py`: the lease ends and the worker's connection closes in one place
each; what fails before the first bytes of an answer has its true status, and what fails after them is
an event of the stream; a worker that dies before it answered costs one more try. What a dialect has to
give is said in `dialects/dialect.py`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog
from aiohttp import web

from swapper.front.adjusting import adjusted
from swapper.front.admin import ANTHROPIC
from swapper.front.attempts import on_a_worker
from swapper.front.body import read_body, renamed
from swapper.front.call import Call
from swapper.front.dialects.anthropic.messages import Messages
from swapper.front.dialects.dialect import Asked, Dialect, Granted, Translation
from swapper.front.dialects.responses.responses import Responses
from swapper.front.headers import Header
from swapper.front.heartbeat import Heartbeat
from swapper.front.keys import Key
from swapper.front.metrics import Metrics
from swapper.front.openai import json_response
from swapper.front.proxy import Proxy
from swapper.front.refusal import WrongMethod
from swapper.front.response import Response
from swapper.front.telling import Telling, shutting_down
from swapper.front.upstream import Upstream
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.lease import Lease

REQUEST_HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", b"application/json"),
    (b"accept-encoding", b"identity"),
)


class Translator:
    """Answers the routes of other dialects, over the proxy's means."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        upstream: Upstream,
        proxy: Proxy,
        *,
        body_limit: int,
        keepalive_after_s: float,
        keepalive_every_s: float,
    ) -> None:
        self._responses = Responses()
        self.routes: Mapping[str, Dialect] = {
            "/v1/messages": Messages(),
            "/v1/responses": self._responses,
        }
        self._log = structlog.get_logger("swapper.request").bind()
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._upstream = upstream
        self._proxy = proxy
        self._body_limit = body_limit
        self._keepalive_after_s = keepalive_after_s
        self._keepalive_every_s = keepalive_every_s

    def dialect_of(self, request: web.BaseRequest) -> Dialect | None:
        """Whose words errors of this request are told in; None: OpenAI's."""
        if ANTHROPIC in request.headers:
            return self.routes["/v1/messages"]
        path = request.path
        return next((d for route, d in self.routes.items() if path.startswith(route)), None)

    def kept_response(self, request: web.BaseRequest, key: Key | None, id: str) -> web.Response:
        """A response of before: again, or forgotten. Raises NotFound and WrongMethod."""
        owner = key.name if key is not None else ""
        match request.method:
            case "GET":
                return json_response(self._responses.kept(owner, id))
            case "DELETE":
                return json_response(self._responses.forget(owner, id))
        raise WrongMethod(request.method, ("GET", "DELETE"))

    async def answer(self, call: Call, dialect: Dialect) -> web.StreamResponse:
        """Answer a request in a dialect. Errors become answers, and one line tells what happened."""
        self._metrics.active += 1
        telling = Telling(call, dialect)
        try:
            return await self._answer(call, dialect, telling)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged in full
            return telling.failed(error)
        except asyncio.CancelledError:
            telling.cut(is_shutting_down=self._proxy.is_shutting_down)
            raise
        finally:
            self._metrics.active -= 1
            self._metrics.count(call.model, call.route, call.status)
            call.tell(self._log)

    async def _answer(self, call: Call, dialect: Dialect, telling: Telling) -> web.StreamResponse:
        if self._proxy.is_shutting_down:
            raise shutting_down()
        given = await read_body(call.request, self._body_limit)
        asked = Asked(call.request_id, os.urandom(12).hex(), call.key_name, time.time)
        translation = dialect.read(given, asked)
        call.model = self._proxy.resolve(translation.model)
        call.body = msgspec.json.encode({"model": translation.model, **translation.body})
        if (adjustment := self._proxy.adjustments.get(translation.model)) is not None:
            call.body = adjusted(call.body, adjustment)
        if not translation.stream:
            return await self._on_a_worker(call, translation, telling, None)
        telling.translation = translation
        heartbeat = Heartbeat(
            call,
            self._keepalive_after_s,
            self._keepalive_every_s,
            headers=telling.stream_headers(),
            beat=translation.waiting,
        )
        try:
            return await self._on_a_worker(call, translation, telling, heartbeat)
        finally:
            heartbeat.stop()

    async def _on_a_worker(
        self, call: Call, translation: Translation, telling: Telling, heartbeat: Heartbeat | None
    ) -> web.StreamResponse:
        async def ask(lease: Lease) -> web.StreamResponse:
            translation.granted(Granted(lease.model, lease.engine, lease.queue_s, lease.load_s))
            response = await self._ask(call, translation, lease)
            try:
                await response.wait()
                if heartbeat is not None:
                    heartbeat.stop()
                call.first_byte = time.perf_counter()
                return await telling.pass_on(response, translation)
            finally:
                response.close()

        return await on_a_worker(self._dispatcher, self._metrics, call, ask)

    async def _ask(self, call: Call, translation: Translation, lease: Lease) -> Response:
        endpoint = lease.endpoint
        headers = [*REQUEST_HEADERS, (b"x-request-id", call.request_id.encode())]
        headers += [(name.encode(), value.encode()) for name, value in endpoint.headers.items()]
        if call.key is not None:
            headers.append((b"x-swapper-key-id", call.key_name.encode()))
        body = call.body
        if endpoint.upstream_model is not None:
            body = renamed(body, endpoint.upstream_model)
        return await self._upstream.open(endpoint, "POST", translation.path, headers, body)
