"""The Engine that the serving layer talks to: an event loop's side, and one thread that computes.

Only the thread touches llama.cpp's contexts.
"""

from __future__ import annotations

import asyncio
import itertools
from array import array
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from backends.llamacpp import ranking
from backends.llamacpp.binding import L
from backends.llamacpp.context import Context
from backends.llamacpp.devices import DeviceMeter
from backends.llamacpp.embedder import Embedder, EmbedJob, Vectors
from backends.llamacpp.loader import Loaded
from backends.llamacpp.metrics import render
from backends.llamacpp.stepper import Answer, Outcome, Stepper
from backends.llamacpp.vocabulary import Vocabulary
from backends.serving.compute_thread import ComputeThread, Streams
from backends.serving.engine import (
    EngineError,
    GenerateRequest,
    ModelInfo,
    Progress,
    SeenPrompt,
    Tokenizer,
)
from backends.serving.memory import host_bytes

if TYPE_CHECKING:
    from backends.llamacpp.projector import Projector

UNLOADED = "The model was unloaded"


class LlamaEngine:
    """A loaded GGUF."""

    def __init__(
        self,
        loaded: Loaded,
        info: ModelInfo,
        vocabulary: Vocabulary,
        *,
        context: Context | None,
        stepper: Stepper | None,
        embedder: Embedder | None,
        projector: Projector | None,
        devices: DeviceMeter,
    ) -> None:
        self.info = info
        self.tokenizer: Tokenizer = vocabulary
        self._loaded = loaded
        self._context = context
        self._stepper = stepper
        self._embedder = embedder
        self._projector = projector
        self._image_reader = ThreadPoolExecutor(1, "images")  # its thread starts with the first
        self._devices = devices
        self._pairs = ranking.Pairs(loaded.pointer, vocabulary)
        self._serials = itertools.count()
        self._thread = ComputeThread("llama", self)
        if projector is not None:
            projector.attach(self._thread.tell)
        self._streams: Streams[Answer] = Streams(self._thread)

    # The loop's side

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Progress, None]:
        """As the Engine protocol says."""
        if self._stepper is None:
            raise EngineError("unsupported", f"{self.info.name} only makes embeddings")
        self._check(request)
        answer = Answer(request, next(self._serials))
        with self._streams.follow(answer, self._stepper) as stream:
            async for progress in stream:
                yield progress

    async def see(self, parts: Sequence[str | bytes], *, add_special: bool) -> SeenPrompt:
        """As CanSee says."""
        if self._projector is None:
            raise EngineError("unsupported", f"{self.info.name} takes no images")
        read = partial(self._projector.read, parts, add_special=add_special)
        return await asyncio.get_running_loop().run_in_executor(self._image_reader, read)

    async def embed(self, inputs: Sequence[Sequence[int]], *, cache_scope: str = "") -> Vectors:
        """As the Engine protocol says."""
        if self._embedder is None or self._embedder.ranks:
            raise EngineError("unsupported", f"{self.info.name} makes no embeddings")
        return await self._pooled(self._embedder, inputs)

    def pair(self, query: str, document: str) -> list[int]:
        """As CanRank says."""
        return self._pairs(query, document)

    async def rank(self, pairs: Sequence[Sequence[int]], *, cache_scope: str = "") -> list[float]:
        """As CanRank says."""
        if self._embedder is None or not self._embedder.ranks:
            raise EngineError("unsupported", f"{self.info.name} ranks nothing")
        return [ranking.score(outputs) for outputs in await self._pooled(self._embedder, pairs)]

    async def _pooled(self, embedder: Embedder, inputs: Sequence[Sequence[int]]) -> Vectors:
        for tokens in inputs:
            self._check_tokens(array("i", tokens))
            if len(tokens) > embedder.max_input:
                raise EngineError(
                    "context_length_exceeded",
                    f"An input has {len(tokens)} tokens; the model takes {embedder.max_input}",
                )
        if not inputs:
            return []
        self._thread.attach()
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        job = EmbedJob.of(
            inputs, lambda result: self._thread.reply(lambda: _resolve(future, result))
        )
        self._thread.tell(lambda: embedder.submit(job))
        try:
            return await future
        finally:
            if not future.done() or future.cancelled():
                self._thread.tell(lambda: embedder.cancel(job))

    def set_threads(self, threads: int) -> None:
        """As the Engine protocol says."""
        for context in (self._context, self._embedder.context if self._embedder else None):
            if context is not None:
                self._thread.tell(partial(context.set_threads, threads))

    def metrics(self) -> str:
        """As the Engine protocol says."""
        return render(self._stepper, self._context.threads if self._context else 0)

    def memory(self) -> dict[str, int]:
        """As the Engine protocol says."""
        return {"host": host_bytes(), **self._devices.used()}

    async def close(self) -> None:
        """As the Engine protocol says."""
        await asyncio.to_thread(self._image_reader.shutdown, cancel_futures=True)
        await self._thread.close()

    def _check(self, request: GenerateRequest) -> None:
        if not request.prompt:
            raise EngineError("bad_request", "The prompt is empty")
        total = len(request.prompt) + request.max_tokens
        if total > self.info.context:
            raise EngineError(
                "context_length_exceeded",
                f"Prompt and answer would take {total} tokens; the context is {self.info.context}",
            )
        tokens = array("i", request.prompt)
        if request.images:
            tokens = array("i", (token for token in tokens if token >= 0))
        self._check_tokens(tokens)

    def _check_tokens(self, tokens: array[int]) -> None:
        if not tokens or min(tokens) < 0 or max(tokens) >= self.info.vocab_size:
            raise EngineError(
                "bad_request", "The input is empty or has tokens the model does not know"
            )

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for answer, item in outcomes:
            self._streams.put(answer, item)

    # The thread's side

    def step(self) -> bool:
        """As the Work protocol says."""
        has_worked = False
        if self._stepper is not None and self._stepper.has_work:
            self._send(self._stepper.step())
            has_worked = not self._stepper.awaits_images
        if self._embedder is not None and self._embedder.has_work:
            self._embedder.step()
            has_worked = True
        return has_worked

    def recover(self, error: Exception) -> None:
        """As the Work protocol says."""
        if self._stepper is not None:
            self._send(self._stepper.fail())
        if self._embedder is not None:
            self._embedder.fail_all("The model failed to compute the embedding")

    def end(self) -> None:
        """As the Work protocol says."""
        if self._stepper is not None:
            self._send(self._stepper.fail_all(UNLOADED))
        if self._embedder is not None:
            self._embedder.fail_all(UNLOADED)
        self._free()

    def _send(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._thread.reply(lambda: self._deliver(outcomes))

    def _free(self) -> None:
        for context in (self._context, self._embedder and self._embedder.context):
            if context:
                context.free()
        if self._projector is not None:
            self._projector.free()
        L.llama_model_free(self._loaded.pointer)


def _resolve(future: asyncio.Future[Vectors], result: Vectors | EngineError) -> None:
    if future.done():
        return
    if isinstance(result, EngineError):
        future.set_exception(result)
    else:
        future.set_result(result)
