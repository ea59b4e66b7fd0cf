"""The route `/v1/messages`."""

from __future__ import annotations

from swapper.front.dialects.anthropic.answer import MessagesTranslation
from swapper.front.dialects.anthropic.errors import error_of
from swapper.front.dialects.anthropic.request import MessagesRequest
from swapper.front.dialects.dialect import EVENT_STREAM, Asked
from swapper.front.dialects.reading import decode
from swapper.front.refusal import Refusal


class Messages:
    """Keeps `Dialect`."""

    stream_type = EVENT_STREAM
    id_header = "request-id"

    def read(self, body: bytes, asked: Asked) -> MessagesTranslation:
        return MessagesTranslation(decode(body, MessagesRequest), asked)

    def refused(self, refusal: Refusal, request_id: str) -> object:
        return error_of(refusal, request_id)
