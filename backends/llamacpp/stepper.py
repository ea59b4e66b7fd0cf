"""One step after another: schedule, run, read what came of it. Synchronous; the engine's thread calls it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from backends.llamacpp.batch import Chunk
from backends.llamacpp.context import ABORTED, NO_CELLS, OK
from backends.llamacpp.pace import Pace
from backends.llamacpp.sampler import Sampler, scored
from backends.llamacpp.scheduler import KvMemory, Scheduler
from backends.llamacpp.sequence import ImageSpan, Sequence, token_array
from backends.llamacpp.vocabulary import Vocabulary
from backends.serving.engine import EngineError, FinishReason, GenerateRequest, Progress, Token

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MAX_FAILURES = 3  # steps failing in a row before the engine gives up


@dataclass(slots=True, eq=False)
class Answer:
    """A request under way."""

    request: GenerateRequest
    serial: int
    sequence: Sequence = field(init=False)
    sampler: Sampler | None = None
    prompt_scores: dict[int, Token] | None = None  # by position; None when not wanted, or sent

    def __post_init__(self) -> None:
        request = self.request
        tokens = token_array(request.prompt)
        self.sequence = Sequence(
            self.serial,
            tokens,
            request.max_tokens,
            request.cache_scope,
            score_prompt=request.prompt_logprobs,
            images=tuple(cast("Ordered[ImageSpan]", request.images)),
        )
        self.prompt_scores = {} if request.prompt_logprobs else None


Outcome = tuple[Answer, "Progress | EngineError"]


class Runner(KvMemory, Protocol):
    """What a Context offers."""

    def run(self, chunks: Ordered[Chunk]) -> tuple[int, list[int]]: ...
    def logits(self, row: int) -> NDArray[np.float32]: ...
    def computed(self, slot: int) -> int: ...
    def clear(self) -> None: ...


@dataclass(slots=True)
class Counters:
    """What metrics are made of."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    steps: int = 0
    rows: int = 0
    finished: int = 0


