"""Rotary position embedding: the angles, by every published way of stretching them.

Heads are rotated in halves: dimension i with dimension i + dim / 2. Checkpoints that rotate neighbours
have their query and key rows put in that order when they are read.

Some ways of stretching ask how long the text is. Here that is the longest request that is served, fixed
when the model is loaded, since keys that are cached cannot be turned again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from backends.paged.spec import RopeSpec

Angles = tuple[Tensor, Tensor]


class Rope(nn.Module):
    """Turns positions into the cosines and sines that all layers of one kind share in a step."""

    frequencies: Tensor

    def __init__(self, spec: RopeSpec, context: int, device: torch.device) -> None:
        super().__init__()
        self.values, self.magnitude = frequencies(spec, context)
        self.register_buffer("frequencies", self.values.to(device), persistent=False)

    def fill_constants(self) -> None:
        """Write the frequencies, where they have been moved to memory that holds something else."""
        self.frequencies.copy_(self.values)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Angles:
        """Cosine and sine, each [T, 1, dim / 2], of `positions` [T]."""
        angles = positions.to(torch.float32)[:, None] * self.frequencies
        cos, sin = angles.cos() * self.magnitude, angles.sin() * self.magnitude
        return cos.to(dtype)[:, None], sin.to(dtype)[:, None]


def frequencies(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    """Radians a position turns each pair by, [dim / 2] float32, and what cosine and sine are scaled by."""
    return KINDS[spec.kind](spec, context)


def _default(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    return _geometric(spec.theta, spec.dim), 1.0


def _linear(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    return _geometric(spec.theta, spec.dim) / spec.parameters["factor"], 1.0


def _dynamic(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    factor = spec.parameters["factor"]
    stretch = factor * max(1.0, context / spec.max_position) - (factor - 1)
    return _geometric(spec.theta * stretch ** (spec.dim / (spec.dim - 2)), spec.dim), 1.0


def _llama3(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    """Long waves are stretched, short ones kept, those between blended by how often they turn in training."""
    values, given = _geometric(spec.theta, spec.dim), spec.parameters
    low, high = given["low_freq_factor"], given["high_freq_factor"]
    turns = given["original_max_position_embeddings"] * values / (2 * math.pi)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return values * kept + values / given["factor"] * (1 - kept), 1.0


def _yarn(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    given = spec.parameters
    trained = given["original_max_position_embeddings"]
    factor = given.get("factor") or spec.max_position / trained

    def pair_turning(times: float) -> float:
        """The pair, counted in fractions, that turns so often over the trained context."""
        return spec.dim * math.log(trained / (times * 2 * math.pi)) / (2 * math.log(spec.theta))

    first = pair_turning(given.get("beta_fast") or 32)
    last = pair_turning(given.get("beta_slow") or 1)
    if given.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, spec.dim - 1)
    pairs = torch.arange(spec.dim // 2, dtype=torch.float32)
    stretched = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    values = _geometric(spec.theta, spec.dim)
    return values / factor * stretched + values * (1 - stretched), _yarn_magnitude(given, factor)


def _yarn_magnitude(given: Mapping[str, Any], factor: float) -> float:
    def magnitude(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given.get("attention_factor") is not None:
        return float(given["attention_factor"])
    if given.get("mscale") and given.get("mscale_all_dim"):
        return magnitude(given["mscale"]) / magnitude(given["mscale_all_dim"])
    return magnitude(1.0)


def _longrope(spec: RopeSpec, context: int) -> tuple[Tensor, float]:
    given = spec.parameters
    trained = given["original_max_position_embeddings"]
    stretch = given["long_factor"] if context > trained else given["short_factor"]
    values = _geometric(spec.theta, spec.dim) / torch.tensor(stretch, dtype=torch.float32)
    if given.get("attention_factor") is not None:
        return values, float(given["attention_factor"])
    factor = given.get("factor") or spec.max_position / trained
    return values, math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0


def _geometric(theta: float, dim: int) -> Tensor:
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


KINDS: Mapping[str, Callable[[RopeSpec, int], tuple[Tensor, float]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
