"""The routes on which clients come back to a response."""

from __future__ import annotations

from aiohttp import web

from swapper.errors import BadRequest
from swapper.front.dialects.responses.responses import Responses
from swapper.front.keys import holder
from swapper.front.openai import json_response
from swapper.front.routing import NOTHING, Routes


class KeptRoutes:
    """Over the responses that are kept; each is its key's alone. All raise NotFound."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses

    def routes(self) -> Routes:
        """By path template."""
        response = "/v1/responses/{response_id}"
        return {
            response: {"GET": self.again, "DELETE": self.forget},
            f"{response}/input_items": {"GET": self.items},
            f"{response}/cancel": {"POST": self.cancel},
            "/v1/responses/{path}": NOTHING,
        }

    async def again(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """As it was answered. Raises BadRequest."""
        if request.query.get("stream", "false") != "false":
            raise BadRequest(
                "only responses made in the background can be streamed again", param="stream"
            )
        return json_response(self._responses.kept(_owner(request), name))

    async def forget(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        return json_response(self._responses.forget(_owner(request), name))

    async def items(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """A page of what it was asked with. Raises BadRequest."""
        return json_response(self._responses.items(_owner(request), name, request.query))

    async def cancel(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Refused, as the answer is there already. Raises BadRequest."""
        self._responses.kept(_owner(request), name)
        raise BadRequest("only responses made in the background can be cancelled")


def _owner(request: web.BaseRequest) -> str:
    key = holder(request)
    return "" if key is None else key.name
