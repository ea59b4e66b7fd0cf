"""The next token of every sequence that has come to one: settings, histories and masks for the sampler."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Ordered
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from backends.paged.device import Arriving, to_device
from backends.paged.logprobs import score
from backends.paged.sampling import Settings, Way, sample
from backends.paged.sequence import Sequence
from backends.paged.shaping import History
from backends.serving.engine import Token


class Choosing(Protocol):
    """Whose next token is wanted."""

    sequence: Sequence
    way: Way


class Chosen:
    """The tokens that were chosen for some answers, on their way to the host."""

    def __init__(self, logits: Tensor, tokens: Tensor, answers: Ordered[Choosing]) -> None:
        self.tokens = tokens  # [len(answers)] int64, on the device; -1: nothing may follow
        self._num_top = [answer.way.params.logprobs for answer in answers]
        self._scored = [row for row, count in enumerate(self._num_top) if count is not None]
        arriving = [tokens]
        if self._scored:
            scored = tokens
            if len(self._scored) < len(answers):
                rows = to_device(torch.tensor(self._scored), logits.device)
                logits, scored = logits.index_select(0, rows), tokens.index_select(0, rows)
            most = max(self._num_top[row] or 0 for row in self._scored)
            scores = score(logits, scored.clamp(min=0), most)
            arriving += [scores.chosen, scores.top_ids, scores.top]
        self._arriving = Arriving(arriving)

    def read(self) -> list[Token | None]:
        """Wait for them. None where nothing may follow."""
        chosen, *scores = (column.tolist() for column in self._arriving.wait())
        tokens: list[Token | None] = [Token(id) if id >= 0 else None for id in chosen]
        for row, logprob, ids, best in zip(self._scored, *scores, strict=True) if scores else ():
            if chosen[row] >= 0:
                top = tuple(zip(ids, best, strict=True))[: self._num_top[row]]
                tokens[row] = Token(chosen[row], logprob, top)
        return tokens


class Scored:
    """How likely the model held `tokens`, and the `num_top` likeliest in their places, by rows of `logits`,
    [len(tokens), vocab_size]; on its way to the host."""

    def __init__(self, logits: Tensor, tokens: Ordered[int], num_top: int) -> None:
        self._tokens = tokens
        scores = score(logits, to_device(torch.tensor(tokens), logits.device), num_top)
        self._arriving = Arriving([scores.chosen, scores.top_ids, scores.top])

    def read(self) -> Iterator[Token]:
        """Wait for them."""
        columns = (column.tolist() for column in self._arriving.wait())
        for token, logprob, ids, best in zip(self._tokens, *columns, strict=True):
            yield Token(token, logprob, tuple(zip(ids, best, strict=True)))


class Chooser:
    """Chooses for all at once. What it knows of them stays on the device while they stay the same."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._last: list[Choosing] = []
        self._settings = Settings.of([], vocab_size, device)

    def choose(
        self, logits: Tensor, answers: Ordered[Choosing], masks: Ordered[bytes | None]
    ) -> Chosen:
        """A token for each row of `logits`, [len(answers), vocab_size] float32. `masks` has a bit for
        every token that may follow, in rows that are not free."""
        if list(answers) != self._last:
            ways = [answer.way for answer in answers]
            self._settings = Settings.of(ways, self._vocab_size, self._device)
            self._last = list(answers)
        positions = [answer.sequence.num_tokens for answer in answers]
        chosen = sample(
            logits,
            self._settings,
            to_device(torch.tensor(positions), self._device),
            self._history(answers),
            self._mask(masks),
        )
        return Chosen(logits, chosen, answers)

    def _history(self, answers: Ordered[Choosing]) -> History | None:
        rows = self._settings.shaping.penalised
        if not rows:
            return None
        sequences = [answers[row].sequence for row in rows]
        return History.of(
            [sequence.tokens for sequence in sequences],
            [sequence.num_prompt for sequence in sequences],
            [answers[row].way.params for row in rows],
            self._device,
        )

    def _mask(self, masks: Ordered[bytes | None]) -> Tensor | None:
        if not any(masks):
            return None
        size = 4 * ((self._vocab_size + 31) // 32)
        free = b"\xff" * size
        # A grammar may know of an end token beyond the vocabulary.
        words = np.frombuffer(b"".join((mask or free)[:size] for mask in masks), "<i4").copy()
        return to_device(torch.from_numpy(words).view(len(masks), -1), self._device)
