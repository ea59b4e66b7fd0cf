"""One request's tokens, the blocks that hold their keys and values, and how far the model has come.

Pure; no torch here.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from hashlib import blake2b

from backends.serving.sequence import Progression

BLOCK_SIZE = 16  # tokens a block


def cdiv(amount: int, size: int) -> int:
    """How many parts of `size` hold `amount`."""
    return -(-amount // size)


@dataclass(slots=True, eq=False)
class Sequence(Progression):
    """A request's tokens; those that are computed stand in `blocks`.

    A step can be planned before the tokens of the step under way are known: of a sequence that `is_ahead`
    one more token is chosen than stands in `tokens`, and counts.
    """

    tokens: list[int]
    needs_all_rows: bool = False  # the output of every prompt position is wanted: nothing is reused
    blocks: list[int] = field(default_factory=list)
    num_published: int = 0  # of its blocks, whose contents others can take over
    seat: int | None = None  # its place among those that run; None: it waits, or is over
    is_ahead: bool = False  # its last token is known to the device only
    _digests: list[bytes] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens) + self.is_ahead

    @property
    def is_running(self) -> bool:
        return self.seat is not None

    def blocks_wanted(self, num_tokens: int) -> int:
        """Blocks to add before `num_tokens` of its tokens have room."""
        return max(0, cdiv(num_tokens, BLOCK_SIZE) - len(self.blocks))

    def digests(self, count: int) -> list[bytes]:
        """What names the contents of its first `count` blocks, all of them full.

        Each digest covers the tokens of its block and all before it, and the scope: two sequences
        share a block only where everything up to its end is the same.
        """
        known = self._digests
        while len(known) < count:
            begin = len(known) * BLOCK_SIZE
            parent = known[-1] if known else blake2b(self.scope.encode(), digest_size=16).digest()
            tokens = array("q", self.tokens[begin : begin + BLOCK_SIZE]).tobytes()
            known.append(blake2b(parent + tokens, digest_size=16).digest())
        return known[:count]
