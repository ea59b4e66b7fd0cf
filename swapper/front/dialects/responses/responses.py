"""The routes below `/v1/responses`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from swapper.front.dialects.dialect import EVENT_STREAM, Asked, Json
from swapper.front.dialects.reading import decode
from swapper.front.dialects.responses.answer import ResponsesTranslation
from swapper.front.dialects.responses.items import page, wanted
from swapper.front.dialects.responses.request import ResponsesRequest
from swapper.front.dialects.responses.store import Store
from swapper.front.openai import envelope
from swapper.front.refusal import NotFound, Refusal


class Responses:
    """Keeps `Dialect` and `CountsTokens`, and the responses that clients come back to."""

    stream_type = EVENT_STREAM
    id_header = "x-request-id"

    def __init__(self) -> None:
        self._store = Store()

    def read(self, body: bytes, asked: Asked) -> ResponsesTranslation:
        return ResponsesTranslation(decode(body, ResponsesRequest), asked, self._store)

    def refused(self, refusal: Refusal, request_id: str) -> object:
        return envelope(refusal)

    def read_count(self, body: bytes, asked: Asked) -> tuple[str, Json]:
        translation = self.read(body, asked)
        return translation.model, translation.body

    def counted(self, tokens: int) -> Json:
        return {"object": "response.input_tokens", "input_tokens": tokens}

    def kept(self, key: str, id: str) -> Json:
        """A response again; raises NotFound."""
        kept = self._store.get(key, id)
        if kept is None:
            raise _missing(id)
        response: Json = msgspec.json.decode(kept.response)
        return response

    def items(self, key: str, id: str, query: Mapping[str, str]) -> Json:
        """A page of what a response was asked with; raises NotFound and BadRequest."""
        kept = self._store.get(key, id)
        if kept is None:
            raise _missing(id)
        return page(kept.items(), wanted(query))

    def forget(self, key: str, id: str) -> Json:
        """What is told of a response that is kept no more; raises NotFound."""
        if not self._store.remove(key, id):
            raise _missing(id)
        return {"id": id, "object": "response", "deleted": True}


def _missing(id: str) -> NotFound:
    return NotFound(f"there is no response '{id[:100]}' (any more)")
