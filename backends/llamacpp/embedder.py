"""Pooled vectors of token sequences, of unit length, or what a ranking model says of each, in a context of
their own. For the engine's thread."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.llamacpp.binding import L, quick
from backends.llamacpp.context import OK, Context, floats_at
from backends.llamacpp.sequence import token_array
from backends.serving.engine import EngineError

Vectors = list[list[float]]


@dataclass(slots=True, eq=False)
class EmbedJob:
    """Inputs of one request; `done` is called once, with all vectors or an error."""

    inputs: list[array[int]]
    done: Callable[[Vectors | EngineError], None]
    vectors: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, inputs: Iterable[Iterable[int]], done: Callable[[Vectors | EngineError], None]
    ) -> EmbedJob:
        return cls([token_array(tokens) for tokens in inputs], done)


class Embedder:
    """Packs as many inputs into a run as the context takes; one run a step."""

    def __init__(
        self,
        pointer: Any,
        length: int,
        num_vocab: int,
        *,
        slots: int,
        max_input: int,
        ranks: bool = False,
    ) -> None:
        self.context = Context(pointer, num_vocab)
        self.capacity: int = L.llama_n_batch(pointer)
        self.max_input = max_input
        self.ranks = ranks
        self._length = length
        self._slots = slots
        self._queue: deque[tuple[EmbedJob, int]] = deque()

    @property
    def has_work(self) -> bool:
        return bool(self._queue)

    def submit(self, job: EmbedJob) -> None:
        self._queue.extend((job, index) for index in range(len(job.inputs)))

    def cancel(self, job: EmbedJob) -> None:
        self._queue = deque(entry for entry in self._queue if entry[0] is not job)

    def fail_all(self, reason: str) -> None:
        """End every job with an error."""
        entries, self._queue = self._queue, deque()
        self._fail(entries, reason)

    def step(self) -> None:
        """Run some of what waits, and say so to the jobs that are complete by it."""
        entries = self._take()
        verdict = OK
        if len(entries) == 1:
            verdict = self._run_long(entries[0][0].inputs[entries[0][1]])
        else:
            batch = self.context.batch
            batch.clear()
            for slot, (job, index) in enumerate(entries):
                self._add(job.inputs[index], 0, slot)
            verdict = self.context.decode()
        if verdict == OK:
            self._record(entries)
        else:
            self._fail(entries, "The model failed to compute the embedding")
        self.context.clear()

    def _take(self) -> list[tuple[EmbedJob, int]]:
        entries: list[tuple[EmbedJob, int]] = []
        room = self.capacity
        while self._queue and len(entries) < self._slots:
            job, index = self._queue[0]
            room -= len(job.inputs[index])
            if entries and room < 0:
                break
            entries.append(self._queue.popleft())
        return entries

    def _run_long(self, tokens: array[int]) -> int:
        """One input, in as many runs as the batch needs: only causal models pooled at the end need two."""
        for start in range(0, len(tokens), self.capacity):
            self.context.batch.clear()
            self._add(tokens[start : start + self.capacity], start, 0)
            verdict = self.context.decode()
            if verdict != OK:
                return verdict
        return OK

    def _add(self, tokens: array[int], start: int, slot: int) -> None:
        row = self.context.batch.add(tokens, start, slot)
        self.context.batch.outputs[row : row + len(tokens)] = 1

    def _record(self, entries: Iterable[tuple[EmbedJob, int]]) -> None:
        for slot, (job, index) in enumerate(entries):
            address = quick.llama_get_embeddings_seq(self.context.pointer, slot)
            vector = floats_at(address, self._length)
            size = 1.0 if self.ranks else np.linalg.norm(vector) or 1.0
            job.vectors[index] = (vector / size).tolist()
            if len(job.vectors) == len(job.inputs):
                job.done([job.vectors[i] for i in range(len(job.inputs))])

    def _fail(self, entries: Iterable[tuple[EmbedJob, int]], reason: str) -> None:
        for job in dict.fromkeys(job for job, _ in entries):
            self.cancel(job)
            job.done(EngineError("unavailable", reason))
