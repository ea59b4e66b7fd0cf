"""The deltas of a chat as single steps, so that dialects need not know how tool calls are cut up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import reasoning


@dataclass(frozen=True, slots=True)
class Thought:
    """More of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call begins; `id` is empty where the worker gave none."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the arguments of the call that began last."""

    text: str


Step: TypeAlias = Thought | Said | Called | Argued


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""  # that came before the name


@dataclass(slots=True)
class StepReader:
    """One choice's deltas, in their order."""

    _calls: dict[int, _Call] = field(default_factory=dict)
    _current: int | None = None  # the call that began last

    def read(self, delta: Json) -> Iterator[Step]:
        """What a delta adds. Raises ValueError where pieces of several calls come mixed."""
        if thought := reasoning(delta):
            yield Thought(thought)
        if said := delta.get("content"):
            yield Said(said)
        for piece in delta.get("tool_calls") or ():
            yield from self._piece(piece)

    def _piece(self, piece: Json) -> Iterator[Step]:
        index, function = piece.get("index", 0), piece.get("function") or {}
        call = self._calls.setdefault(index, _Call())
        arguments = function.get("arguments") or ""
        if call.name:
            if arguments and self._current != index:
                raise ValueError("pieces of several tool calls come mixed")
            if arguments:
                yield Argued(arguments)
            return
        call.id = call.id or piece.get("id") or ""
        call.name = function.get("name") or ""
        call.arguments += arguments
        if call.name:
            self._current = index
            yield Called(index, call.id, call.name)
            if call.arguments:
                yield Argued(call.arguments)
