"""What the front needs to know of models that may not be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


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
    def facts(self) -> Mapping[str, object]: ...
