"""The hot path: find the model, lease a worker, pass the request on and the answer back.

What holds, whoever leaves first:

1. The lease is given back and the connection to the worker closed in one place each, by leaving
   `_attempt` and `_exchange`. A client that goes away cancels its handler: the same way out.
2. Nothing of a worker's answer is sent before the first bytes of its body are here. Until then a
   worker that dies costs a second try on a fresh one, at the old place in the queue.
3. An answer that breaks after that says so: by an error event in an event stream, by a broken
   connection otherwise. It never ends as if it were whole.
4. A streaming client that has waited for `keepalive_after_s` gets a 200 and comments; from then on
   a failure is an event of the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from swapper.errors import SwapperError, Unavailable, UnknownModel
from swapper.front.adjusting import Adjustment, adjusted
from swapper.front.answer import CLIENT_LEFT, nothing_for
from swapper.front.attempts import on_a_worker
from swapper.front.body import asked, read_body, renamed
from swapper.front.call import Call
from swapper.front.form import boundary_of, read_form
from swapper.front.headers import request_headers
from swapper.front.heartbeat import Heartbeat
from swapper.front.keys import Key, check_model
from swapper.front.loading_text import LoadingText
from swapper.front.metrics import Metrics
from swapper.front.openai import error_event, error_response
from swapper.front.passing import pass_into_stream, pass_on
from swapper.front.refusal import NotFound, refusal_of
from swapper.front.response import Response
from swapper.front.upstream import Upstream
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.lease import Lease

if TYPE_CHECKING:
    from swapper.front.tracing import Tracing

log = structlog.get_logger("swapper.front")

CHAT: Final = "/v1/chat/completions"
EVENT_ROUTES: Final = frozenset(  # whose streams are events; others may stream sound
    {CHAT, "/v1/completions"}
)
# In JSON, and of every engine; whatever else may be asked with a form, and is only of some.
OWN_ROUTES: Final = EVENT_ROUTES | {"/v1/embeddings", "/v1/rerank"}
OWN_ENGINES: Final = frozenset({"llamacpp", "paged"})
LONGEST_NAME: Final = 256
SHUTTING_DOWN: Final = "swapper is shutting down"


class Proxy:
    """Passes requests on to workers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Metrics,
        upstream: Upstream,
        *,
        body_limit: int,
        keepalive_after_s: float,
        keepalive_every_s: float,
        loading_text: bool = False,
    ) -> None:
        self.is_shutting_down = False
        self.adjustments: Mapping[str, Adjustment] = {}  # by the name that a request gives
        self.tracing: Tracing | None = None
        self._log = structlog.get_logger("swapper.request").bind()  # once: it is on the hot path
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._upstream = upstream
        self._body_limit = body_limit
        self._keepalive_after_s = keepalive_after_s
        self._keepalive_every_s = keepalive_every_s
        self._loading_text = loading_text

    async def infer(self, call: Call) -> web.StreamResponse:
        """Answer a request whose body, JSON or a form, names the model."""
        return await self._to_its_end(call, self._infer(call))

    async def pass_through(self, call: Call, model: str) -> web.StreamResponse:
        """Answer any request to the model's own server; the body may be anything."""
        check_model(call.key, model)
        call.model = model
        return await self._to_its_end(call, self._pass_through(call))

    def resolve(self, name: str, key: Key | None = None) -> str:
        """The configured model behind a name; raises UnknownModel, and Forbidden where the key that
        it is asked for with is not for the model, or may not know that there is none."""
        if len(name) > LONGEST_NAME:  # no search for what is nearest to that
            raise UnknownModel(name[:40] + "...")
        try:
            model = self._dispatcher.registry.resolve(name)
        except UnknownModel:
            check_model(key, name)
            raise
        check_model(key, model)
        return model

    # ------------------------------------------------------------ one call

    async def _to_its_end(
        self, call: Call, serving: Coroutine[Any, Any, web.StreamResponse]
    ) -> web.StreamResponse:
        """Errors become answers, and one line tells what happened."""
        self._metrics.active += 1
        try:
            return await serving
        except Exception as error:  # noqa: BLE001  # told to the client, and logged in full
            return self._fail(call, error)
        except asyncio.CancelledError:
            self._cut(call)
            raise
        finally:
            self.ended(call)

    def ended(self, call: Call) -> None:
        """A call is over, however it ended: counted, timed and told of in one line."""
        now = time.perf_counter()
        self._metrics.ended(call, now)
        call.tell(self._log, now)
        if self.tracing is not None:
            self.tracing.ended(call, now)

    async def _infer(self, call: Call) -> web.StreamResponse:
        self._check_open()
        call.body = call.given = await read_body(call.request, self._body_limit)
        if call.route not in OWN_ROUTES:
            _read_form(call)
        wanted = asked(call.body) if call.form is None else call.form.asked()
        call.model = self.resolve(wanted.model, call.key)
        self._check_route(call, call.model)
        if (adjustment := self.adjustments.get(wanted.model)) is not None:
            _adjust(call, adjustment)
        if wanted.stream is not True or call.route not in EVENT_ROUTES:
            return await self._serve(call)
        heartbeat = self._heartbeat(call, call.model)
        try:
            return await self._serve(call, heartbeat)
        finally:
            heartbeat.stop()

    def _check_route(self, call: Call, model: str) -> None:
        """Nothing is loaded, and nobody moved out, for a path that is known not to be there."""
        if call.route in OWN_ROUTES:
            return
        engine = self._dispatcher.launch(model).engine
        if engine in OWN_ENGINES:
            raise NotFound(
                f"{model} has no {call.request.path[:200]}: its engine ({engine}) serves "
                f"{', '.join(sorted(OWN_ROUTES))}; others are for `command` and `url` models"
            )

    def _heartbeat(self, call: Call, model: str) -> Heartbeat:
        after_s, every_s = self._keepalive_after_s, self._keepalive_every_s
        if self._loading_text and call.route == CHAT:
            beat = LoadingText(self._dispatcher, call, model)
            return Heartbeat(call, after_s, every_s, beat=beat)
        return Heartbeat(call, after_s, every_s)

    async def _pass_through(self, call: Call) -> web.StreamResponse:
        self._check_open()
        assert call.model is not None
        call.body = call.given = await read_body(call.request, self._body_limit)
        return await self._serve(call)

    def _check_open(self) -> None:
        if self.is_shutting_down:
            raise Unavailable("shutting_down", SHUTTING_DOWN, retry_after_s=5.0)

    # ------------------------------------------------------------ one worker, perhaps another

    async def _serve(self, call: Call, heartbeat: Heartbeat | None = None) -> web.StreamResponse:
        def ask(lease: Lease) -> Coroutine[Any, Any, web.StreamResponse]:
            return self._exchange(call, lease, heartbeat)

        return await on_a_worker(self._dispatcher, self._metrics, call, ask)

    async def _exchange(
        self, call: Call, lease: Lease, heartbeat: Heartbeat | None
    ) -> web.StreamResponse:
        response = await self._ask(call, lease)
        try:
            if call.is_inference:
                await response.wait()
            if heartbeat is not None:
                heartbeat.stop()
            call.first_byte = time.perf_counter()
            return await self._pass_on(call, response)
        finally:
            response.close()

    async def _ask(self, call: Call, lease: Lease) -> Response:
        request, endpoint = call.request, lease.endpoint
        headers = request_headers(
            request.raw_headers, request.headers.get("connection", ""), endpoint.headers
        )
        headers.append((b"x-request-id", call.request_id.encode()))
        if call.key is not None:
            headers.append((b"x-swapper-key-id", call.key_name.encode()))
        if self.tracing is not None:
            headers = self.tracing.for_worker(call, headers)
        body = call.body
        if endpoint.upstream_model is not None and call.is_inference:
            body = _renamed(call, endpoint.upstream_model)
        return await self._upstream.open(endpoint, request.method, call.target, headers, body)

    async def _pass_on(self, call: Call, response: Response) -> web.StreamResponse:
        call.has_begun = True
        if call.answer is not None:  # a heartbeat was quicker
            await pass_into_stream(call, call.answer, response)
            return call.answer
        call.status = response.status
        return await pass_on(call, response, keep_alive=not self.is_shutting_down)

    # ------------------------------------------------------------ how it may end

    def _fail(self, call: Call, error: Exception) -> web.StreamResponse:
        if isinstance(error, ConnectionError):  # writing to the client failed
            self._cut(call)
            return nothing_for(call.request)
        if not isinstance(error, SwapperError):
            log.exception("a request failed inside", request_id=call.request_id, exc_info=error)
        refusal = refusal_of(error)
        call.error = refusal.code or refusal.type
        if call.answer is None:
            call.status = refusal.status
            return error_response(refusal, call.request_id)
        call.answer.fail(error_event(refusal))
        return call.answer

    def _cut(self, call: Call) -> None:
        """The handler is being cancelled: the client has left, or the grace at shutdown is over."""
        call.error = "shutting_down" if self.is_shutting_down else "client_left"
        if call.answer is None:
            call.status = CLIENT_LEFT
        elif self.is_shutting_down:
            error = Unavailable("shutting_down", SHUTTING_DOWN, retry_after_s=5.0)
            call.answer.fail(error_event(refusal_of(error)))


def _read_form(call: Call) -> None:
    boundary = boundary_of(call.request.headers.get("content-type"))
    if boundary is not None:
        call.form = read_form(call.body, boundary)


def _adjust(call: Call, adjustment: Adjustment) -> None:
    if call.form is None:
        call.body = adjusted(call.body, adjustment)
    else:
        call.form = call.form.adjusted(adjustment)
        call.body = call.form.body


def _renamed(call: Call, model: str) -> bytes:
    return renamed(call.body, model) if call.form is None else call.form.renamed(model)
