"""The routes every worker serves, over one engine."""

from __future__ import annotations

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from backends.serving import answers, embeddings
from backends.serving.choices import Choice, Delta
from backends.serving.engine import CanRank, CanSleep, Engine, EngineError
from backends.serving.errors import (
    RequestError,
    bad_request,
    from_engine,
    internal,
    no_such_ability,
    unavailable,
)
from backends.serving.generation import follow_all
from backends.serving.model import ServedModel
from backends.serving.prompts import checked_tokens
from backends.serving.replies import Reply
from backends.serving.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    ThreadsRequest,
    TokenizeRequest,
    decode,
)
from backends.serving.rerank import rerank

MAX_BODY_BYTES = 64 << 20
KEEPALIVE_S = 3600.0  # the proxy decides which of its connections to keep

QUIET_S = 0.25  # after the last answer

_JSON = "application/json"
_STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Serving:
    """One engine behind HTTP. It counts what is in flight, so that a worker can drain."""

    def __init__(self, engine: Engine, on_broken: Callable[[EngineError], None]) -> None:
        self.engine = engine
        self.served = ServedModel(engine)
        self.num_in_flight = 0
        self.is_draining = False
        self._on_broken = on_broken  # the engine can serve nothing any more
        self._request_ended = asyncio.Event()
        self._created = int(time.time())

    def warm_up(self) -> None:
        """Compile the template before the first chat needs it."""
        try:
            _ = self.served.template
        except RequestError as error:
            print(error.message, file=sys.stderr, flush=True)

    async def prepare(self) -> None:
        """As soon as nobody has asked for anything for a moment, do ahead what a first grammar needs:
        it takes a core for a second, where vocabularies are large."""
        if self.engine.info.capabilities.isdisjoint({"chat", "completions"}):
            return
        await asyncio.sleep(QUIET_S)
        while self.num_in_flight:
            self._request_ended.clear()
            await self._request_ended.wait()
            await asyncio.sleep(QUIET_S)
        await self.served.prepare()

    @property
    def capabilities(self) -> frozenset[str]:
        """What clients can ask of this model; whoever chats can be told of tools."""
        given = self.engine.info.capabilities
        return given | {"tools"} if "chat" in given else given

    def application(self) -> web.Application:
        """The routes, ready for a runner."""
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completions),
                web.post("/v1/embeddings", self.embeddings),
                web.post("/v1/rerank", self.rerank),
                web.get("/v1/models", self.models),
                web.get("/v1/models/{model:.+}", self.model),
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.post("/tokenize", self.tokenize),
                web.post("/detokenize", self.detokenize),
                web.post("/threads", self.threads),
                web.post("/sleep", self.sleep),
                web.post("/wake", self.wake),
            ]
        )
        return app

    # -- every request -------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count the request; turn whatever goes wrong into OpenAI's envelope."""
        if self.is_draining and request.path.startswith("/v1/"):
            return _error(unavailable("This worker is about to end; send the request again."))
        self.num_in_flight += 1
        try:
            return await handler(request)
        except RequestError as error:
            return _error(error)
        except EngineError as error:
            self._note(error)
            return _error(from_engine(error))
        except web.HTTPException as error:
            return _error(_from_http(error))
        except Exception:  # noqa: BLE001 - one request must not take the others with it
            traceback.print_exc(file=sys.stderr)
            return _error(internal())
        finally:
            self.num_in_flight -= 1
            self._request_ended.set()

    def _note(self, error: EngineError) -> None:
        if error.kind == "crashed":
            self._on_broken(error)

    async def drained(self) -> None:
        """Take nothing new; return when nothing is in flight."""
        self.is_draining = True
        while self.num_in_flight:
            self._request_ended.clear()
            await self._request_ended.wait()

    # -- generation ----------------------------------------------------------------------------

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self._require("chat", "chat")
        body = decode(await request.read(), ChatRequest)
        reply = await answers.chat(self.served, body, _scope(request))
        return await self._answer(request, body, reply)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        self._require("completions", "completions")
        body = decode(await request.read(), CompletionRequest)
        reply = await answers.completions(self.served, body, _scope(request))
        return await self._answer(request, body, reply)

    async def _answer(
        self, request: web.Request, body: ChatRequest | CompletionRequest, reply: Reply
    ) -> web.StreamResponse:
        if body.stream:
            options = body.stream_options
            reply.start_stream(bool(options and options.include_usage))
            return await self._stream(request, reply)

        async def collect(choice: Choice, delta: Delta) -> None:
            reply.collect(choice, delta)

        await follow_all(self.engine, reply.choices, collect)
        return web.Response(body=reply.body(), content_type=_JSON)

    async def _stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Server-sent events. Nothing is sent before the first token, so that what fails until
        then has its true status; a failure after it is the last event, and no [DONE] follows."""
        response = web.StreamResponse(headers=_STREAM_HEADERS)

        async def emit(choice: Choice, delta: Delta) -> None:
            events, is_last = reply.chunk(choice, delta)
            if not response.prepared:
                await response.prepare(request)
            await (response.write_eof(events) if is_last else response.write(events))

        try:
            await follow_all(self.engine, reply.choices, emit)
        except ConnectionError:
            pass  # the client is gone, and its sequences with it
        except Exception as error:
            if not response.prepared:
                raise
            await response.write_eof(self._explained(error).event())
        return response

    def _explained(self, error: Exception) -> RequestError:
        if isinstance(error, EngineError):
            self._note(error)
            return from_engine(error)
        traceback.print_exception(error, file=sys.stderr)
        return internal()

    async def embeddings(self, request: web.Request) -> web.Response:
        self._require("embeddings", "embeddings")
        body = decode(await request.read(), EmbeddingRequest)
        answer = await embeddings.embed(self.engine, self.served.encoder, body, _scope(request))
        return web.Response(body=answer, content_type=_JSON)

    async def rerank(self, request: web.Request) -> web.Response:
        self._require("rerank", "rerank")
        assert isinstance(self.engine, CanRank)
        body = decode(await request.read(), RerankRequest)
        answer = await rerank(self.engine, self.served.encoder, body, _scope(request))
        return web.Response(body=answer, content_type=_JSON)

    def _require(self, capability: str, words: str) -> None:
        if capability not in self.engine.info.capabilities:
            raise no_such_ability(words, self.engine.info.name)

    # -- the model, and the worker itself ------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        return _json({"object": "list", "data": [self._card()]})

    async def model(self, request: web.Request) -> web.Response:
        name = request.match_info["model"]
        if name != self.engine.info.name:
            raise RequestError(
                404,
                f"The model {name} is not served here.",
                param="model",
                code="model_not_found",
            )
        return _json(self._card())

    def _card(self) -> dict[str, object]:
        info = self.engine.info
        return {
            "id": info.name,
            "object": "model",
            "created": self._created,
            "owned_by": "swapper",
            "context": info.context,
            "capabilities": sorted(self.capabilities),
        }

    async def health(self, request: web.Request) -> web.Response:
        if self.is_draining:
            return _json({"status": "draining"}, status=503)
        return _json({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.engine.metrics())

    async def tokenize(self, request: web.Request) -> web.Response:
        body = decode(await request.read(), TokenizeRequest)
        tokens = await self.served.encoder.encode(
            body.content,
            add_special=bool(body.add_special),
            parse_special=body.parse_special is not False,
        )
        return _json({"tokens": tokens})

    async def detokenize(self, request: web.Request) -> web.Response:
        body = decode(await request.read(), DetokenizeRequest)
        tokens = checked_tokens(self.engine, body.tokens, "tokens")
        data = b"".join(map(self.engine.tokenizer.piece, tokens))
        return _json({"content": data.decode("utf-8", "replace")})

    async def threads(self, request: web.Request) -> web.Response:
        body = decode(await request.read(), ThreadsRequest)
        if not 1 <= body.threads <= 4096:
            raise bad_request("threads must be from 1 to 4096", "threads")
        self.engine.set_threads(body.threads)
        return _json({"threads": body.threads})

    async def sleep(self, request: web.Request) -> web.Response:
        await self._sleeper().sleep()
        return _json({"status": "sleeping", "memory": self.engine.memory()})

    async def wake(self, request: web.Request) -> web.Response:
        await self._sleeper().wake()
        return _json({"status": "ok", "memory": self.engine.memory()})

    def _sleeper(self) -> CanSleep:
        if not isinstance(self.engine, CanSleep):
            raise no_such_ability("sleep", self.engine.info.name)
        return self.engine


def _scope(request: web.Request) -> str:
    """Whose request this is: cached prompts are shared only within one API key."""
    return request.headers.get("x-swapper-key-id", "")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=_JSON)


def _error(error: RequestError) -> web.Response:
    return web.Response(
        body=error.body(), status=error.status, headers=error.headers(), content_type=_JSON
    )


def _from_http(error: web.HTTPException) -> RequestError:
    """aiohttp's own refusals: no such route, wrong method, a body that is too large."""
    if error.status == 404:
        return RequestError(404, "There is no such route.", code="not_found")
    if error.status == 413:
        return RequestError(413, f"The request body is larger than {MAX_BODY_BYTES >> 20} MiB.")
    return RequestError(error.status, error.reason)
