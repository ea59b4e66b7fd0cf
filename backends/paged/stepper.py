"""One step after another: schedule, run, choose, read. Synchronous; the engine's thread calls it.

    a step in order     schedule n   run n     choose n           read n
    steps that overlap  schedule n   run n     read n-1           choose n

On a device `run` and `choose` only launch, and `read` waits. In order the device waits for the host from
`read` to the next `run`. Overlapping, what is launched is always a step ahead of what is read: while
the device runs step n, the host reads the tokens of n-1, tells them, and chooses and plans what comes
next. Grammars, penalties and stops need no exception, as the tokens of n-1 are known when those of n are
chosen. The price is that one step more is computed for an answer whose end could not be foreseen.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import torch
from torch import Tensor

from backends.paged.chooser import Chooser, Chosen, Scored
from backends.paged.device import Arriving, in_short, lacks_memory
from backends.paged.metrics import Counters, Times
from backends.paged.runner import LOGITS_ROWS, Runner
from backends.paged.sampling import Way
from backends.paged.scheduler import Chunk, Scheduler
from backends.paged.sequence import Sequence
from backends.serving.engine import (
    Constraint,
    EngineError,
    FinishReason,
    GenerateRequest,
    Progress,
    SamplingParams,
    Token,
)

Pooling = Literal["mean", "cls", "last"]
MAX_FAILURES = 3  # steps failing in a row before the engine gives up


@dataclass(slots=True, eq=False)
class Answer:
    """A request for an answer, under way."""

    sequence: Sequence
    way: Way
    constraint: Constraint | None = None
    prompt_scores: dict[int, Token] | None = None  # by position; None when not wanted, or sent
    times: Times = field(default_factory=Times)

    @classmethod
    def of(cls, request: GenerateRequest, serial: int, ends: frozenset[int]) -> Answer:
        params, scores = request.sampling, request.prompt_logprobs
        sequence = Sequence(
            serial, list(request.prompt), request.max_tokens, request.cache_scope, scores
        )
        seed = secrets.randbits(63) if params.seed is None else params.seed
        way = Way(params, seed, banned=ends if params.ignore_eos else frozenset())
        constraint = params.grammar.start() if params.grammar else None
        return cls(sequence, way, constraint, {} if scores else None)


@dataclass(slots=True, eq=False)
class Embedding:
    """A text whose hidden states are wanted as one vector."""

    sequence: Sequence
    pooling: Pooling
    pooled: Tensor | None = None  # [hidden_size] float32, of the rows so far

    @classmethod
    def of(cls, tokens: Ordered[int], serial: int, scope: str, pooling: Pooling) -> Embedding:
        sequence = Sequence(serial, list(tokens), 0, scope, needs_all_rows=pooling != "last")
        return cls(sequence, pooling)

    def take(self, chunk: Chunk, hidden: Tensor) -> None:
        """Hidden states [chunk.length, hidden_size], valid until the next step. A text that is begun anew
        begins at 0."""
        if self.pooling == "mean":
            total = hidden.float().sum(0)
            self.pooled = total if chunk.start == 0 or self.pooled is None else self.pooled + total
        elif self.pooling == "last" and chunk.is_last:
            self.pooled = hidden[-1].to(torch.float32, copy=True)
        elif self.pooling == "cls" and chunk.start == 0:
            self.pooled = hidden[0].to(torch.float32, copy=True)

    def vector(self) -> Arriving:
        """The text's vector, of length one."""
        assert self.pooled is not None
        return Arriving([torch.nn.functional.normalize(self.pooled, dim=0)])


Task = Answer | Embedding
Outcome = tuple[Task, "Progress | list[float] | EngineError"]


@dataclass(frozen=True, slots=True)
class _Launched:
    """What a step brings that was launched and not read."""

    answers: list[Answer]
    chosen: Chosen | None  # their next tokens
    vectors: list[tuple[Embedding, Arriving]]
    scores: list[tuple[Answer, int, Scored]]  # of prompts, from a position on


