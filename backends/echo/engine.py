"""The echo engine: the answer is the last thing that was said."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import cycle, islice
from math import hypot
from typing import Any

from backends.echo.options import Options, read
from backends.echo.tokenizer import IM_END, IM_START, SPECIAL, VOCAB_SIZE, ByteTokenizer
from backends.serving.engine import (
    EngineError,
    FinishReason,
    GenerateRequest,
    ModelInfo,
    Progress,
    Token,
    Tokenizer,
)
from backends.serving.memory import host_bytes

_USER = [IM_START, *b"user\n"]
_LOAD_STEP_S = 0.05


def load(given: dict[str, Any], progress: Callable[[float], None]) -> EchoEngine:
    """Play a load as the options say."""
    options = read(given)
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < options.load_s:
        progress(elapsed / options.load_s)
        time.sleep(min(_LOAD_STEP_S, options.load_s - elapsed))
    if options.hang_load:
        threading.Event().wait()
    if options.fail_load == "exit":
        os._exit(1)
    if options.fail_load == "bug":
        raise RuntimeError("told to break")
    if options.fail_load:
        raise EngineError(options.fail_load, f"This model was told to fail: {options.fail_load}.")
    engine: EchoEngine = (SleepingEchoEngine if options.can_sleep else EchoEngine)(options)
    progress(1.0)
    return engine


class EchoEngine:
    """Keeps `serving.engine.Engine`."""

    def __init__(self, options: Options) -> None:
        self.info = ModelInfo(
            name=options.model,
            context=options.context,
            trained_context=options.context,
            vocab_size=VOCAB_SIZE,
            capabilities=frozenset({"chat", "completions", "embeddings"}),
            chat_template=None,
            bos_token=SPECIAL[0],
            eos_token=SPECIAL[1],
            embedding_length=options.embedding_length,
        )
        self.tokenizer: Tokenizer = ByteTokenizer()
        self._options = options
        self._turns = asyncio.Semaphore(options.parallel)
        self._memory = _touched(options.memory_bytes)
        self._step_s = 1 / options.tokens_per_s if options.tokens_per_s else 0.0
        self._is_awake = True
        self._threads = 1
        self._num_requests = 0  # waiting or running
        self._num_running = 0
        self._num_tokens = 0

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Progress]:
        """The echo, one token a step."""
        self._check_awake()
        self._num_requests += 1
        try:
            async with self._turns:
                self._num_running += 1
                try:
                    due = time.monotonic() + self._options.first_token_s
                    for progress in _steps(request):
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                        self._count(progress)
                        yield progress
                        due += self._step_s
                finally:
                    self._num_running -= 1
        finally:
            self._num_requests -= 1

    def _count(self, progress: Progress) -> None:
        self._num_tokens += len(progress.tokens)
        if 0 < self._options.exit_after_tokens < self._num_tokens:
            os._exit(1)
        if 0 < self._options.break_after_tokens < self._num_tokens:
            raise EngineError("crashed", "The engine was told to break.")

    def _check_awake(self) -> None:
        if not self._is_awake:
            raise EngineError("unavailable", "The model is asleep.")

    async def embed(
        self, inputs: Sequence[Sequence[int]], *, cache_scope: str = ""
    ) -> list[list[float]]:
        """Unit vectors that depend on nothing but the tokens."""
        self._check_awake()
        return [_vector(tokens, self.info.embedding_length) for tokens in inputs]

    def set_threads(self, threads: int) -> None:
        """Remembered, and seen in the metrics."""
        self._threads = threads

    def metrics(self) -> str:
        """Prometheus text."""
        values = {
            "swapper_worker_requests_running": ("gauge", self._num_running),
            "swapper_worker_requests_waiting": ("gauge", self._num_requests - self._num_running),
            "swapper_worker_tokens_total": ("counter", self._num_tokens),
            "swapper_worker_threads": ("gauge", self._threads),
        }
        return "".join(
            f"# TYPE {name} {kind}\n{name} {value}\n" for name, (kind, value) in values.items()
        )

    def memory(self) -> dict[str, int]:
        """Measured, like any worker's."""
        return {"host": host_bytes()}

    async def close(self) -> None:
        """End after `stop_s`, or never."""
        if self._options.ignore_term:
            await asyncio.Event().wait()
        await asyncio.sleep(self._options.stop_s)


class SleepingEchoEngine(EchoEngine):
    """One that keeps `serving.engine.CanSleep` too."""

    async def sleep(self) -> None:
        """Give `memory_bytes` back."""
        if self._options.fail_sleep:
            raise EngineError("crashed", "The engine was told not to sleep.")
        self._is_awake = False
        self._memory = bytearray()

    async def wake(self) -> None:
        """Take them again, after `wake_s`."""
        await asyncio.sleep(self._options.wake_s)
        if self._options.fail_wake:
            raise EngineError("crashed", "The engine was told not to wake.")
        self._memory = _touched(self._options.memory_bytes)
        self._is_awake = True


def _touched(size: int) -> bytearray:
    """Memory that is really there: every byte has been written."""
    return bytearray(b"\x01") * size


def _steps(request: GenerateRequest) -> Iterator[Progress]:
    """The whole answer, step by step."""
    said = _last_said(request.prompt)
    whole = islice(cycle(said), request.max_tokens) if request.sampling.ignore_eos else said
    answer = list(islice(whole, request.max_tokens))
    reason: FinishReason = "length" if len(answer) == request.max_tokens else "stop"
    scores = _prompt_scores(request) if request.prompt_logprobs else None
    if not answer:
        yield Progress((), reason, prompt_logprobs=scores)
    for index, id in enumerate(answer, 1):
        tokens = (_token(id, request.sampling.logprobs),)
        yield Progress(tokens, reason if index == len(answer) else None, prompt_logprobs=scores)
        scores = None


def _last_said(prompt: Sequence[int]) -> list[int]:
    """The last user message of a chat in ChatML, or else the whole prompt, without special tokens."""
    tokens = list(prompt)
    for start in range(len(tokens) - len(_USER), -1, -1):
        if tokens[start] == IM_START and tokens[start : start + len(_USER)] == _USER:
            tokens = tokens[start + len(_USER) :]
            tokens = tokens[: tokens.index(IM_END)] if IM_END in tokens else tokens
            break
    return [token for token in tokens if token < 256]


def _token(id: int, logprobs: int | None) -> Token:
    """A token that was certain; the alternatives are its neighbours, each half as likely as the last."""
    if logprobs is None:
        return Token(id)
    top = tuple(((id + rank) % 256, 0.0 - 0.5 * rank) for rank in range(logprobs))
    return Token(id, 0.0, top)


def _prompt_scores(request: GenerateRequest) -> tuple[Token | None, ...]:
    """Nothing has predicted the first token; the others were certain."""
    scored = [_token(id, request.sampling.logprobs) for id in request.prompt[1:]]
    return (None, *scored)


def _vector(tokens: Sequence[int], size: int) -> list[float]:
    source = random.Random(zlib.crc32(repr(list(tokens)).encode()))
    values = [source.uniform(-1, 1) for _ in range(size)]
    length = hypot(*values)
    return [value / length for value in values]
