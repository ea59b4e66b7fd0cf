"""Which web pages may speak to this server.

A page in a browser can send requests to any address that the browser reaches, this machine's own ports
included. Two attacks follow, and a check for each:

- A page of another site sends a request (its answer stays hidden, but a model was loaded for it): the
  browser names the page's `Origin`, which has to be one of ours.
- A site has its own name point to 127.0.0.1 once its page is loaded (DNS rebinding), so that the page and
  swapper are one origin to the browser: then `Host` still is the site's name. It is looked at where no key
  protects the server.

Pages that may come in get the headers by which their browser shows them the answer (Fetch standard, CORS).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from swapper.front.headers import Header
from swapper.front.refusal import Forbidden

ORIGIN: Final = web.RequestKey("origin", str)  # of a request, when it was found to be one of ours
APP_SCHEMES: Final = frozenset(  # pages that were installed, not visited
    {"app", "capacitor", "chrome-extension", "file", "moz-extension", "safari-web-extension",
     "tauri", "vscode-file", "vscode-webview"}
)  # fmt: skip
PREFLIGHT_AGE_S: Final = 600


class Origins:
    """The check of `Origin` and `Host`, once a request."""

    def __init__(
        self, allowed: Iterable[str] = (), hosts: Iterable[str] = (), *, checks_hosts: bool = False
    ) -> None:
        """`allowed`: origins beside local ones, as browsers write them; `*` is any. `hosts`: names
        beside this machine's by which it is called."""
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._hosts = frozenset(name.lower() for name in hosts)
        self._checks_hosts = checks_hosts
        self._good_hosts: set[str] = set()  # headers that were found good, of which there are few

    def check(self, request: web.BaseRequest) -> None:
        """Raise Forbidden for a page that may not come in; remember its origin if it may."""
        headers = request.headers
        host = headers.get("host", "")
        if self._checks_hosts and host not in self._good_hosts:
            self._check_host(host)
        origin = headers.get("origin")
        if origin is not None:
            self._check_origin(origin, host)
            request[ORIGIN] = origin

    def _check_host(self, host: str) -> None:
        name = _name(f"//{host}")
        if host and not (_is_local(name) or name in self._hosts):
            raise Forbidden(
                f"this server is not known as {name[:100]}; add the name to `allowed_hosts`, or set "
                "`api_keys`"
            )
        if len(self._good_hosts) < 100:
            self._good_hosts.add(host)

    def _check_origin(self, origin: str, host: str) -> None:
        origin = origin.lower()
        scheme, _, rest = origin.partition("://")
        is_ours = (
            origin in self._allowed
            or "*" in self._allowed
            or rest == host.lower()
            or scheme in APP_SCHEMES
            or (scheme in ("http", "https") and _is_local(_name(origin)))
        )
        if not is_ours:
            raise Forbidden(
                f"pages from {origin[:100]} may not use this server; add it to `allowed_origins`"
            )


def cors_headers(request: web.BaseRequest) -> list[Header]:
    """What lets the page read its answer; nothing for those who are no page."""
    origin = request.get(ORIGIN)
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin.encode("utf-8", "surrogateescape")),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    ]


def preflight(request: web.BaseRequest) -> web.Response:
    """The answer to a browser that asks whether it may send a page's request."""
    wanted = request.headers.get("access-control-request-headers", "")
    headers = {
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-max-age": str(PREFLIGHT_AGE_S),
        **({"access-control-allow-headers": wanted} if wanted.isprintable() and wanted else {}),
    }
    if "access-control-request-private-network" in request.headers:
        headers["access-control-allow-private-network"] = "true"
    return web.Response(status=204, headers=headers)


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
