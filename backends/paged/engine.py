"""The Engine that the serving layer talks to: an event loop's side, and one thread that computes."""

from __future__ import annotations

import asyncio
import itertools
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from functools import partial

import torch

from backends.paged.arena import Arena, DeviceMeter
from backends.paged.device import in_short
from backends.paged.metrics import render
from backends.paged.stepper import Answer, Embedding, Outcome, Pooling, Stepper, Task
from backends.serving.compute_thread import ComputeThread, Streams
from backends.serving.engine import EngineError, GenerateRequest, ModelInfo, Progress, Tokenizer
from backends.serving.memory import host_bytes

UNLOADED = "The model was unloaded"
ASLEEP = "The model sleeps"

Deliver = Callable[[list[Outcome]], None]


class PagedEngine:
    """A loaded checkpoint."""

    def __init__(
        self,
        info: ModelInfo,
        tokenizer: Tokenizer,
        stepper: Stepper,
        arena: Arena,
        meter: DeviceMeter,
        *,
        pooling: Pooling | None = None,
        most_threads: int = 1,
    ) -> None:
        self.info = info
        self.tokenizer = tokenizer
        self._stepper = stepper
        self._pooling = pooling
        self._meter = meter
        self._most_threads = most_threads
        self._vectors: dict[Task, asyncio.Future[list[float]]] = {}
        self._serials = itertools.count()
        self._asleep = False
        self._work = _Work(stepper, arena, self._deliver)
        self._thread = self._work.thread = ComputeThread("paged", self._work)
        self._streams: Streams[Answer] = Streams(self._thread)
        device = stepper.runner.device
        if device.type == "cuda":  # kernels are launched on the thread's device, not their tensors'
            self._thread.tell(partial(torch.cuda.set_device, device))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Progress, None]:
        """As the Engine protocol says."""
        self._check_awake()
        self._check_tokens(request.prompt)
        self._check_room(len(request.prompt), request.max_tokens)
        answer = Answer.of(request, next(self._serials), self._stepper.ends)
        with self._streams.follow(answer, self._stepper) as stream:
            async for progress in stream:
                yield progress

    async def embed(
        self, inputs: Sequence[Sequence[int]], *, cache_scope: str = ""
    ) -> list[list[float]]:
        """As the Engine protocol says."""
        pooling = self._pooling
        if pooling is None:
            raise EngineError("unsupported", f"{self.info.name} makes no embeddings")
        self._check_awake()
        for tokens in inputs:
            self._check_tokens(tokens)
            self._check_room(len(tokens), 0)
        tasks = [Embedding.of(t, next(self._serials), cache_scope, pooling) for t in inputs]
        self._thread.attach()
        loop = asyncio.get_running_loop()
        futures = [self._vectors.setdefault(task, loop.create_future()) for task in tasks]
        for task in tasks:
            self._thread.tell(partial(self._stepper.submit, task))
        try:
            return await asyncio.gather(*futures)
        finally:
            for task in tasks:
                if self._vectors.pop(task, None) is not None:
                    self._thread.tell(partial(self._stepper.cancel, task))

    def set_threads(self, threads: int) -> None:
        """As the Engine protocol says."""
        useful = min(threads, self._most_threads)
        self._thread.tell(lambda: torch.set_num_threads(useful))

    def warm_up(self) -> None:
        """Run every kind of step once, on the thread that will run them, and wait; raises what that raises."""
        done: Future[None] = Future()
        stepper = self._stepper

        def run() -> None:
            try:
                stepper.warm_up()
                done.set_result(None)
            except Exception as error:  # noqa: BLE001 - whoever loads gets it
                done.set_exception(error)

        self._thread.tell(run)
        done.result()

    def metrics(self) -> str:
        """As the Engine protocol says."""
        return render(self.info.name, self._stepper.scheduler, self._stepper.counters)

    def memory(self) -> dict[str, int]:
        """As the Engine protocol says."""
        return {"host": host_bytes(), **self._meter.used()}

    async def sleep(self) -> None:
        """As the CanSleep protocol says."""
        if self._streams or self._vectors:
            raise EngineError("unavailable", "The model is answering; it cannot sleep now")
        self._asleep = True
        await self._ask(self._work.sleep)

    async def wake(self) -> None:
        """As the CanSleep protocol says."""
        await self._ask(self._work.wake)
        self._asleep = False

    async def close(self) -> None:
        """As the Engine protocol says."""
        await self._thread.close()

    async def _ask(self, work: Callable[[], None]) -> None:
        """Have `work` done on the thread. What goes wrong there leaves the model of no use."""
        try:
            await self._thread.ask(work)
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            if isinstance(error, EngineError):
                raise
            reason = f"The model cannot compute any more: {in_short(error)}"
            raise EngineError("crashed", reason) from error

    def _check_awake(self) -> None:
        if self._asleep:
            raise EngineError("unavailable", ASLEEP)

    def _check_room(self, num_prompt: int, max_tokens: int) -> None:
        if num_prompt + max_tokens > self.info.context:
            raise EngineError(
                "context_length_exceeded",
                f"Prompt and answer would take {num_prompt + max_tokens} tokens; "
                f"the context is {self.info.context}",
            )

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        if not tokens or min(tokens) < 0 or max(tokens) >= self.info.vocab_size:
            raise EngineError(
                "bad_request", "The input is empty or has tokens the model does not know"
            )

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for task, item in outcomes:
            if isinstance(task, Answer):
                if not isinstance(item, list):
                    self._streams.put(task, item)
                continue
            future = self._vectors.pop(task, None)
            if future is None or future.done():
                continue
            if isinstance(item, list):
                future.set_result(item)
            elif isinstance(item, EngineError):
                future.set_exception(item)


class _Work:
    """What runs on the engine's thread."""

    thread: ComputeThread

    def __init__(self, stepper: Stepper, arena: Arena, deliver: Deliver) -> None:
        self._stepper = stepper
        self._arena = arena
        self._deliver = deliver
        stepper.runner.cache = arena.cache

    def step(self) -> bool:
        """As the Work protocol says."""
        if not self._stepper.has_work:
            return False
        is_awake = self._stepper.runner.cache is not None
        self._send(self._stepper.step() if is_awake else self._stepper.fail_all(ASLEEP))
        return True

    def recover(self, error: Exception) -> None:
        """As the Work protocol says."""
        self._send(self._stepper.fail(error))

    def end(self) -> None:
        """As the Work protocol says."""
        self._send(self._stepper.fail_all(UNLOADED))

    def sleep(self) -> None:
        """Give the device's memory back, and forget what was cached in it."""
        self._stepper.forget()
        self._stepper.runner.cache = None
        self._arena.give_back()

    def wake(self) -> None:
        """Take it again."""
        self._arena.take()
        self._stepper.runner.cache = self._arena.cache

    def _send(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self.thread.reply(lambda: self._deliver(outcomes))
