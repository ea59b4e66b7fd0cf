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
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from swapper.errors import BadRequest
from swapper.front.adjusting import adjusted
from swapper.front.admin import ANTHROPIC
from swapper.front.attempts import on_a_worker
from swapper.front.body import read_body, renamed
from swapper.front.call import Call
from swapper.front.capture import Capture
from swapper.front.dialects.anthropic.messages import Messages
from swapper.front.dialects.dialect import (
    Asked,
    CountsTokens,
    Dialect,
    Granted,
    Json,
    Translation,
)
from swapper.front.dialects.ollama.routes import Chat, Embed, Embeddings, Generate
from swapper.front.dialects.responses.responses import Responses
from swapper.front.dialects.responses.routes import KeptRoutes
from swapper.front.headers import Header, trace_context
from swapper.front.heartbeat import Heartbeat
from swapper.front.metrics import Metrics
from swapper.front.proxy import Proxy
from swapper.front.refusal import Refusal
from swapper.front.response import Response
from swapper.front.routing import NOTHING, Routes, Serve
from swapper.front.telling import Telling, UpstreamRefused, read_answer, shutting_down
from swapper.front.upstream import Upstream
from swapper.runtime.counter import TokenCounter
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.lease import Lease

COUNT: Final = "/v1/messages/count_tokens"
COUNT_INPUT: Final = "/v1/responses/input_tokens"
FOREIGN: Final = ("command", "url")  # engines whose tokenizers are not known here
REQUEST_HEADERS: Final[tuple[Header, ...]] = (
    (b"content-type", b"application/json"),
    (b"accept-encoding", b"identity"),
)


class Route(NamedTuple):
    """A path: the words it is spoken in, and what is done there."""

    dialect: Dialect
    serve: Callable[[Call, Dialect, Telling], Awaitable[web.StreamResponse]]


