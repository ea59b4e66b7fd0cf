"""Responses that clients may come back to. In memory, and bounded: the oldest go first.

One that goes on with another holds that one, not a copy: a conversation takes as much room as was said in it,
and each answer of it is put here in the time that its own turn needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from swapper.front.dialects.dialect import Json

MOST_RESPONSES = 4096
MOST_BYTES = 64 * 1024 * 1024

_Item = tuple[str, str]  # whose it is, and its id


@dataclass(slots=True, eq=False)
class Kept:
    """One response and the items that it was asked with, as JSON, and what it goes on with."""

    key: str  # whose it is; nobody else gets it
    response: bytes
    input: bytes
    before: Kept | None
    num_holders: int = 0  # the store's list of them, and responses that go on with it

    @property
    def size(self) -> int:
        return len(self.response) + len(self.input)

    def items(self) -> list[Json]:
        """What it was asked with, earlier responses included."""
        return [*_conversation(self.before), *self._input()]

    def conversation(self) -> list[Json]:
        """The same, and what it said."""
        return _conversation(self)

    def turn(self) -> list[Json]:
        """What it was asked with itself, and what it said."""
        return [*self._input(), *msgspec.json.decode(self.response)["output"]]

    def names(self) -> Iterator[_Item]:
        """Of the turn's items."""
        return ((self.key, item["id"]) for item in self.turn())

    def _input(self) -> list[Json]:
        items: list[Json] = msgspec.json.decode(self.input)
        return items


def _conversation(last: Kept | None) -> list[Json]:
    turns = []
    while last is not None:
        turns.append(last.turn())
        last = last.before
    return [item for turn in reversed(turns) for item in turn]


class Store:
    """Owner of the responses that are kept."""

    def __init__(self, most_responses: int = MOST_RESPONSES, most_bytes: int = MOST_BYTES) -> None:
        self._most_responses = most_responses
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._num_bytes = 0
        self._places: dict[_Item, str] = {}  # the response that an item came with first

    def put(self, key: str, response: Json, items: list[Json], before: Kept | None = None) -> None:
        """Keep a response, the `items` that it was asked with, and the one `before` that it goes on
        with; others may have to go, or itself if it is too large."""
        kept = Kept(key, msgspec.json.encode(response), msgspec.json.encode(items), before)
        self._kept[response["id"]] = kept
        self._hold(kept)
        for item in kept.names():
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
        found = () if kept is None else kept.turn()
        return next((item for item in found if item["id"] == id), None)

    def remove(self, key: str, id: str) -> bool:
        """Forget a response; False if there is none."""
        if self.get(key, id) is None:
            return False
        self._drop(id)
        return True

    def _drop(self, id: str) -> None:
        kept = self._kept.pop(id)
        self._release(kept)
        for item in kept.names():
            if self._places.get(item) == id:
                del self._places[item]

    def _hold(self, kept: Kept | None) -> None:
        """One more does; what it goes on with may have been dropped meanwhile."""
        while kept is not None:
            kept.num_holders += 1
            if kept.num_holders > 1:
                return
            self._num_bytes += kept.size
            kept = kept.before

    def _release(self, kept: Kept | None) -> None:
        while kept is not None:
            kept.num_holders -= 1
            if kept.num_holders > 0:
                return
            self._num_bytes -= kept.size
            kept = kept.before
