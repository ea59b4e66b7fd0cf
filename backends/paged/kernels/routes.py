"""Which experts the tokens of a step go to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Routes:
    """A pair is a token and one of its experts; pair p is of token p // per_token."""

    shares: Tensor  # [T, per_token]: what each pair's outcome counts
    order: Tensor  # [T * per_token] int32: pairs, by expert and then by number
    ends: Tensor  # [count] int32: where each expert's pairs end in `order`