class Translator:
    """Answers the routes of other dialects, over the proxy's means."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        upstream: Upstream,
        proxy: Proxy,
        capture: Capture,
        *,
        body_limit: int,
        keepalive_after_s: float,
        keepalive_every_s: float,
    ) -> None:
        messages, responses = Messages(), Responses()
        self.counter: TokenCounter | None = None
        self._kept = KeptRoutes(responses)
        self._answer = capture.over(self.answer)
        self._spoken: Mapping[str, Route] = {
            "/v1/messages": Route(messages, self._infer),
            COUNT: Route(messages, self._count),
            "/v1/responses": Route(responses, self._infer),
            COUNT_INPUT: Route(responses, self._count),
            "/api/chat": Route(Chat(), self._infer),
            "/api/generate": Route(Generate(), self._infer),
            "/api/embed": Route(Embed(), self._infer),
            "/api/embeddings": Route(Embeddings(), self._infer),
        }
        self._counting: Mapping[str, CountsTokens] = {
            COUNT: messages,
            COUNT_INPUT: responses,
        }
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._upstream = upstream
        self._proxy = proxy
        self._body_limit = body_limit
        self._keepalive_after_s = keepalive_after_s
        self._keepalive_every_s = keepalive_every_s

    def routes(self) -> Routes:
        """By path template."""
        return {
            **{path: {"POST": self._asking(path)} for path in self._spoken},
            **self._kept.routes(),
            "/v1/messages/{path}": NOTHING,
        }

    def _asking(self, path: str) -> Serve:
        route = self._spoken[path]
        return lambda request: self._answer(Call.of(request, path), route)

    def dialect_of(self, request: web.BaseRequest) -> Dialect | None:
        """Whose words errors of this request are told in; None: OpenAI's."""
        if ANTHROPIC in request.headers:
            return self._spoken["/v1/messages"].dialect
        if request.path.startswith("/api/"):
            return self._spoken["/api/chat"].dialect
        near = (r.dialect for path, r in self._spoken.items() if request.path.startswith(path))
        return next(near, None)

    async def answer(self, call: Call, route: Route) -> web.StreamResponse:
        """Answer a request in a dialect. Errors become answers, and one line tells what happened."""
        self._metrics.active += 1
        telling = Telling(call, route.dialect)
        try:
            if self._proxy.is_shutting_down:
                raise shutting_down()
            return await route.serve(call, route.dialect, telling)
        except Exception as error:  # noqa: BLE001  # told to the client, and logged in full
            return telling.failed(error)
        except asyncio.CancelledError:
            telling.cut(is_shutting_down=self._proxy.is_shutting_down)
            raise
        finally:
            self._proxy.ended(call)

    # ------------------------------------------------------------ inference

    async def _infer(self, call: Call, dialect: Dialect, telling: Telling) -> web.StreamResponse:
        given = call.given = await read_body(call.request, self._body_limit)
        translation = _read(dialect, given, _asked(call))
        name = translation.known_as(self._dispatcher.registry.names())
        call.model = self._proxy.resolve(name, call.key)
        if translation.path is None:
            if translation.stays_s == 0:
                self._dispatcher.keep(call.model, 0)
                return telling.at_once(translation)
        else:
            call.body = msgspec.json.encode({"model": name, **translation.body})
            if (adjustment := self._proxy.adjustments.get(name)) is not None:
                call.body = adjusted(call.body, adjustment)
        streamed = translation.streamed
        if streamed is None:
            return await self._on_a_worker(call, translation, telling, None)
        telling.translation = streamed
        heartbeat = Heartbeat(
            call,
            self._keepalive_after_s,
            self._keepalive_every_s,
            headers=telling.stream_headers(),
            beat=streamed.waiting,
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
            if translation.stays_s is not None:
                self._dispatcher.keep(lease.model, translation.stays_s)
            if translation.path is None:
                return telling.at_once(translation)
            response = await self._ask(call, translation.path, lease)
            try:
                await response.wait()
                if heartbeat is not None:
                    heartbeat.stop()
                call.first_byte = time.perf_counter()
                return await telling.pass_on(response, translation)
            finally:
                response.close()

        return await on_a_worker(self._dispatcher, self._metrics, call, ask)

    async def _ask(self, call: Call, path: str, lease: Lease) -> Response:
        body = call.body
        if lease.endpoint.upstream_model is not None:
            body = renamed(body, lease.endpoint.upstream_model)
        return await self._send(call, lease, path, body)

    async def _send(self, call: Call, lease: Lease, path: str, body: bytes) -> Response:
        endpoint = lease.endpoint
        headers = [*REQUEST_HEADERS, (b"x-request-id", call.request_id.encode())]
        headers += [(name.encode(), value.encode()) for name, value in endpoint.headers.items()]
        if call.key is not None:
            headers.append((b"x-swapper-key-id", call.key_name.encode()))
        headers += trace_context(call.request.raw_headers)
        if self._proxy.tracing is not None:
            headers = self._proxy.tracing.for_worker(call, headers)
        return await self._upstream.open(endpoint, "POST", path, headers, body)

    # ------------------------------------------------------------ counting

    async def _count(self, call: Call, dialect: Dialect, telling: Telling) -> web.StreamResponse:
        """How many tokens a prompt has, without loading its model."""
        given = call.given = await read_body(call.request, self._body_limit)
        counting = self._counting[call.route]
        name, chat = _read_count(counting, given, _asked(call))
        call.model = self._proxy.resolve(name, call.key)
        call.body = msgspec.json.encode(chat)
        if (adjustment := self._proxy.adjustments.get(name)) is not None:
            call.body = adjusted(call.body, adjustment)
        launch = self._dispatcher.launch(call.model)
        if launch.engine in FOREIGN:
            return telling.whole(await self._counted_there(call, given, launch.engine))
        if self.counter is None:
            raise UpstreamRefused(_cannot_count(call.model))
        tokens = await self.counter.count(launch, msgspec.json.decode(call.body))
        return telling.whole(counting.counted(tokens))

    async def _counted_there(self, call: Call, given: bytes, engine: str) -> Json:
        """By a foreign server, if it can and need not be started for it: a guess would be a lie."""
        assert call.model is not None
        if engine == "command" and not self._dispatcher.is_loaded(call.model):
            raise UpstreamRefused(_cannot_count(call.model))

        async def ask(lease: Lease) -> Json:
            body = renamed(given, lease.endpoint.upstream_model or lease.model)
            response = await self._send(call, lease, call.route, body)
            try:
                if response.status == 200 and "input_tokens" in (
                    answer := await read_answer(response)
                ):
                    return answer
                raise UpstreamRefused(_cannot_count(lease.model))
            finally:
                response.close()

        return await on_a_worker(self._dispatcher, self._metrics, call, ask)


def _asked(call: Call) -> Asked:
    return Asked(
        call.request_id,
        os.urandom(12).hex(),
        call.key_name,
        time.time,
        lambda: time.perf_counter() - call.started,
    )


def _read(dialect: Dialect, given: bytes, asked: Asked) -> Translation:
    try:
        return dialect.read(given, asked)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _read_count(counting: CountsTokens, given: bytes, asked: Asked) -> tuple[str, Json]:
    try:
        return counting.read_count(given, asked)
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def _cannot_count(model: str) -> Refusal:
    return Refusal(501, f"the server of {model} does not tell how many tokens a prompt has")
