"""`POST /v1/rerank`, in the shape that Jina's and Cohere's clients know."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from backends.serving.encoder import Encoder
from backends.serving.engine import CanRank
from backends.serving.errors import bad_request, context_exceeded
from backends.serving.requests import RerankRequest


async def rerank(ranker: CanRank, encoder: Encoder, request: RerankRequest, scope: str) -> bytes:
    """The whole answer: the documents' indices, the best one first."""
    info = ranker.info
    texts = [_text(document, place) for place, document in enumerate(request.documents)]
    if request.top_n is not None and request.top_n < 1:
        raise bad_request("top_n must be at least 1", "top_n")
    query = request.query

    def tokens() -> list[list[int]]:
        return [ranker.pair(query, text) for text in texts]

    pairs = await encoder.on_thread(tokens)
    for pair in pairs:
        if len(pair) > info.context:
            raise context_exceeded(info.context, len(pair), "query with a document")
    scores = await ranker.rank(pairs, cache_scope=scope)
    best = sorted(range(len(texts)), key=scores.__getitem__, reverse=True)[: request.top_n]
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]} for index in best
    ]
    if request.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    num_tokens = sum(map(len, pairs))
    return msgspec.json.encode(
        {
            "id": f"rerank-{uuid.uuid4().hex[:24]}",
            "object": "list",
            "model": info.name,
            "results": results,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }
    )


def _text(document: object, place: int) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise bad_request(
            f"documents[{place}] must be a string, or an object with a string `text`", "documents"
        )
    return text
