"""From the `url` of a configuration to an endpoint."""

from __future__ import annotations

from urllib.parse import urlsplit

from swapper.runtime.endpoint import Endpoint

DEFAULT_PORTS = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """A `url` of which no endpoint can be made. The text names what is wrong with it."""


def endpoint_of(
    url: str, api_key: str | None = None, upstream_model: str | None = None
) -> Endpoint:
    """Where the server of that base URL answers; raises BadUrl.

    A final `/v1` is left out: requests bring it along.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError) as error:
        raise BadUrl(f"`url` '{url}' is no address; write http://HOST:PORT") from error
    if not parts.hostname:
        raise BadUrl(f"`url` '{url}' names no host; write http://HOST:PORT")
    return Endpoint(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "https",
        prefix=parts.path.rstrip("/").removesuffix("/v1"),
        headers={"authorization": f"Bearer {api_key}"} if api_key else {},
        upstream_model=upstream_model,
    )
