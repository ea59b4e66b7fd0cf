"""Embeddings: OpenAI's answers as Ollama's, by its newer route and its older one."""

from __future__ import annotations

import math

from swapper.front.dialects.dialect import Asked, Json
from swapper.front.dialects.ollama.answer import OllamaTranslation
from swapper.front.dialects.ollama.request import (
    EmbeddingsRequest,
    EmbedRequest,
    embed_question,
    embeddings_question,
)


class EmbedTranslation(OllamaTranslation):
    """One `POST /api/embed`: vectors of length one, and the figures."""

    def __init__(self, request: EmbedRequest, asked: Asked) -> None:
        super().__init__(request, embed_question(request), asked)

    def whole(self, answer: Json) -> object:
        self.statistics.saw(answer)
        vectors = [_unit(vector) for vector in _vectors(answer)] if self.path else []
        return {"model": self.model, "embeddings": vectors, **self.statistics.told()}


class EmbeddingsTranslation(OllamaTranslation):
    """One `POST /api/embeddings`: the vector as the model gives it."""

    def __init__(self, request: EmbeddingsRequest, asked: Asked) -> None:
        super().__init__(request, embeddings_question(request), asked)

    def whole(self, answer: Json) -> object:
        return {"embedding": _vectors(answer)[0] if self.path else []}


def _vectors(answer: Json) -> list[list[float]]:
    entries = sorted(answer["data"], key=lambda entry: entry["index"])
    return [entry["embedding"] for entry in entries]


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector] if length else vector
