"""Models as Ollama's clients read of them: what there is, what is loaded, what one of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from swapper.front.cards import Card
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.ollama.answer import moment

FOREVER_S: Final = 100 * 365 * 86400.0  # clients say "forever" of what is more than 20 years ahead
CAPABILITIES: Final = {
    "chat": "completion",
    "completions": "completion",
    "tools": "tools",
    "infill": "insert",
    "vision": "vision",
    "embeddings": "embedding",
}
ORDER: Final = ("completion", "tools", "insert", "vision", "embedding", "thinking")
_THOUGHTS: Final = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")


@dataclass(frozen=True, slots=True)
class Known:
    """A model by one of its names. `context` is the longest request in tokens, `abilities` (of the worker
    contract) what its last worker said, if there was one."""

    name: str
    engine: str
    card: Card
    since: float  # seconds since 1970, where its file does not say
    context: int | None = None
    abilities: Collection[str] = ()

    @property
    def capabilities(self) -> list[str]:
        """What it can. Of a server that does not say: what most can."""
        if self.abilities:
            found = {CAPABILITIES[it] for it in self.abilities if it in CAPABILITIES}
        elif self.card.is_embedder:
            found = {"embedding"}
        else:
            found = {"completion", "tools"} | ({"vision"} if self.card.sees else set())
        if self.card.fills_in and "completion" in found:
            found.add("insert")
        if any(word in self.card.template for word in _THOUGHTS):
            found.add("thinking")
        return [name for name in ORDER if name in found]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that change with the file. Its contents are not read for it."""
        card = self.card
        text = f"{self.name}\n{self.engine}\n{card.size_bytes}\n{card.modified_at}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model's worker. `leaves_at`: when it will be unloaded if nobody asks it any more, in seconds
    since 1970; None: never."""

    memory: int  # bytes, of all devices
    gpu_memory: int  # of it
    leaves_at: float | None


def tag_entry(known: Known) -> Json:
    """One of `GET /api/tags`."""
    return {
        "name": known.name,
        "model": known.name,
        "modified_at": _modified(known),
        "size": known.card.size_bytes,
        "digest": known.digest,
        "details": _details(known),
        "capabilities": known.capabilities,
    }


def loaded_entry(known: Known, loaded: Loaded, now: float) -> Json:
    """One of `GET /api/ps`."""
    leaves_at = now + FOREVER_S if loaded.leaves_at is None else loaded.leaves_at
    entry = {
        "name": known.name,
        "model": known.name,
        "size": loaded.memory,
        "digest": known.digest,
        "details": _details(known),
        "expires_at": moment(leaves_at),
        "size_vram": loaded.gpu_memory,
    }
    return entry if known.context is None else {**entry, "context_length": known.context}


def shown_model(known: Known, system: str | None, title: str | None) -> Json:
    """The answer of `POST /api/show`; `title` is what the client is to call the model."""
    card, length = known.card, known.context
    architecture = card.architecture or known.engine
    info: Json = {**card.facts, "general.architecture": architecture}
    if card.num_parameters:
        info["general.parameter_count"] = card.num_parameters
    if length is not None:
        info[f"{architecture}.context_length"] = length
    if title is not None:
        info["general.basename"] = title
    shown: Json = {
        "modelfile": _modelfile(known, system),
        "template": card.template,
        "details": _details(known),
        "model_info": info,
        "capabilities": known.capabilities,
        "modified_at": _modified(known),
    }
    optional = {
        "parameters": "" if length is None else f"{'num_ctx':<30} {length}",
        "system": system,
        "license": card.license,
    }
    return {**shown, **{key: value for key, value in optional.items() if value}}


def _modified(known: Known) -> str:
    return moment(known.card.modified_at or known.since)


def _modelfile(known: Known, system: str | None) -> str:
    lines = [f"# {known.name}, as swapper serves it", f"FROM {known.name}"]
    if known.context is not None:
        lines.append(f"PARAMETER num_ctx {known.context}")
    if system:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"


def _details(known: Known) -> Json:
    card = known.card
    details: Json = {
        "parent_model": "",
        "format": card.format,
        "family": card.architecture,
        "families": [card.architecture] if card.architecture else [],
        "parameter_size": _size(card.num_parameters),
        "quantization_level": card.quantization,
    }
    if known.context is not None:
        details["context_length"] = known.context
    if card.embedding_length is not None:
        details["embedding_length"] = card.embedding_length
    return details


def _size(number: int) -> str:
    """`7.6B`, `137.0M`."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number or "")
