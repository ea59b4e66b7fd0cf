"""Who holds which block of the KV cache, and which prefix of which text stands in it. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Ordered


class BlockManager:
    """Blocks by number. A free block keeps its contents until it is handed out again, the one that
    was given back longest ago first, so that what is free is the prefix cache."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._owners = [0] * num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._by_digest: dict[bytes, int] = {}
        self._digest_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """`count` blocks with nothing of use in them, each with one owner. There must be so many."""
        return [self._take_oldest() for _ in range(count)]

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """The blocks that hold the longest known beginning of `digests`."""
        found: list[int] = []
        for digest in digests:
            block = self._by_digest.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def num_idle(self, blocks: Iterable[int]) -> int:
        """How many of them are free: sharing those leaves fewer to allocate."""
        return sum(self._owners[block] == 0 for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """One more owner for each."""
        for block in blocks:
            if self._owners[block] == 0:
                del self._free[block]
            self._owners[block] += 1

    def release(self, blocks: Ordered[int]) -> None:
        """One owner less for each of a sequence's blocks. Its end is forgotten before its
        beginning, which others are likelier to have in common."""
        for block in reversed(blocks):
            assert self._owners[block] > 0, "a block was given back twice"
            self._owners[block] -= 1
            if self._owners[block] == 0:
                self._free[block] = None

    def publish(self, block: int, digest: bytes) -> None:
        """`block` is computed and full, and holds what `digest` names."""
        if digest not in self._by_digest:
            self._by_digest[digest] = block
            self._digest_of[block] = digest

    def forget(self) -> None:
        """Whatever is in the blocks, nobody may take it over."""
        self._by_digest.clear()
        self._digest_of.clear()

    def _take_oldest(self) -> int:
        block, _ = self._free.popitem(last=False)
        digest = self._digest_of.pop(block, None)
        if digest is not None:
            del self._by_digest[digest]
        self._owners[block] = 1
        return block

    def check_integrity(self, held: Iterable[Iterable[int]]) -> None:
        """Raise AssertionError where the books disagree with each other or with who holds what."""
        owners = [0] * self.num_blocks
        for blocks in held:
            for block in blocks:
                owners[block] += 1
        assert owners == self._owners
        assert set(self._free) == {block for block, count in enumerate(owners) if count == 0}
        assert {block: digest for digest, block in self._by_digest.items()} == self._digest_of
