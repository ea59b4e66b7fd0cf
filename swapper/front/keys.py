"""API keys: who may use this server, for what, which models, and how often."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import unquote

from aiohttp import web
from yarl import URL

from swapper.errors import BadRequest, Unauthorized
from swapper.front.refusal import Forbidden, TooOften

INFERENCE: Final = "inference"
ADMIN: Final = "admin"
SCOPES: Final = frozenset({INFERENCE, ADMIN})
ADMIN_PATHS: Final = ("/swapper/", "/logs", "/lease", "/unload", "/api/models/unload")
INFERENCE_PATHS: Final = ("/v1/", "/api/", "/upstream/")
IN_PATH: Final = "/key/"


class Rate(Protocol):
    """So many requests in so many seconds."""

    @property
    def requests(self) -> int: ...

    @property
    def seconds(self) -> float: ...


class Key(Protocol):
    """What the front needs of a configured key."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def priority(self) -> int: ...

    @property
    def scopes(self) -> frozenset[str]: ...

    @property
    def models(self) -> frozenset[str]:
        """Configured names; empty: all models."""
        ...

    @property
    def rate(self) -> Rate | None: ...


HOLDER: Final[web.RequestKey[Key]] = web.RequestKey("holder", Key)
PRESENTED: Final = web.RequestKey("presented", str)  # the key that stood in a request's path


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key and its holder's name. The name goes to workers and logs, the key nowhere."""

    name: str
    key: str = field(repr=False)
    priority: int = 0
    scopes: frozenset[str] = SCOPES
    models: frozenset[str] = frozenset()
    rate: Rate | None = None


class Bucket:
    """What a key may still ask: full after a rest, one less with each request, refilled steadily."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._left = float(rate.requests)
        self._at = now

    def take(self, now: float) -> float:
        """Take one; returns 0, or, if there is none, the seconds until there is."""
        per_s = self.rate.requests / self.rate.seconds
        self._left = min(self.rate.requests, self._left + (now - self._at) * per_s)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / per_s
        self._left -= 1
        return 0.0


class Keys:
    """All keys. None configured: everybody may come in, and nobody has a name."""

    def __init__(
        self,
        keys: Sequence[Key] = (),
        *,
        in_path: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`in_path`: a key may stand before the path, as in `/key/KEY/v1/models`."""
        self._in_path = in_path
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}  # by key
        self.replace(keys)

    def replace(self, keys: Sequence[Key]) -> None:
        """Other keys from now on. Who had a rate keeps what it has used of it."""
        self._keys = [(key, key.key.encode("utf-8", "surrogateescape")) for key in keys]
        old, now = self._buckets, self._clock()
        self._buckets = {k.key: Bucket(k.rate, now) for k in keys if k.rate is not None}
        for key, bucket in old.items():
            if (new := self._buckets.get(key)) is not None and new.rate == bucket.rate:
                self._buckets[key] = bucket

    def without_key(self, request: web.BaseRequest) -> web.BaseRequest:
        """The request as if its key stood in a header. Nobody behind this sees the path it came with.

        Raises BadRequest.
        """
        target = request.raw_path
        if not self._in_path or not target.startswith(IN_PATH):
            return request
        given, slash, rest = target[len(IN_PATH) :].partition("/")
        try:
            request = request.clone(rel_url=URL(slash + rest or "/", encoded=True))
        except ValueError:
            raise BadRequest("what follows the key is no path") from None
        request[PRESENTED] = unquote(given)
        return request

    def check(self, request: web.BaseRequest, path: str) -> Key | None:
        """The key the request came with; None on an open server.

        Raises Unauthorized, Forbidden where the key is not for such requests, and TooOften.
        """
        if not self._keys:
            return None
        key = self._holder(presented(request))
        request[HOLDER] = key
        scope = scope_of(request.method, path)
        if scope is not None and scope not in key.scopes:
            raise Forbidden(
                f"the key of {key.name} has not the scope `{scope}`, which {path[:100]} needs; its "
                f"scopes are in `api_keys` of the configuration"
            )
        if scope == INFERENCE and (bucket := self._buckets.get(key.key)) is not None:
            wait_s = bucket.take(self._clock())
            if wait_s:
                raise TooOften(_too_often(key, bucket.rate, wait_s), wait_s)
        return key

    def _holder(self, given: str) -> Key:
        found, secret = None, given.encode("utf-8", "surrogateescape")
        for key, known in self._keys:  # all of them, so that the time says nothing
            if hmac.compare_digest(known, secret):
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
    return request.headers.get("x-api-key") or request.get(PRESENTED, "")


def scope_of(method: str, path: str) -> str | None:
    """What a key has to be for, for this; None: any key may look at what there is."""
    if path.startswith(ADMIN_PATHS):
        return ADMIN
    is_upstream = path.startswith("/upstream/")
    is_asking = method not in ("GET", "HEAD") and path.startswith(INFERENCE_PATHS)
    return INFERENCE if is_asking or is_upstream else None


def check_model(key: Key | None, model: str) -> None:
    """Raise Forbidden when the key is not for the model (a configured name)."""
    if key is not None and key.models and model not in key.models:
        raise Forbidden(
            f"the key of {key.name} is not for model '{model[:100]}', only for "
            f"{', '.join(sorted(key.models))}"
        )


def holder(request: web.BaseRequest) -> Key | None:
    """The key that a request was found to come with; None on an open server."""
    return request.get(HOLDER)


def visible(request: web.BaseRequest, models: Iterable[str]) -> set[str]:
    """Those of the configured models that whoever asks may use."""
    key = holder(request)
    return {model for model in models if key is None or not key.models or model in key.models}


def _too_often(key: Key, rate: Rate, wait_s: float) -> str:
    return (
        f"the key of {key.name} may ask {rate.requests} times in {rate.seconds:g} s, and has; "
        f"the next time is in {math.ceil(wait_s)} s"
    )