class Stepper:
    """Owns the answers under way and drives scheduler and context with them."""

    def __init__(
        self, context: Runner, scheduler: Scheduler, vocabulary: Vocabulary, pace: Pace
    ) -> None:
        self.scheduler = scheduler
        scheduler.budget = pace.budget
        self.counters = Counters()
        self.awaits_images = False  # there was nothing else to do in the last step
        self._context = context
        self._vocabulary = vocabulary
        self._pace = pace
        self._answers: dict[Sequence, Answer] = {}
        self._num_failures = 0  # one after another

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def submit(self, answer: Answer) -> None:
        """Take `answer` on."""
        answer.sampler = Sampler(answer.request.sampling)
        self._answers[answer.sequence] = answer
        self.scheduler.add(answer.sequence)

    def cancel(self, answer: Answer) -> None:
        """Stop `answer` if it is still under way; what it computed is kept."""
        if self._answers.pop(answer.sequence, None) is not None:
            self.scheduler.finish(answer.sequence)

    def step(self) -> list[Outcome]:
        """Compute the next step; what it brought to whom."""
        chunks = self.scheduler.schedule()
        self.awaits_images = not chunks
        if not chunks:
            return []
        begun = monotonic()
        try:
            verdict, rows = self._context.run(chunks)
        except EngineError as error:  # of an image, which has the step for itself
            return self._end([chunk.sequence for chunk in chunks], error)
        self.counters.steps += 1
        if verdict == OK:
            self._num_failures = 0
            num_tokens = sum(chunk.length for chunk in chunks)
            self.scheduler.budget = self._pace.record(num_tokens, monotonic() - begun)
            self.scheduler.advance(chunks)
            return self._read(chunks, rows)
        if verdict == NO_CELLS:
            return (
                [] if self.scheduler.relieve() else self._fail(chunks, "has no room for the prompt")
            )
        if verdict == ABORTED:
            self._resume(chunks)
            return []
        print(f"llama_decode failed with {verdict}", file=sys.stderr)
        return self.fail()

    def fail_all(self, reason: str, kind: str = "unavailable") -> list[Outcome]:
        """End everything under way with an error, and forget what is kept."""
        outcomes = self._end(list(self._answers), EngineError(kind, reason))
        self.scheduler.drop_cache()
        self._context.clear()
        return outcomes

    def fail(self) -> list[Outcome]:
        """A step failed for good and the memory may hold anything: nothing of it is used again.

        When it happens again and again, the engine is of no use any more, and says so.
        """
        self._num_failures += 1
        if self._num_failures >= MAX_FAILURES:
            return self.fail_all("The model cannot compute any more", "crashed")
        return self.fail_all("The model failed to compute; the request can be sent again")

    # What a step brought

    def _read(self, chunks: Iterable[Chunk], rows: Iterable[int]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for chunk, row in zip(chunks, rows, strict=True):
            self.counters.rows += 1
            answer = self._answers[chunk.sequence]
            if chunk.scored and answer.prompt_scores is not None:
                self._score(answer, chunk, row)
            if chunk.start < chunk.sequence.num_prompt:
                self.counters.prompt_tokens += chunk.length
            if chunk.ends_prompt:
                try:
                    progress = self._progress(answer, self._context.logits(row + chunk.length - 1))
                except EngineError as error:  # of its grammar
                    outcomes += self._end([chunk.sequence], error)
                    continue
                outcomes.append((answer, progress))
                if progress.finish_reason is not None:
                    self._finish(answer)
        return outcomes

    def _progress(self, answer: Answer, logits: NDArray[np.float32]) -> Progress:
        sequence, sampling = answer.sequence, answer.request.sampling
        cached = sequence.num_cached or 0
        if sequence.num_answer == 0:
            self.counters.cached_tokens += cached
        token, reason = self._next(answer, logits)
        tokens: tuple[Token, ...] = ()
        if token is not None:
            top = sampling.logprobs
            tokens = (Token(token) if top is None else scored(logits, token, top),)
            sequence.tokens.append(token)
            self.counters.answer_tokens += 1
        return Progress(tokens, reason, cached, self._take_scores(answer))

    def _next(
        self, answer: Answer, logits: NDArray[np.float32]
    ) -> tuple[int | None, FinishReason | None]:
        """The next token and whether the answer ends with it, or instead of it."""
        sequence, sampler = answer.sequence, answer.sampler
        assert sampler is not None
        if sequence.max_tokens <= 0:
            return None, "length"
        banned: set[int] = set()
        while True:
            token = sampler.sample(logits, sequence.tokens, sequence.num_prompt, banned=banned)
            if token is None:
                return None, "stop"
            if not self._vocabulary.ends_answer(token):
                break
            if not answer.request.sampling.ignore_eos or token in banned:
                return None, "stop"
            banned.add(token)
        if sampler.accept(token):
            return token, "stop"
        return token, "length" if sequence.num_answer + 1 >= sequence.max_tokens else None

    def _score(self, answer: Answer, chunk: Chunk, row: int) -> None:
        """Row by row: how likely the model held the prompt's next token."""
        top = answer.request.sampling.logprobs or 0
        assert answer.prompt_scores is not None
        for offset in range(chunk.scored):
            position = chunk.start + offset + 1
            token = chunk.sequence.tokens[position]
            answer.prompt_scores[position] = scored(self._context.logits(row + offset), token, top)

    def _take_scores(self, answer: Answer) -> tuple[Token | None, ...] | None:
        scores = answer.prompt_scores
        if scores is None:
            return None
        answer.prompt_scores = None
        answer.sequence.score_prompt = False
        return (None, *(scores[i] for i in range(1, answer.sequence.num_prompt)))

    def _finish(self, answer: Answer) -> None:
        del self._answers[answer.sequence]
        self.scheduler.finish(answer.sequence)
        self.counters.finished += 1

    # What can go wrong

    def _fail(self, chunks: Iterable[Chunk], reason: str) -> list[Outcome]:
        error = EngineError("unavailable", f"The KV pool {reason}; try again")
        return self._end([chunk.sequence for chunk in chunks], error)

    def _end(self, sequences: Iterable[Sequence], error: EngineError) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for sequence in sequences:
            outcomes.append((self._answers.pop(sequence), error))
            self.scheduler.discard(sequence)
        return outcomes

    def _resume(self, chunks: Iterable[Chunk]) -> None:
        """The step was broken off: take as computed what the memory really holds."""
        for chunk in chunks:
            sequence = chunk.sequence
            assert sequence.slot is not None
            done = self._context.computed(sequence.slot) - sequence.num_computed
            if done > 0:
                self.scheduler.advance([Chunk(sequence, sequence.num_computed, done)])
