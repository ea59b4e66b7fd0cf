"""Where a worker answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a worker over HTTP.

    Exactly one of `socket_path` and `host` is set. `prefix` goes before the request's path,
    `headers` (an API key of a foreign server) are added to every request, and `upstream_model`,
    where set, replaces the model's name in the body.
    """

    socket_path: str | None = None
    host: str | None = None
    port: int = 0
    tls: bool = False
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    upstream_model: str | None = None
