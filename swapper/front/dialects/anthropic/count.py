"""`POST /v1/messages/count_tokens` as the body of a chat completion."""

from __future__ import annotations

from swapper.front.dialects.anthropic.request import MessagesRequest, prompt
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import decode


def read_count(body: bytes) -> tuple[str, Json]:
    """The model's name, and the part of a chat's body that makes its prompt; raises BadRequest."""
    request = decode(body, MessagesRequest)
    return request.model, prompt(request)
