"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec

from backends.serving.encoder import Encoder
from backends.serving.engine import Engine
from backends.serving.errors import bad_request, context_exceeded
from backends.serving.prompts import Prompt, read_prompts
from backends.serving.requests import EmbeddingRequest


async def embed(engine: Engine, encoder: Encoder, request: EmbeddingRequest, scope: str) -> bytes:
    """The whole answer: one vector for each input."""
    if request.encoding_format not in (None, "float", "base64"):
        raise bad_request("encoding_format must be float or base64", "encoding_format")
    size = engine.info.embedding_length
    if request.dimensions is not None and not 1 <= request.dimensions <= size:
        raise bad_request(f"dimensions must be from 1 to {size}", "dimensions")
    prompts = await read_prompts(engine, encoder, request.input, "input")
    if (most := request.truncate_prompt_tokens) is not None:
        prompts = await _cut(engine, encoder, prompts, most)
    _check(engine, prompts)
    vectors = await engine.embed([prompt.tokens for prompt in prompts], cache_scope=scope)
    if request.dimensions is not None and request.dimensions < size:
        vectors = [_shortened(vector, request.dimensions) for vector in vectors]
    return msgspec.json.encode(_body(engine, request, prompts, vectors))


async def _cut(engine: Engine, encoder: Encoder, prompts: list[Prompt], most: int) -> list[Prompt]:
    """Only what the client allows to be cut is: the end of a text, but not the mark behind it."""
    context = engine.info.context
    if not (most == -1 or 1 <= most <= context):
        raise bad_request(
            f"truncate_prompt_tokens must be -1, or from 1 to {context}", "truncate_prompt_tokens"
        )
    most = context if most == -1 else most
    mark = (await encoder.encode(""))[-1:]
    return [
        Prompt(_shorter(prompt.tokens, most, mark)) if len(prompt.tokens) > most else prompt
        for prompt in prompts
    ]


def _shorter(tokens: Sequence[int], most: int, mark: list[int]) -> list[int]:
    if mark and tokens[-1] == mark[0]:
        return [*tokens[: most - 1], *mark]
    return list(tokens[:most])


def _check(engine: Engine, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        if not prompt.tokens:
            raise bad_request("input must not be empty", "input")
        if len(prompt.tokens) > engine.info.context:
            raise context_exceeded(engine.info.context, len(prompt.tokens), "input")


def _body(
    engine: Engine, request: EmbeddingRequest, prompts: list[Prompt], vectors: list[list[float]]
) -> dict[str, Any]:
    num_tokens = sum(len(prompt.tokens) for prompt in prompts)
    written = _base64 if request.encoding_format == "base64" else list
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": written(vector)}
            for index, vector in enumerate(vectors)
        ],
        "model": engine.info.name,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def _shortened(vector: list[float], size: int) -> list[float]:
    """The first numbers, at length one again: what models trained for it mean by fewer dimensions."""
    head = vector[:size]
    length = math.hypot(*head)
    return [value / length for value in head] if length else head


def _base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for by default."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
