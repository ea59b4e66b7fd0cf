"""How many tokens a step may take, so that it takes no longer than a client who leaves should wait. Pure.

A step cannot be broken off. On a CPU a prompt of 512 tokens keeps a small model for seconds and a large one
for a minute. Chunks of 256 tokens are as fast in sum as chunks of 512, while those of 128 take a tenth longer
where many prompts come at once: more steps are run, each with its share of cost that no row has. So the
budget follows the measured speed, in powers of two: it seldom moves, and with it rounding seldom does.
"""

from __future__ import annotations

TARGET_S = 1.5
CALM = 0.8  # a larger step must stay this far below the target before it is tried
WEIGHT = 0.25  # of the last step in the average
MIN_TOKENS = 32  # steps with fewer say little about prompts
FIRST = 128


class Pace:
    """A budget between `least` and `most` tokens; exactly `most` where the two are the same."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = min(least, most), most
        self.budget = min(max(FIRST, self.least), most)
        self._token_s = 0.0

    def record(self, num_tokens: int, seconds: float) -> int:
        """A step of so many tokens took so long; the budget from now on."""
        if num_tokens >= MIN_TOKENS:
            latest = seconds / num_tokens
            weight = WEIGHT if self._token_s else 1.0
            self._token_s += weight * (latest - self._token_s)
            self._adjust()
        return self.budget

    def _adjust(self) -> None:
        if self.budget * self._token_s > TARGET_S:
            self.budget = max(self.budget // 2, self.least)
        elif 2 * self.budget * self._token_s < CALM * TARGET_S:
            self.budget = min(2 * self.budget, self.most)
