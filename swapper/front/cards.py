"""What the front needs to know of models that may not be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from swapper.core.registry import ModelSpec
from swapper.runtime.placement import WorkerFacts


class Card(Protocol):
    """One model, as its files describe it. Zero, nothing and None: it is not known."""

    @property
    def format(self) -> str: ...

    @property
    def architecture(self) -> str: ...

    @property
    def num_parameters(self) -> int: ...

    @property
    def quantization(self) -> str: ...

    @property
    def context(self) -> int | None:
        """In tokens, as served."""
        ...

    @property
    def embedding_length(self) -> int | None: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def modified_at(self) -> float:
        """Seconds since 1970."""
        ...

    @property
    def template(self) -> str: ...

    @property
    def license(self) -> str: ...

    @property
    def is_embedder(self) -> bool: ...

    @property
    def fills_in(self) -> bool: ...

    @property
    def sees(self) -> bool: ...

    @property
    def facts(self) -> Mapping[str, object]: ...


def context_of(spec: ModelSpec, card: Card | None, facts: WorkerFacts | None) -> int | None:
    """The longest request of a model in tokens: as its last worker said, or as its start is planned, or
    as its file says; None where nobody does."""
    if facts is not None and facts.context is not None:
        return facts.context
    planned = (variant.settings.get("context") for variant in spec.variants)
    known = next((context for context in planned if isinstance(context, int)), None)
    if known is None and card is not None:
        return card.context
    return known


def sees(card: Card | None, facts: WorkerFacts | None) -> bool:
    """Whether a model takes images: as its last worker said, or as its configuration does."""
    if facts is not None and facts.capabilities:
        return "vision" in facts.capabilities
    return card is not None and card.sees
