"""What was measured, in few numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer. Times are seconds on one clock; `pieces` is when each piece came."""

    sent: float
    pieces: tuple[float, ...] = ()
    ended: float = 0.0
    num_tokens: int = 0
    error: str | None = None

    @property
    def first_s(self) -> float:
        """From the request to the first piece."""
        return self.pieces[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece and the next."""
        return [after - before for before, after in pairwise(self.pieces)]


@dataclass(frozen=True, slots=True)
class Level:
    """What so many clients at once saw."""

    model: str
    concurrency: int
    num_answers: int
    num_failed: int
    first_p50_s: float
    first_p95_s: float
    gap_p50_s: float
    gap_p95_s: float
    tokens_per_s: float  # of all clients together
    answers_per_s: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A model asked after another one: seconds to its first piece, a load or a swap included."""

    model: str
    first_s: float


@dataclass(slots=True)
class Report:
    """One run of the benchmark."""

    url: str
    at: str
    max_tokens: int
    levels: list[Level] = field(default_factory=list)
    first_asked: list[Turn] = field(default_factory=list)  # each model's very first answer
    turns: list[Turn] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed; not a number for none."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def level_of(model: str, concurrency: int, answers: Sequence[Answer]) -> Level:
    """What the answers of one level come to. Failed ones count only as such."""
    good = [answer for answer in answers if answer.error is None and answer.pieces]
    firsts = [answer.first_s for answer in good]
    gaps = [gap for answer in good for gap in answer.gaps_s]
    start = min((answer.sent for answer in answers), default=0.0)
    wall_s = max((answer.ended for answer in good), default=start) - start
    return Level(
        model,
        concurrency,
        len(good),
        len(answers) - len(good),
        percentile(firsts, 0.5),
        percentile(firsts, 0.95),
        percentile(gaps, 0.5),
        percentile(gaps, 0.95),
        sum(answer.num_tokens for answer in good) / wall_s if wall_s else math.nan,
        len(good) / wall_s if wall_s else math.nan,
    )


def turns_by_model(turns: Sequence[Turn]) -> dict[str, list[float]]:
    """Seconds by model, in the order of the first turns."""
    found: dict[str, list[float]] = {}
    for turn in turns:
        found.setdefault(turn.model, []).append(turn.first_s)
    return found
