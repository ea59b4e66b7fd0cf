"""The routes of requests that a worker gets as they come: OpenAI's, and those of a model's own server."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

from aiohttp import web

from swapper.errors import UnknownModel
from swapper.front.call import Call, target_of
from swapper.front.capture import Capture
from swapper.front.proxy import OWN_ROUTES, Proxy
from swapper.front.routing import ANY, Routes, Serve
from swapper.runtime.dispatcher import Dispatcher

UPSTREAM: Final = "/upstream/"
OTHER_ROUTES: Final = "/v1/*"  # in logs and metrics: clients may ask for any path
DEEPEST_NAME: Final = 8  # parts of a model's name


class Untranslated:
    """The routes."""

    def __init__(self, dispatcher: Dispatcher, proxy: Proxy, capture: Capture) -> None:
        self._dispatcher = dispatcher
        self._proxy = proxy
        self._infer = capture.over(proxy.infer)
        self._pass_through = capture.over(proxy.pass_through)

    def routes(self) -> Routes:
        """By path template."""
        return {
            **{path: {"POST": self._asking(path)} for path in sorted(OWN_ROUTES)},
            "/v1/{path}": {"POST": self.other},
            "/upstream/{model}/{path}": {ANY: self.upstream},
        }

    def _asking(self, path: str) -> Serve:
        return lambda request: self._infer(Call.of(request, path))

    async def other(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Whatever else of OpenAI's a model's server may have; the body names the model."""
        return await self._infer(Call.of(request, OTHER_ROUTES))

    async def upstream(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Anything, of the model's own server. Raises UnknownModel."""
        target = target_of(request)
        model, rest = self._split(target[len(UPSTREAM) :])
        if not rest.startswith("/"):
            if request.method in ("GET", "HEAD"):  # so that a page's relative links work
                path, mark, query = target.partition("?")
                return web.Response(status=307, headers={"location": f"{path}/{mark}{query}"})
            rest = "/" + rest
        call = Call.of(request, UPSTREAM, rest)
        call.is_inference = False
        return await self._pass_through(call, model)

    def _split(self, rest: str) -> tuple[str, str]:
        """The model whose name is the longest beginning of `rest`, and what follows it."""
        path, mark, query = rest.partition("?")
        parts = path.split("/")
        known = set(self._dispatcher.registry.names())
        for end in range(min(len(parts), DEEPEST_NAME), 0, -1):
            name = unquote("/".join(parts[:end]))
            if name in known:
                rest = "".join(f"/{part}" for part in parts[end:])
                return self._proxy.resolve(name), rest + mark + query
        raise UnknownModel(unquote(parts[0])[:200])
