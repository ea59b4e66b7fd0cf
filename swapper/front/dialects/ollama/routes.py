"""The routes that ask a model something."""

from __future__ import annotations

from typing import Final

from swapper.front.dialects.dialect import Asked
from swapper.front.dialects.ollama.answer import (
    ChatTranslation,
    GenerateTranslation,
    OllamaTranslation,
)
from swapper.front.dialects.ollama.embed import EmbeddingsTranslation, EmbedTranslation
from swapper.front.dialects.ollama.errors import error_of
from swapper.front.dialects.ollama.request import (
    ChatRequest,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
)
from swapper.front.dialects.reading import decode
from swapper.front.refusal import Refusal

LINES: Final = "application/x-ndjson"


class Ollama:
    """Keeps `Dialect`, but for what each route reads."""

    stream_type = LINES
    id_header = "x-request-id"

    def refused(self, refusal: Refusal, request_id: str) -> object:
        return error_of(refusal)


class Chat(Ollama):
    """`/api/chat`."""

    def read(self, body: bytes, asked: Asked) -> OllamaTranslation:
        return ChatTranslation(decode(body, ChatRequest), asked)


class Generate(Ollama):
    """`/api/generate`."""

    def read(self, body: bytes, asked: Asked) -> OllamaTranslation:
        return GenerateTranslation(decode(body, GenerateRequest), asked)


class Embed(Ollama):
    """`/api/embed`."""

    def read(self, body: bytes, asked: Asked) -> OllamaTranslation:
        return EmbedTranslation(decode(body, EmbedRequest), asked)


class Embeddings(Ollama):
    """`/api/embeddings`."""

    def read(self, body: bytes, asked: Asked) -> OllamaTranslation:
        return EmbeddingsTranslation(decode(body, EmbeddingsRequest), asked)
