"""Responses that clients may come back to. In memory, and bounded: the oldest go first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from swapper.front.dialects.dialect import Json

MOST_RESPONSES = 4096
MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """One response, and the conversation up to and with it as JSON (messages of a chat)."""

    key: str  # whose it is; nobody else gets it
    response: bytes
    messages: bytes

    @property
    def size(self) -> int:
        return len(self.response) + len(self.messages)


class Store:
    """Owner of the responses that are kept."""

    def __init__(self, most_responses: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most_responses = most_responses
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._num_bytes = 0

    def put(self, key: str, response: Json, messages: list[Json]) -> None:
        """Keep a response; others may have to go, or itself if it is too large."""
        kept = Kept(key, msgspec.json.encode(response), msgspec.json.encode(messages))
        self._kept[response["id"]] = kept
        self._num_bytes += kept.size
        while len(self._kept) > self._most_responses or self._num_bytes > self._most_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.size

    def get(self, key: str, id: str) -> Kept | None:
        """A response of this key's; None if there is none (any more)."""
        kept = self._kept.get(id)
        if kept is None or kept.key != key:
            return None
        self._kept.move_to_end(id)
        return kept

    def remove(self, key: str, id: str) -> bool:
        """Forget a response; False if there is none."""
        kept = self.get(key, id)
        if kept is None:
            return False
        del self._kept[id]
        self._num_bytes -= kept.size
        return True
