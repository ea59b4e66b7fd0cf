"""How likely a model held tokens, on whatever device its logits are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Scores:
    """Logprobs of the model's own distribution, before anything was done to it."""

    chosen: Tensor  # [n] float32
    top_ids: Tensor  # [n, num_top] int64, likeliest first
    top: Tensor  # [n, num_top] float32


def score(logits: Tensor, tokens: Tensor, num_top: int) -> Scores:
    """Of `tokens`, [n], and the `num_top` likeliest, in rows of `logits`, [n, V] float32.

    Takes as much memory again as `logits` do.
    """
    logprobs = logits.log_softmax(dim=-1)
    best = logprobs.topk(min(num_top, logits.shape[1]), dim=-1)
    return Scores(logprobs.gather(1, tokens[:, None]).squeeze(1), best.indices, best.values)