@dataclass(slots=True)
class Stepper:
    """Owns the tasks under way and drives scheduler and runner with them."""

    scheduler: Scheduler
    runner: Runner
    chooser: Chooser
    ends: frozenset[int]  # tokens that end an answer
    overlaps: bool = False  # whether the next step is launched before this one is read
    counters: Counters = field(default_factory=Counters)
    _tasks: dict[Sequence, Task] = field(default_factory=dict)
    _launched: _Launched | None = None
    _outcomes: list[Outcome] = field(default_factory=list)  # not yet handed out
    _num_failures: int = 0  # one after another

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def warm_up(self) -> None:
        """Take every kind of step once, for all that is made when it is first needed. Nothing is kept of
        what they bring."""
        self.runner.warm_up(self.scheduler.budget)
        request = GenerateRequest(prompt=[0], max_tokens=1, sampling=SamplingParams())
        logits = torch.zeros(1, self.runner.decoder.spec.vocab_size, device=self.runner.device)
        self.chooser.choose(logits, [Answer.of(request, 0, self.ends)], [None]).read()

    def submit(self, task: Task) -> None:
        """Take `task` on."""
        self._tasks[task.sequence] = task
        self.scheduler.add(task.sequence)

    def cancel(self, task: Task) -> None:
        """Stop `task` if it is still under way."""
        if self._tasks.pop(task.sequence, None) is not None:
            self.scheduler.finish(task.sequence)

    def forget(self) -> None:
        """What is in the cache is gone. Nothing may be under way."""
        assert not self._tasks
        self._launched = None
        self.scheduler.blocks.forget()

    def step(self) -> list[Outcome]:
        """Compute the next step; what steps brought to whom meanwhile."""
        chunks = self.scheduler.schedule()
        if chunks:
            hidden = self.runner.run(chunks)
            self.scheduler.advance(chunks)
            self.counters.step(len(hidden))
            self._read()
            self._launched = self._choose(chunks, hidden)
        if not chunks or not self.overlaps:
            self._read()
        self._num_failures = 0
        return self._hand_out()

    def fail(self, error: Exception) -> list[Outcome]:
        """A step failed: what is in the cache may be anything, and nothing of it is used again.

        On a GPU, and when it happens again and again, the engine is of no use any more, and says so:
        an error there leaves the process unable to compute, unless it is that there is no memory.
        """
        self._num_failures += 1
        goes_on = self.runner.device.type == "cpu" or lacks_memory(error)
        if not goes_on or self._num_failures >= MAX_FAILURES:
            return self.fail_all(f"The model cannot compute any more: {in_short(error)}", "crashed")
        what = f"The model failed to compute ({in_short(error)}); the request can be sent again"
        return self.fail_all(what)

    def fail_all(self, reason: str, kind: str = "unavailable") -> list[Outcome]:
        """End everything under way with an error, and forget what is cached."""
        self._launched = None
        for task in list(self._tasks.values()):
            self._bring(task, EngineError(kind, reason))
        self.scheduler.blocks.forget()
        return self._hand_out()

    # What a step brings

    def _choose(self, chunks: Iterable[Chunk], hidden: Tensor) -> _Launched:
        """All that is wanted of `hidden`; of those that ended since the step was planned, nothing."""
        answers: list[Answer] = []
        rows: list[int] = []
        vectors: list[tuple[Embedding, Arriving]] = []
        scores: list[tuple[Answer, int, Scored]] = []
        begin = 0
        for chunk in chunks:
            end = begin + chunk.length
            task = self._tasks.get(chunk.sequence)
            if isinstance(task, Embedding):
                task.take(chunk, hidden[begin:end])
                if chunk.is_last:
                    self.counters.prompt_tokens += chunk.sequence.num_prompt
                    vectors.append((task, task.vector()))
            elif task is not None:
                if not task.times.begun:
                    self.counters.begin(task.times, monotonic(), task.sequence)
                if task.prompt_scores is not None:
                    scores += self._scores(task, chunk, hidden[begin:end])
                if chunk.is_last:
                    answers.append(task)
                    rows.append(end - 1)
            begin = end
        masks = self._masks(answers, rows)
        if not answers:
            return _Launched([], None, vectors, scores)
        chosen = self.chooser.choose(self.runner.logits(hidden, rows), answers, masks)
        sequences = [answer.sequence for answer in answers]
        self.runner.keep(sequences, chosen.tokens)
        for sequence in sequences:
            sequence.is_ahead = sequence.num_answer + 1 < sequence.max_tokens
        return _Launched(answers, chosen, vectors, scores)

    def _masks(self, answers: list[Answer], rows: list[int]) -> list[bytes | None]:
        """What may follow each of `answers`. Those whose grammar fails are ended and taken out."""
        masks: list[bytes | None] = []
        for place in reversed(range(len(answers))):
            constraint = answers[place].constraint
            try:
                masks.append(None if constraint is None else constraint.mask())
            except EngineError as error:
                self._bring(answers.pop(place), error)
                del rows[place]
        return masks[::-1]

    def _read(self) -> None:
        """Wait for what was launched last."""
        launched, self._launched = self._launched, None
        if launched is None:
            return
        for task, vector in launched.vectors:
            if task.sequence in self._tasks:
                self._bring(task, vector.wait()[0].tolist())
        for answer, position, scored in launched.scores:
            if answer.prompt_scores is not None:
                answer.prompt_scores.update(enumerate(scored.read(), position))
        tokens = launched.chosen.read() if launched.chosen else []
        for answer, token in zip(launched.answers, tokens, strict=True):
            if answer.sequence in self._tasks:
                self._bring(answer, self._extend(answer, token))

    def _extend(self, answer: Answer, token: Token | None) -> Progress | EngineError:
        try:
            return self._progress(answer, token)
        except EngineError as error:
            return error

    def _bring(self, task: Task, item: Progress | list[float] | EngineError) -> None:
        self._outcomes.append((task, item))
        if not isinstance(item, Progress) or item.finish_reason is not None:
            self._finish(task, item)

    def _hand_out(self) -> list[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _progress(self, answer: Answer, token: Token | None) -> Progress:
        sequence = answer.sequence
        sequence.is_ahead = False
        is_end = token is None or token.id in self.ends
        tokens: tuple[Token, ...] = ()
        if token is not None and not is_end:
            sequence.tokens.append(token.id)
            tokens = (token,)
            is_end = answer.constraint is not None and answer.constraint.accept(token.id)
        is_full = sequence.num_answer >= sequence.max_tokens
        reason: FinishReason | None = "stop" if is_end else "length" if is_full else None
        self.counters.answered(answer.times, monotonic(), is_token=bool(tokens))
        return Progress(tokens, reason, sequence.num_cached or 0, self._take_scores(answer))

    def _scores(
        self, answer: Answer, chunk: Chunk, hidden: Tensor
    ) -> Iterator[tuple[Answer, int, Scored]]:
        """Row by row: how likely the model held the prompt's next token."""
        tokens = chunk.sequence.tokens[chunk.start + 1 : chunk.end + 1]
        parts = range(0, len(tokens), LOGITS_ROWS)
        num_top = answer.way.params.logprobs or 0
        for begin, logits in zip(parts, self.runner.scores(hidden[: len(tokens)]), strict=False):
            part = tokens[begin : begin + LOGITS_ROWS]
            yield answer, chunk.start + 1 + begin, Scored(logits, part, num_top)

    def _take_scores(self, answer: Answer) -> tuple[Token | None, ...] | None:
        scores = answer.prompt_scores
        if scores is None:
            return None
        answer.prompt_scores = None
        answer.sequence.needs_all_rows = False
        return (None, *(scores[i] for i in range(1, answer.sequence.num_prompt)))

    def _finish(self, task: Task, item: Progress | list[float] | EngineError) -> None:
        self.cancel(task)
        if isinstance(task, Answer) and isinstance(item, Progress) and item.finish_reason:
            self.counters.finish(task.times, item.finish_reason, task.sequence)
