"""Responses that clients may come back to. In memory, and bounded: the oldest go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from swapper.front.dialects.dialect import Json

MOST_RESPONSES = 4096
MOST_BYTES = 64 * 1024 * 1024

_Item = tuple[str, str]  # whose it is, and its id


@dataclass(frozen=True, slots=True)
class Kept:
    """One response, and the items of the conversation before it, as JSON."""

    key: str  # whose it is; nobody else gets it
    response: bytes
    input: bytes

    @property
    def size(self) -> int:
        return len(self.response) + len(self.input)

    def items(self) -> list[Json]:
        """What it was asked with, earlier responses included."""
        items: list[Json] = msgspec.json.decode(self.input)
        return items

    def conversation(self) -> list[Json]:
        """The same, and what it said."""
        return [*self.items(), *msgspec.json.decode(self.response)["output"]]


class Store:
    """Owner of the responses that are kept."""

    def __init__(self, most_responses: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most_responses = most_responses
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._num_bytes = 0
        self._places: dict[_Item, str] = {}  # the response that an item came with first

    def put(self, key: str, response: Json, items: list[Json]) -> None:
        """Keep a response and the `items` before it; others may have to go, or itself if it is too
        large."""
        kept = Kept(key, msgspec.json.encode(response), msgspec.json.encode(items))
        self._kept[response["id"]] = kept
        self._num_bytes += kept.size
        for item in _names(kept):
            self._places.setdefault(item, response["id"])
        while len(self._kept) > self._most_responses or self._num_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def get(self, key: str, id: str) -> Kept | None:
        """A response of this key's; None if there is none (any more)."""
        kept = self._kept.get(id)
        if kept is None or kept.key != key:
            return None
        self._kept.move_to_end(id)
        return kept

    def item(self, key: str, id: str) -> Json | None:
        """An item that was said by a response of this key's, or to it; None if there is none."""
        kept = self.get(key, self._places.get((key, id), ""))
        found = () if kept is None else kept.conversation()
        return next((item for item in found if item["id"] == id), None)

    def remove(self, key: str, id: str) -> bool:
        """Forget a response; False if there is none."""
        if self.get(key, id) is None:
            return False
        self._drop(id)
        return True

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id)
        self._num_bytes -= kept.size
        for item in _names(kept):
            if self._places.get(item) == id:
                del self._places[item]


def _names(kept: Kept) -> Iterable[_Item]:
    return ((kept.key, item["id"]) for item in kept.conversation())
