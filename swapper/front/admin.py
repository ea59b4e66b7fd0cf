"""What is served without a worker: models, state, logs, load and unload."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from swapper.core.registry import ModelSpec
from swapper.core.worker import WorkerState
from swapper.errors import BadRequest, ConfigError, Unavailable
from swapper.front.answer import Answer
from swapper.front.capture import Capture, Limits, listed
from swapper.front.cards import Card, context_of, sees
from swapper.front.dialects.anthropic.models import model_entry, model_list
from swapper.front.keys import holder, visible
from swapper.front.metrics import CONTENT_TYPE, Page
from swapper.front.openai import json_response
from swapper.front.proxy import Proxy
from swapper.front.refusal import Conflict, NotFound
from swapper.front.routing import Handler, Routes
from swapper.front.state import state
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.log_ring import LogLine
from swapper.runtime.views import Snapshot, WorkerView

Reload: TypeAlias = Callable[[], Awaitable[object]]

MAX_DECISIONS: Final = 200
STATE_EVERY_S: Final = 1.0
ANTHROPIC: Final = "anthropic-version"  # sent by every client of theirs, and by nobody else
HELLO: Final = """swapper: every model behind one endpoint

GET  /v1/models               the models that can be asked for
POST /v1/chat/completions     ask one; it is loaded when needed
POST /v1/responses, /v1/completions, /v1/embeddings, /v1/rerank
GET  /ui                      a page to look at it all, and to chat
GET  /running                 what is loaded, what waits
GET  /logs?model=NAME&follow=1
GET  /metrics
GET  /openapi.json            every route, described

