"""The routes of Ollama's API that ask no model anything, so that none is loaded for them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import msgspec
from aiohttp import web

from swapper.core.registry import is_gpu
from swapper.errors import BadRequest
from swapper.front.body import read_body
from swapper.front.cards import Card, context_of
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.ollama.models import (
    Known,
    Loaded,
    loaded_entry,
    shown_model,
    tag_entry,
)
from swapper.front.dialects.ollama.names import configured
from swapper.front.dialects.reading import decode
from swapper.front.keys import holder, visible
from swapper.front.openai import json_response
from swapper.front.proxy import Proxy
from swapper.front.refusal import NotHere
from swapper.front.routing import ANY, Routes
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.views import WorkerView

VERSION: Final = "0.30.0"  # the release whose API this is; clients want it numeric, and new enough
LOADED: Final = ("ready", "draining", "waking")
COPILOT: Final = "GitHubCopilotChat/"  # shows the file's name for the model, unless told another
BLOBS: Final = "blobs"
INSTEAD: Final = {
    "pull": "models are fetched on the server, by `swapper pull NAME`",
    "push": "models are not sent anywhere from here",
    "create": "models are made on the server, by `swapper create` out of a Modelfile",
    "copy": "another name for a model is an entry of its `aliases` in the configuration",
    "delete": "a model goes by taking it out of the configuration, or its file out of the folder",
    BLOBS: "files are put on the server by hand, or by `swapper pull NAME`",
}


class ShowRequest(msgspec.Struct, kw_only=True):
    """`POST /api/show`; older clients say `name`."""

    model: str | None = None
    name: str | None = None


class OllamaRoutes:
    """Over the proxy's means, as `Admin` is. `cards` describe the configured models, by name."""

    def __init__(self, dispatcher: Dispatcher, proxy: Proxy, *, body_limit: int) -> None:
        self.cards: Mapping[str, Card] = {}
        self._dispatcher = dispatcher
        self._proxy = proxy
        self._body_limit = body_limit
        self._started = time.time()

    def routes(self) -> Routes:
        """By path template."""
        return {
            "/api/version": {"GET": self.version},
            "/api/tags": {"GET": self.tags},
            "/api/ps": {"GET": self.ps},
            "/api/show": {"POST": self.show},
            **{f"/api/{action}": {ANY: self.elsewhere} for action in INSTEAD if action != BLOBS},
            f"/api/{BLOBS}/{{digest}}": {ANY: self.elsewhere},
        }

    async def version(self, request: web.BaseRequest) -> web.StreamResponse:
        return json_response({"version": VERSION})

    async def tags(self, request: web.BaseRequest) -> web.StreamResponse:
        """All models, and the aliases, which are models to a client."""
        specs = self._dispatcher.registry.models.values()
        seen = visible(request, (spec.name for spec in specs))
        known = [
            self._known(spec.name, name)
            for spec in specs
            if spec.name in seen
            for name in (spec.name, *spec.aliases)
        ]
        return json_response({"models": [tag_entry(it) for it in known]})

    async def ps(self, request: web.BaseRequest) -> web.StreamResponse:
        """What is loaded; what stays the longest first."""
        now = time.time()
        workers = [w for w in self._dispatcher.snapshot().workers if w.state in LOADED]
        seen = visible(request, (worker.model for worker in workers))
        workers = [worker for worker in workers if worker.model in seen]
        workers.sort(key=_stays_at_most, reverse=True)
        entries = [
            loaded_entry(self._known(w.model, w.model), _loaded(w, now), now) for w in workers
        ]
        return json_response({"models": entries})

    async def elsewhere(self, request: web.BaseRequest, name: str = "") -> web.StreamResponse:
        """What is done in another way. Raises NotHere."""
        action = request.path.split("/")[2]
        raise NotHere(f"{request.path[:200]} is not served by swapper: {INSTEAD[action]}")

    async def show(self, request: web.BaseRequest) -> web.StreamResponse:
        """What a model is. Raises SwapperErrors."""
        return json_response(await self._shown(request))

    async def _shown(self, request: web.BaseRequest) -> Json:
        asked = decode(await read_body(request, self._body_limit), ShowRequest)
        if not (given := asked.model or asked.name):
            raise BadRequest("model is required", param="model")
        name = configured(given, self._dispatcher.registry.names())
        known = self._known(self._proxy.resolve(name, holder(request)), name)
        adjustment = self._proxy.adjustments.get(name)
        is_copilot = request.headers.get("user-agent", "").startswith(COPILOT)
        system = None if adjustment is None else adjustment.system
        return shown_model(known, system, given if is_copilot else None)

    def _known(self, model: str, name: str) -> Known:
        facts, card = self._dispatcher.facts(model), self.cards.get(model, NO_CARD)
        spec = self._dispatcher.registry.models[model]
        return Known(
            name=name,
            engine=spec.engine,
            card=card,
            since=self._started,
            context=context_of(spec, card, facts),
            abilities=() if facts is None else facts.capabilities,
        )


class _NoCard:
    """Of a model without files here."""

    format = architecture = quantization = template = license = ""
    num_parameters = size_bytes = 0
    modified_at = 0.0
    context = embedding_length = None
    is_embedder = fills_in = sees = False
    facts: Mapping[str, object] = {}


NO_CARD: Final = _NoCard()


def _stays_s(worker: WorkerView) -> float | None:
    """From now on, should nobody ask any more; None: for ever."""
    return worker.stays_s if worker.expires_in_s is None else worker.expires_in_s


def _stays_at_most(worker: WorkerView) -> float:
    stays_s = _stays_s(worker)
    return float("inf") if stays_s is None else stays_s


def _loaded(worker: WorkerView, now: float) -> Loaded:
    memory = dict(worker.measured or worker.reserved)
    stays_s = _stays_s(worker)
    if worker.state == "draining":  # clients say "stopping" of what is past
        stays_s = -1.0
    return Loaded(
        memory=sum(memory.values()),
        gpu_memory=sum(size for device, size in memory.items() if is_gpu(device)),
        leaves_at=None if stays_s is None else now + stays_s,
    )
