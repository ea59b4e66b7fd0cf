"""API keys: who may use this server."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from swapper.errors import Unauthorized


class Key(Protocol):
    """What the front needs of a configured key."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def priority(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key and its holder's name. The name goes to workers and logs, the key nowhere."""

    name: str
    key: str = field(repr=False)
    priority: int = 0


class Keys:
    """All keys. None configured: everybody may come in, and nobody has a name."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = [(key, key.key.encode()) for key in keys]

    def check(self, request: web.BaseRequest) -> Key | None:
        """The key the request came with; None on an open server. Raises Unauthorized."""
        if not self._keys:
            return None
        given = presented(request).encode("utf-8", "surrogateescape")
        found = None
        for key, secret in self._keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(secret, given):
                found = key
        if found is None:
            raise Unauthorized(
                "a valid API key is needed, as `Authorization: Bearer KEY` or `x-api-key: KEY`"
            )
        return found


def presented(request: web.BaseRequest) -> str:
    """The key a request carries, or an empty string."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return request.headers.get("x-api-key", "")
