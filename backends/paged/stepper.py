"""One step after another: schedule, run, read what came of it. Synchronous; the engine's thread calls it."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

import torch
from torch import Tensor

from backends.paged.chooser import Chooser, scored
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
        """Hidden states [chunk.length, hidden_size]. A text that is begun anew begins at 0."""
        if self.pooling == "mean":
            total = hidden.float().sum(0)
            self.pooled = total if chunk.start == 0 or self.pooled is None else self.pooled + total
        elif self.pooling == "last" and chunk.is_last:
            self.pooled = hidden[-1].float()
        elif self.pooling == "cls" and chunk.start == 0:
            self.pooled = hidden[0].float()

    def vector(self) -> list[float]:
        """The text's vector, of length one."""
        assert self.pooled is not None
        return torch.nn.functional.normalize(self.pooled, dim=0).tolist()


Task = Answer | Embedding
Outcome = tuple[Task, "Progress | list[float] | EngineError"]


@dataclass(slots=True)
class Stepper:
    """Owns the tasks under way and drives scheduler and runner with them."""

    scheduler: Scheduler
    runner: Runner
    chooser: Chooser
    ends: frozenset[int]  # tokens that end an answer
    counters: Counters = field(default_factory=Counters)
    _tasks: dict[Sequence, Task] = field(default_factory=dict)
    _num_failures: int = 0  # one after another

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

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
        self.scheduler.blocks.forget()

    def step(self) -> list[Outcome]:
        """Compute the next step; what it brought to whom."""
        chunks = self.scheduler.schedule()
        if not chunks:
            return []
        hidden = self.runner.run(chunks)
        self.scheduler.advance(chunks)
        self.counters.step(len(hidden))
        outcomes = self._read(chunks, hidden)
        self._num_failures = 0
        return outcomes

    def fail(self) -> list[Outcome]:
        """A step failed: what is in the cache may be anything, and nothing of it is used again.

        On a GPU, and when it happens again and again, the engine is of no use any more, and says so:
        an error there leaves the process unable to compute.
        """
        self._num_failures += 1
        if self.runner.device.type != "cpu" or self._num_failures >= MAX_FAILURES:
            return self.fail_all("The model cannot compute any more", "crashed")
        return self.fail_all("The model failed to compute; the request can be sent again")

    def fail_all(self, reason: str, kind: str = "unavailable") -> list[Outcome]:
        """End everything under way with an error, and forget what is cached."""
        tasks = list(self._tasks.values())
        for task in tasks:
            self.cancel(task)
        self.scheduler.blocks.forget()
        return [(task, EngineError(kind, reason)) for task in tasks]

    # What a step brought

    def _read(self, chunks: Iterable[Chunk], hidden: Tensor) -> list[Outcome]:
        outcomes: list[Outcome] = []
        answers: list[Answer] = []
        rows: list[int] = []
        begin = 0
        for chunk in chunks:
            end = begin + chunk.length
            task = self._tasks[chunk.sequence]
            self._count(chunk, task)
            if isinstance(task, Embedding):
                task.take(chunk, hidden[begin:end])
                if chunk.is_last:
                    outcomes.append((task, task.vector()))
            else:
                if task.prompt_scores is not None:
                    self._score(task, task.prompt_scores, chunk, hidden[begin:end])
                if chunk.is_last:
                    answers.append(task)
                    rows.append(end - 1)
            begin = end
        outcomes += self._extend(answers, rows, hidden)
        for task, item in outcomes:
            if not isinstance(item, Progress) or item.finish_reason is not None:
                self._finish(task, item)
        return outcomes

    def _extend(self, answers: list[Answer], rows: list[int], hidden: Tensor) -> list[Outcome]:
        """The next token of every answer, out of its row of `hidden`."""
        outcomes: list[Outcome] = []
        masks: list[bytes | None] = []
        for place in reversed(range(len(answers))):
            constraint = answers[place].constraint
            try:
                masks.append(None if constraint is None else constraint.mask())
            except EngineError as error:
                outcomes.append((answers.pop(place), error))
                del rows[place]
        if not answers:
            return outcomes
        tokens = self.chooser.choose(self.runner.logits(hidden, rows), answers, masks[::-1])
        for answer, token in zip(answers, tokens, strict=True):
            try:
                outcomes.append((answer, self._progress(answer, token)))
            except EngineError as error:
                outcomes.append((answer, error))
        return outcomes

    def _progress(self, answer: Answer, token: Token | None) -> Progress:
        sequence = answer.sequence
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

    def _score(
        self, answer: Answer, scores: dict[int, Token], chunk: Chunk, hidden: Tensor
    ) -> None:
        """Row by row: how likely the model held the prompt's next token."""
        tokens = torch.tensor(chunk.sequence.tokens[chunk.start + 1 : chunk.end + 1])
        parts = torch.split(tokens.to(hidden.device), LOGITS_ROWS)
        position = chunk.start + 1
        for part, logits in zip(parts, self.runner.scores(hidden[: len(tokens)]), strict=True):
            for token in scored(logits, part, answer.way.params.logprobs or 0):
                scores[position] = token
                position += 1

    def _take_scores(self, answer: Answer) -> tuple[Token | None, ...] | None:
        scores = answer.prompt_scores
        if scores is None:
            return None
        answer.prompt_scores = None
        answer.sequence.needs_all_rows = False
        return (None, *(scores[i] for i in range(1, answer.sequence.num_prompt)))

    def _count(self, chunk: Chunk, task: Task) -> None:
        sequence = chunk.sequence
        if chunk.start < sequence.num_prompt and sequence.num_answer == 0:
            self.counters.prompt_tokens += chunk.length
            if isinstance(task, Answer) and not task.times.begun:
                task.times.begun = monotonic()
                self.counters.cached_tokens += sequence.num_cached or 0
                self.counters.looked_up_tokens += sequence.num_prompt

    def _finish(self, task: Task, item: Progress | list[float] | EngineError) -> None:
        self.cancel(task)
        if isinstance(task, Answer) and isinstance(item, Progress) and item.finish_reason:
            sequence = task.sequence
            self.counters.finish(
                task.times, item.finish_reason, sequence.num_prompt, sequence.num_answer
            )