Ollama is running, as far as its clients can tell: its API is served under /api/,
and Anthropic's under /v1/messages.
"""


class Admin:
    """The routes around the hot path. None of them loads a model, but `load`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        metrics: Page,
        proxy: Proxy,
        capture: Capture,
        *,
        unload_timeout_s: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._proxy = proxy
        self._capture = capture
        self._unload_timeout_s = unload_timeout_s
        self._created = int(time.time())
        self._followers: set[asyncio.Task[object]] = set()
        self.reload_config: Reload | None = None
        self.cards: Mapping[str, Card] = {}  # of the configured models, by name

    def routes(self) -> Routes:
        """By path template."""
        acts: Mapping[str, Handler] = {
            "load": self.load,
            "wake": self.load,
            "unload": self.unload,
            "sleep": self.sleep,
            "pin": self.pin,
            "unpin": self.unpin,
        }
        return {
            "/": {"GET": self.hello},
            "/api/hello": {"GET": self.hello},  # where Claude Code looks whether anybody is there
            "/health": {"GET": self.health},
            "/livez": {"GET": self.health},
            "/readyz": {"GET": self.ready},
            "/metrics": {"GET": self.metrics},
            "/openapi.json": {"GET": self.openapi},
            "/running": {"GET": self.running},
            "/logs": {"GET": self.logs},
            "/logs/stream": {"GET": self.log_stream},
            "/v1/models": {"GET": self.models},
            "/v1/models/{model}": {"GET": self.model},
            "/swapper/v1/state": {"GET": self.state},
            "/swapper/v1/events": {"GET": self.events},
            "/swapper/v1/decisions": {"GET": self.decisions},
            "/swapper/v1/requests": {"GET": self.requests, "DELETE": self.forget_requests},
            "/swapper/v1/requests/{number}": {"GET": self.exchange},
            "/swapper/v1/reload": {"POST": self.reload},
            **{f"/swapper/v1/models/{{model}}/{act}": {"POST": do} for act, do in acts.items()},
        }

    async def hello(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=HELLO)

    async def health(self, request: web.BaseRequest) -> web.StreamResponse:
        return json_response({"status": "ok"})

    async def ready(self, request: web.BaseRequest) -> web.StreamResponse:
        """Whether requests for models are taken: not while the server ends."""
        if self._proxy.is_shutting_down:
            return json_response({"status": "stopping"}, 503)
        return json_response({"status": "ok"})

    async def metrics(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(text=await self._metrics.text())
        response.headers["content-type"] = CONTENT_TYPE
        return response

    async def openapi(self, request: web.BaseRequest) -> web.StreamResponse:
        from swapper.front.openapi import document  # much to build, and seldom asked for

        return json_response(document())

    async def state(self, request: web.BaseRequest) -> web.StreamResponse:
        """Devices, models and the last requests, as of now."""
        return json_response(await self._state())

    async def events(self, request: web.BaseRequest) -> web.StreamResponse:
        """The state as server-sent events: at once, every second, and whenever a worker comes or goes.

        The first has all of the last requests, each other one those that are new since the one before.
        """
        known, metrics = 0, self._metrics.metrics
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        answer = Answer(request, 200, "OK", headers, is_events=True)
        with self._following(answer):
            while request.transport is not None:
                event = b"data: " + msgspec.json.encode(await self._state(known)) + b"\n\n"
                known = metrics.num_ended
                if answer.send(event):
                    await answer.drain()
                await self._dispatcher.changed(STATE_EVERY_S)
        return answer

    async def _state(self, since: int = 0) -> dict[str, object]:
        tokens = await self._metrics.generated()
        dispatcher, metrics = self._dispatcher, self._metrics.metrics
        return {
            **state(dispatcher.snapshot(), dispatcher.registry, metrics, tokens),
            **self._requests(since),
        }

    def _requests(self, since: int = 0) -> dict[str, object]:
        """Those behind number `since`. Of the ones before, `oldest_request` is the first that is still
        told of, and `oldest` of `capture` the first that is still kept."""
        metrics, capture = self._metrics.metrics, self._capture
        return {
            "capture": None if capture.limits is None else _kept(capture, capture.limits),
            "requests": listed(metrics, capture.summaries(since), since),
            "requests_since": since,
            "oldest_request": metrics.num_ended - len(metrics.recent) + 1,
        }

    async def requests(self, request: web.BaseRequest) -> web.StreamResponse:
        """The last requests, and how much of them is kept."""
        return json_response(self._requests())

    async def forget_requests(self, request: web.BaseRequest) -> web.StreamResponse:
        """The same, when nothing of them is kept any more."""
        self._capture.forget()
        return json_response(self._requests())

    async def exchange(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """One of them, by its number, with all that was said. Raises NotFound."""
        found = self._capture.exchange(int(name)) if name.isdecimal() else None
        if found is None:
            raise NotFound(
                "this request was not kept, or is not any more; `capture` in the configuration says "
                "how many are"
            )
        listing = listed(self._metrics.metrics, {found.number: found.summary()})
        told = next((it for it in listing if it["number"] == found.number), {})
        return json_response({**told, **found.told()})

    async def reload(self, request: web.BaseRequest) -> web.StreamResponse:
        """Read the configuration anew; what is wrong with it is a 400, and nothing has changed."""
        if self.reload_config is None:
            raise NotFound("this server was started without a configuration to read anew")
        try:
            return json_response(await self.reload_config())
        except ConfigError as error:
            raise BadRequest(str(error)) from None

    async def decisions(self, request: web.BaseRequest) -> web.StreamResponse:
        """The decision log, newest first: of one model, or of all."""
        model = request.query.get("model")
        if model is not None:
            model = self._proxy.resolve(model)
        found = self._dispatcher.decisions(model, MAX_DECISIONS)
        return json_response({"decisions": [asdict(decision) for decision in found]})

    # ------------------------------------------------------------ models

    async def models(self, request: web.BaseRequest) -> web.StreamResponse:
        states = self._states()
        models = self._dispatcher.registry.models
        seen = visible(request, models)
        entries = [self._entry(spec, states) for name, spec in models.items() if name in seen]
        if ANTHROPIC in request.headers:
            return json_response(model_list(entries))
        return json_response({"object": "list", "data": entries})

    async def model(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        spec = self._dispatcher.registry.models[self._proxy.resolve(name, holder(request))]
        entry = {**self._entry(spec, self._states()), "id": name}
        return json_response(model_entry(entry) if ANTHROPIC in request.headers else entry)

    def _entry(self, spec: ModelSpec, states: dict[str, str]) -> dict[str, object]:
        entry: dict[str, object] = {
            "id": spec.name,
            "object": "model",
            "created": self._created,
            "owned_by": "swapper",
            "aliases": list(spec.aliases),
            "engine": spec.engine,
            "state": states.get(spec.name, "stopped"),
        }
        card, facts = self.cards.get(spec.name), self._dispatcher.facts(spec.name)
        context = context_of(spec, card, facts)
        if context is not None:
            entry["context_length"] = context
        if sees(card, facts):
            entry["input_modalities"] = ["text", "image"]
        return entry

    def _states(self) -> dict[str, str]:
        return {worker.model: worker.state for worker in self._dispatcher.snapshot().workers}

    # ------------------------------------------------------------ what runs

    async def running(self, request: web.BaseRequest) -> web.StreamResponse:
        snapshot, models = self._dispatcher.snapshot(), self._dispatcher.registry.models
        present = {worker.model for worker in snapshot.workers}
        seen = visible(request, present | snapshot.waiting.keys())
        entries = [
            _running_entry(worker, snapshot) for worker in snapshot.workers if worker.model in seen
        ]
        entries += [
            _waiting_entry(models[model], snapshot)
            for model in snapshot.waiting
            if model in seen and model in models and model not in present
        ]
        return json_response({"running": entries})

    async def load(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Begin to load, or to wake; 202, or 200 when it is loaded already."""
        model = self._proxy.resolve(name)
        if self._states().get(model) != "ready":
            self._dispatcher.load(model)
        state = self._states().get(model, "stopped")
        return json_response({"model": model, "state": state}, 200 if state == "ready" else 202)

    async def unload(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Unload once the answers in flight are done; returns when the worker is gone."""
        model = self._proxy.resolve(name)
        if not await self._dispatcher.unload(model, self._unload_timeout_s):
            raise Unavailable(
                "timeout",
                f"model '{model}' still answers requests; it will be unloaded after them",
                retry_after_s=10.0,
            )
        return json_response({"model": model, "state": "stopped"})

    async def sleep(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Put to sleep once the answers in flight are done; returns when it sleeps. Raises Conflict."""
        model = self._proxy.resolve(name)
        self._check_can_sleep(model)
        state = await self._dispatcher.sleep(model, self._unload_timeout_s)
        match state:
            case WorkerState.SLEEPING | WorkerState.WAKING:  # by somebody who waited
                return json_response({"model": model, "state": state.value})
            case WorkerState.DRAINING:
                raise Unavailable(
                    "timeout",
                    f"model '{model}' still answers requests; it will sleep after them",
                    retry_after_s=10.0,
                )
        raise Conflict(f"model '{model}' did not go to sleep; `swapper why {model}` tells why")

    def _check_can_sleep(self, model: str) -> None:
        workers = self._dispatcher.snapshot().workers
        worker = next((worker for worker in workers if worker.model == model), None)
        if worker is None or worker.state in ("starting", "stopping"):
            raise Conflict(f"model '{model}' is not loaded, so it cannot be put to sleep")
        if not worker.can_sleep:
            raise Conflict(f"model '{model}' cannot sleep: its worker does not offer it; unload it")

    async def pin(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Never moved out for another model, until it is unpinned or swapper starts anew."""
        return self._pin(name, is_pinned=True)

    async def unpin(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """The contrary, whatever the configuration says."""
        return self._pin(name, is_pinned=False)

    def _pin(self, name: str, *, is_pinned: bool) -> web.StreamResponse:
        model = self._proxy.resolve(name)
        self._dispatcher.pin(model, is_pinned)
        return json_response({"model": model, "pin": is_pinned})

    # ------------------------------------------------------------ logs

    async def log_stream(self, request: web.BaseRequest) -> web.StreamResponse:
        """Everybody's output, as it comes."""
        return await self._follow(request, None)

    async def logs(self, request: web.BaseRequest) -> web.StreamResponse:
        """A model's output, or everybody's: what is kept, then, with `follow`, what comes."""
        name = request.rel_url.query.get("model")
        model = self._proxy.resolve(name) if name else None
        if request.rel_url.query.get("follow", "0") in ("", "0", "false"):
            lines = self._dispatcher.logs.last(model)
            return web.Response(text="".join(_log_line(line, model) for line in lines))
        return await self._follow(request, model)

    async def _follow(self, request: web.BaseRequest, model: str | None) -> Answer:
        answer = Answer(request, 200, "OK", [(b"content-type", b"text/plain; charset=utf-8")])
        with self._following(answer):
            async for line in self._dispatcher.logs.tail(model):
                if answer.send(_log_line(line, model).encode("utf-8", "replace")):
                    await answer.drain()
        return answer

    @contextlib.contextmanager
    def _following(self, answer: Answer) -> Iterator[None]:
        """For a stream that would never end by itself: it ends orderly when the server does."""
        task = asyncio.current_task()
        assert task is not None
        self._followers.add(task)
        try:
            yield
        except asyncio.CancelledError:
            answer.finish()
            raise
        finally:
            self._followers.discard(task)

    def stop_following(self) -> None:
        """End the streams that would never end by themselves."""
        for task in self._followers:
            task.cancel()


def _kept(capture: Capture, limits: Limits) -> dict[str, object]:
    return {
        "requests": len(capture),
        "bytes": capture.size,
        "oldest": capture.oldest,
        "most_requests": limits.requests,
        "most_bytes": limits.memory,
    }


def _log_line(line: LogLine, model: str | None) -> str:
    """As the worker wrote it; with its model's name in front where several are mixed."""
    return f"{line.text}\n" if model is not None else f"[{line.model}] {line.text}\n"


def _running_entry(worker: WorkerView, snapshot: Snapshot) -> dict[str, object]:
    return {
        "model": worker.model,
        "state": worker.state,
        "engine": worker.engine,
        "worker": worker.worker_id,
        "pid": worker.pid,
        "in_flight": worker.in_flight,
        "waiting": snapshot.waiting.get(worker.model, 0),
        "memory": {"estimated": dict(worker.reserved), "measured": dict(worker.measured)},
        "idle_s": _rounded(worker.idle_s),
        "expires_in_s": _rounded(worker.expires_in_s),
        "progress": worker.progress,
        "ttl": worker.ttl_s,
        "pin": worker.model in snapshot.pinned,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _waiting_entry(spec: ModelSpec, snapshot: Snapshot) -> dict[str, object]:
    """A model that somebody waits for and that has no worker yet."""
    return {
        "model": spec.name,
        "state": "waiting",
        "engine": spec.engine,
        "worker": None,
        "pid": None,
        "in_flight": 0,
        "waiting": snapshot.waiting[spec.name],
        "memory": {"estimated": {}, "measured": {}},
        "idle_s": None,
        "expires_in_s": None,
        "progress": 0.0,
        "ttl": spec.ttl_s,
        "pin": spec.name in snapshot.pinned,
    }
