"""The Engine that the serving layer talks to: an event loop's side, and one thread that computes.

Requests go to the thread through an inbox. What a step brought goes back in one call on the loop, for all
sequences together, so that the loop wakes once a step. Only the thread touches llama.cpp's contexts.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import traceback
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial

from backends.llamacpp.binding import L
from backends.llamacpp.context import Context
from backends.llamacpp.devices import DeviceMeter
from backends.llamacpp.embedder import Embedder, EmbedJob, Vectors
from backends.llamacpp.loader import Loaded
from backends.llamacpp.metrics import render
from backends.llamacpp.stepper import Answer, Outcome, Stepper
from backends.llamacpp.vocabulary import Vocabulary
from backends.serving.engine import EngineError, GenerateRequest, ModelInfo, Progress, Tokenizer
from backends.serving.memory import host_bytes

UNLOADED = "The model was unloaded"


class Stream:
    """What a sequence brought and its reader has not yet taken. The loop's side only."""

    def __init__(self) -> None:
        self._items: deque[Progress | EngineError] = deque()
        self._reader: asyncio.Future[None] | None = None

    def put(self, item: Progress | EngineError) -> None:
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def get(self) -> Progress:
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._items.popleft()
        if isinstance(item, EngineError):
            raise item
        return item


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
        devices: DeviceMeter,
    ) -> None:
        self.info = info
        self.tokenizer: Tokenizer = vocabulary
        self._loaded = loaded
        self._context = context
        self._stepper = stepper
        self._embedder = embedder
        self._devices = devices
        self._streams: dict[Answer, Stream] = {}
        self._serials = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="llama", daemon=True)
        self._thread.start()

    # The loop's side

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Progress, None]:
        """As the Engine protocol says."""
        if self._stepper is None:
            raise EngineError("unsupported", f"{self.info.name} only makes embeddings")
        self._check(request)
        stepper, answer, stream = self._stepper, Answer(request, next(self._serials)), Stream()
        self._loop = asyncio.get_running_loop()
        self._streams[answer] = stream
        self._tell(lambda: self._submit(stepper, answer))
        is_over = False
        try:
            while not is_over:
                progress = await stream.get()
                is_over = progress.finish_reason is not None
                yield progress
        except EngineError:
            is_over = True
            raise
        finally:
            self._streams.pop(answer, None)
            if not is_over:
                self._tell(lambda: stepper.cancel(answer))

    async def embed(self, inputs: Sequence[Sequence[int]], *, cache_scope: str = "") -> Vectors:
        """As the Engine protocol says."""
        embedder = self._embedder
        if embedder is None:
            raise EngineError("unsupported", f"{self.info.name} makes no embeddings")
        for tokens in inputs:
            self._check_tokens(array("i", tokens))
            if len(tokens) > embedder.max_input:
                raise EngineError(
                    "context_length_exceeded",
                    f"An input has {len(tokens)} tokens; the model takes {embedder.max_input}",
                )
        if not inputs:
            return []
        loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Vectors] = loop.create_future()
        job = EmbedJob.of(inputs, lambda result: self._call(lambda: _resolve(future, result)))
        self._tell(lambda: embedder.submit(job))
        try:
            return await future
        finally:
            if not future.done() or future.cancelled():
                self._tell(lambda: embedder.cancel(job))

    def set_threads(self, threads: int) -> None:
        """As the Engine protocol says."""
        for context in (self._context, self._embedder.context if self._embedder else None):
            if context is not None:
                self._tell(partial(context.set_threads, threads))

    def metrics(self) -> str:
        """As the Engine protocol says."""
        return render(self._stepper, self._context.threads if self._context else 0)

    def memory(self) -> dict[str, int]:
        """As the Engine protocol says."""
        return {"host": host_bytes(), **self._devices.used()}

    async def close(self) -> None:
        """As the Engine protocol says."""
        self._loop = asyncio.get_running_loop()
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    def _check(self, request: GenerateRequest) -> None:
        if not request.prompt:
            raise EngineError("bad_request", "The prompt is empty")
        total = len(request.prompt) + request.max_tokens
        if total > self.info.context:
            raise EngineError(
                "context_length_exceeded",
                f"Prompt and answer would take {total} tokens; the context is {self.info.context}",
            )
        self._check_tokens(array("i", request.prompt))

    def _check_tokens(self, tokens: array[int]) -> None:
        if not tokens or min(tokens) < 0 or max(tokens) >= self.info.vocab_size:
            raise EngineError(
                "bad_request", "The input is empty or has tokens the model does not know"
            )

    def _tell(self, message: Callable[[], None]) -> None:
        self._inbox.append(message)
        self._wake.set()

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for answer, item in outcomes:
            stream = self._streams.get(answer)
            if stream is not None:
                stream.put(item)

    # The thread's side

    def _run(self) -> None:
        while not self._closing:
            try:
                while self._inbox:
                    self._inbox.popleft()()
                if not self._step():
                    self._wake.wait()
                    self._wake.clear()
            except Exception:  # noqa: BLE001 - one bad step must not end all requests to come
                traceback.print_exc(file=sys.stderr)
                self._recover()
        self._fail_all(UNLOADED)
        self._free()

    def _step(self) -> bool:
        """Compute whatever there is to compute; False when there is nothing."""
        has_worked = False
        if self._stepper is not None and self._stepper.has_work:
            outcomes = self._stepper.step()
            if outcomes:
                self._call(lambda: self._deliver(outcomes))
            has_worked = True
        if self._embedder is not None and self._embedder.has_work:
            self._embedder.step()
            has_worked = True
        return has_worked

    def _submit(self, stepper: Stepper, answer: Answer) -> None:
        try:
            stepper.submit(answer)
        except EngineError as error:
            outcomes: list[Outcome] = [(answer, error)]
            self._call(lambda: self._deliver(outcomes))

    def _recover(self) -> None:
        outcomes = self._stepper.fail() if self._stepper is not None else []
        self._call(lambda: self._deliver(outcomes))
        if self._embedder is not None:
            self._embedder.fail_all("The model failed to compute the embedding")

    def _fail_all(self, reason: str) -> None:
        if self._stepper is not None:
            outcomes = self._stepper.fail_all(reason)
            self._call(lambda: self._deliver(outcomes))
        if self._embedder is not None:
            self._embedder.fail_all(reason)

    def _call(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the event loop, if it still runs."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._closing = True

    def _free(self) -> None:
        for context in (self._context, self._embedder and self._embedder.context):
            if context:
                context.free()
        L.llama_model_free(self._loaded.pointer)


def _resolve(future: asyncio.Future[Vectors], result: Vectors | EngineError) -> None:
    if future.done():
        return
    if isinstance(result, EngineError):
        future.set_exception(result)
    else:
        future.set_result(result)
