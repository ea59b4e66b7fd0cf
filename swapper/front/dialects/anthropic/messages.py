"""The routes `/v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from swapper.front.dialects.anthropic.answer import MessagesTranslation
from swapper.front.dialects.anthropic.errors import error_of
from swapper.front.dialects.anthropic.request import MessagesRequest, prompt
from swapper.front.dialects.dialect import EVENT_STREAM, Asked, Json
from swapper.front.dialects.reading import decode
from swapper.front.refusal import Refusal


class Messages:
    """Keeps `Dialect` and `CountsTokens`."""

    stream_type = EVENT_STREAM
    id_header = "request-id"

    def read(self, body: bytes, asked: Asked) -> MessagesTranslation:
        return MessagesTranslation(decode(body, MessagesRequest), asked)

    def refused(self, refusal: Refusal, request_id: str) -> object:
        return error_of(refusal, request_id)

    def read_count(self, body: bytes, asked: Asked) -> tuple[str, Json]:
        request = decode(body, MessagesRequest)
        return request.model, prompt(request)

    def counted(self, tokens: int) -> Json:
        return {"input_tokens": tokens}
