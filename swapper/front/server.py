"""The server: puts the parts of the front together, listens, lets requests in, and ends in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from aiohttp import web

from swapper.errors import SwapperError
from swapper.front import body
from swapper.front.adjusting import Adjustment
from swapper.front.admin import Admin, Reload
from swapper.front.answer import LAST, Answer, nothing_for
from swapper.front.call import target_of
from swapper.front.capture import Capture, Limits
from swapper.front.cards import Card
from swapper.front.headers import request_id
from swapper.front.http_log import HttpLog
from swapper.front.keys import Key, Keys
from swapper.front.leases import Leases
from swapper.front.llama_swap import LlamaSwap
from swapper.front.metrics import Metrics, Page
from swapper.front.newcomers import HEAD_S, Newcomers, Server
from swapper.front.ollama import OllamaRoutes
from swapper.front.openai import error_response
from swapper.front.origins import Origins, cors_headers, preflight
from swapper.front.pages import Pages
from swapper.front.proxy import Proxy
from swapper.front.refusal import refusal_of
from swapper.front.routing import Router, Routes
from swapper.front.telling import refused
from swapper.front.translated import Translator
from swapper.front.untranslated import Untranslated
from swapper.front.upstream import Upstream
from swapper.runtime.counter import TokenCounter
from swapper.runtime.dispatcher import Dispatcher

if TYPE_CHECKING:
    from swapper.front.tracing import Tracing

log = structlog.get_logger("swapper.front")

OPEN_PATHS: Final = frozenset({"/health", "/livez", "/readyz"})  # for probes, which have no key
BACKLOG: Final = 1024  # connections that nobody has taken yet
KEEPALIVE_S: Final = 620.0  # idle connections; longer than the proxies that may stand before us
LINGER_S: Final = 0.2  # for requests to come in whose connections have
CANCEL_S: Final = 2.0  # for handlers to clean up when the grace is over


class Listen(Protocol):
    """An address: a TCP port, or a Unix socket."""

    @property
    def host(self) -> str | None: ...

    @property
    def port(self) -> int: ...

    @property
    def socket_path(self) -> str | None: ...


class Front:
    """The HTTP edge over one dispatcher.

    `start` once, `begin_shutdown` when no more requests are to be taken, `close` at the end.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        api_keys: Sequence[Key] = (),
        key_in_path: bool = False,
        origins: Origins | None = None,
        body_limit: int = body.DEFAULT_LIMIT,
        head_timeout_s: float = HEAD_S,
        keepalive_after_s: float = 2.0,
        keepalive_every_s: float = 5.0,
        loading_text: bool = False,
        connect_timeout_s: float = 10.0,
        unload_timeout_s: float = 120.0,
    ) -> None:
        self._dispatcher = dispatcher
        self._keys = Keys(api_keys, in_path=key_in_path)
        self._origins = origins or Origins()
        self._pages = Pages()
        self._upstream = Upstream(connect_timeout_s=connect_timeout_s)
        self._capture = Capture()
        metrics = Metrics()
        self._proxy = Proxy(
            dispatcher,
            metrics,
            self._upstream,
            body_limit=body_limit,
            keepalive_after_s=keepalive_after_s,
            keepalive_every_s=keepalive_every_s,
            loading_text=loading_text,
        )
        self._translator = Translator(
            dispatcher,
            metrics,
            self._upstream,
            self._proxy,
            self._capture,
            body_limit=body_limit,
            keepalive_after_s=keepalive_after_s,
            keepalive_every_s=keepalive_every_s,
        )
        self._ollama = OllamaRoutes(dispatcher, self._proxy, body_limit=body_limit)
        page = Page(metrics, dispatcher, self._upstream)
        self._admin = Admin(
            dispatcher, page, self._proxy, self._capture, unload_timeout_s=unload_timeout_s
        )
        self._router = Router(
            Untranslated(dispatcher, self._proxy, self._capture).routes(),
            self._translator.routes(),
            self._ollama.routes(),
            LlamaSwap(dispatcher, self._admin).routes(),
            self._admin.routes(),
            Leases(dispatcher).routes(),
        )
        self._runner: web.ServerRunner | None = None
        self._server: Server | None = None
        self._newcomers = Newcomers(head_timeout_s)
        self._active: set[asyncio.Task[object]] = set()
        self._is_serving_out = False

    @property
    def routes(self) -> Routes:
        """All that is served, but for the page's files, by path template."""
        return self._router.routes

    # ------------------------------------------------------------ lifetime

    async def start(self, listeners: Sequence[Listen | socket.socket]) -> list[str]:
        """Listen; returns the addresses as URLs, real ports in place of 0."""
        self._server = Server(
            self._handle,
            handler_cancellation=True,
            keepalive_timeout=KEEPALIVE_S,
            access_log=None,
            logger=HttpLog(),
        )
        self._server.newcomers = self._newcomers
        self._runner = web.ServerRunner(self._server)
        await self._runner.setup()
        sites = [_site(self._runner, listener) for listener in listeners]
        for site in sites:
            await site.start()
        return [site.name for site in sites]

    def set_keys(self, api_keys: Sequence[Key]) -> None:
        """Other keys from the next request on; what is being answered goes on."""
        self._keys.replace(api_keys)

    def set_adjustments(self, adjustments: Mapping[str, Adjustment]) -> None:
        """What is done to request fields from the next request on, by the name that it gives."""
        self._proxy.adjustments = adjustments

    def set_capture(self, limits: Limits | None) -> None:
        """How much of requests and answers is kept for the inspector, from the next request on; None:
        nothing, and nothing is done for it."""
        self._capture.set_limits(limits)
        if limits is not None:
            kept = {"requests": limits.requests, "bytes": limits.memory}
            log.info("the last requests and answers are kept in memory", **kept)

    def set_cards(self, cards: Mapping[str, Card]) -> None:
        """What is told of models that may not be loaded, by name."""
        self._ollama.cards = self._admin.cards = cards

    def set_counter(self, counter: TokenCounter) -> None:
        """What counts tokens."""
        self._translator.counter = counter

    def set_tracing(self, tracing: Tracing) -> None:
        """What spans of requests are told to."""
        self._proxy.tracing = tracing

    def set_reload(self, reload: Reload) -> None:
        """What `POST /swapper/v1/reload` does."""
        self._admin.reload_config = reload

    def begin_shutdown(self) -> None:
        """From now on requests for models get 503; answers that have begun go on."""
        self._proxy.is_shutting_down = True

    async def serve_out(self, most_s: float) -> None:
        """Take no new connections; answer what comes on those that are here, each for the last time,
        until nobody waits for a worker any more."""
        self._is_serving_out = True
        await self._stop_listening()
        for _ in range(int(most_s / LINGER_S)):
            await asyncio.sleep(LINGER_S)
            if not self._dispatcher.snapshot().waiting:
                break

    async def _stop_listening(self) -> None:
        assert self._runner is not None
        for site in self._runner.sites:
            await site.stop()

    async def close(self, grace_s: float) -> bool:
        """Stop listening, let answers finish, end everything; False if the grace ran out first."""
        self.begin_shutdown()
        assert self._runner is not None
        assert self._server is not None
        await self._stop_listening()
        self._admin.stop_following()
        self._server.pre_shutdown()  # closes idle connections, others after their answer
        in_time = await self._finished(grace_s)
        for task in self._active:
            task.cancel()
        await self._finished(CANCEL_S)
        await self._server.shutdown(CANCEL_S)
        await self._runner.cleanup()
        self._upstream.close()
        self._newcomers.stop()
        return in_time

    async def _finished(self, timeout_s: float) -> bool:
        if not self._active:
            return True
        _, pending = await asyncio.wait(self._active, timeout=timeout_s)
        return not pending

    # ------------------------------------------------------------ one request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request. Raises nothing: what goes wrong is an answer."""
        task = asyncio.current_task()
        assert task is not None
        self._active.add(task)
        self._newcomers.spoke(request.protocol)
        if self._is_serving_out:
            request[LAST] = True
        try:
            request = self._keys.without_key(request)
            response = await self._dispatch(request)
            _let_read(request, response)
            return response
        except SwapperError as error:
            return self._refuse(request, error)
        except ConnectionError:  # the client went while it was written to
            return nothing_for(request)
        except Exception as error:
            log.exception("a request failed inside", path=request.path)
            return self._refuse(request, error)
        finally:
            self._active.discard(task)

    def _refuse(self, request: web.BaseRequest, error: Exception) -> web.StreamResponse:
        refusal, dialect = refusal_of(error), self._translator.dialect_of(request)
        name = request_id(request.headers.get("x-request-id"))
        response = error_response(refusal, name)
        if dialect is not None:
            response = refused(dialect, refusal, name)
        _let_read(request, response)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, _ = target_of(request).partition("?")
        self._origins.check(request)
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            return preflight(request)
        if self._pages.knows(request, path):
            return self._pages.answer(request, path)
        if path not in OPEN_PATHS:
            self._keys.check(request, path)
        return await self._router.find(request.method, path)(request)


def _let_read(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Let a page read what was not written yet: an `Answer` has said so itself."""
    if LAST in request:
        response.force_close()
    if not response.prepared and not isinstance(response, Answer):
        for name, value in cors_headers(request):
            response.headers[name.decode()] = value.decode("utf-8", "surrogateescape")


def _site(runner: web.ServerRunner, listener: Listen | socket.socket) -> web.BaseSite:
    if isinstance(listener, socket.socket):
        return web.SockSite(runner, listener, backlog=BACKLOG)
    if listener.socket_path is not None:
        return web.UnixSite(runner, listener.socket_path)
    return web.TCPSite(runner, listener.host, listener.port, backlog=BACKLOG)
