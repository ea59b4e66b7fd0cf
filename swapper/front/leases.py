"""Memory for other programs, for a while: a game, an image generator, a training run.

`POST /lease` with `{"gpu": "8GiB", "host": "4GiB", "for": "2h"}` answers when that much is free, with an id;
`DELETE /lease/ID` gives it back before the time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from aiohttp import web

from swapper.config.units import format_duration, parse_duration, parse_size
from swapper.core.registry import HOST, is_gpu
from swapper.errors import BadRequest, Unavailable
from swapper.front.body import read_body
from swapper.front.openai import json_response
from swapper.front.refusal import NotFound
from swapper.front.routing import Routes
from swapper.runtime.dispatcher import Dispatcher

PATHS: Final = ("/lease", "/swapper/v1/lease")
ALL: Final = "all"
BODY_LIMIT: Final = 16 * 1024
LONGEST_S: Final = 7 * 86400.0

Size = str | int


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for: sizes as in the configuration, or `all`; of each GPU, or by its name."""

    gpu: Size | dict[str, Size] | None = None
    host: Size | None = None
    duration: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(default="1h", name="for")
    wait: str = "2m"  # until it is free


class Leases:
    """The routes."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def routes(self) -> Routes:
        """By path template."""
        return {
            **{path: {"POST": self.take} for path in PATHS},
            **{f"{path}/{{lease}}": {"DELETE": self.give_back} for path in PATHS},
        }

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        """Lend memory. Raises BadRequest, and Unavailable where it is not free in time."""
        wanted = _read(await read_body(request, BODY_LIMIT))
        try:
            for_s, wait_s = parse_duration(wanted.duration), parse_duration(wanted.wait)
            memory = _memory(wanted, self._dispatcher.registry.budgets)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if not memory or not 0 < for_s <= LONGEST_S:
            raise BadRequest("a lease needs `gpu` or `host`, and `for` of at most 7d")
        loan = await self._dispatcher.loans.lend(memory, for_s, wait_s)
        if loan is None:
            raise Unavailable(
                "timeout",
                f"the memory was not free within {format_duration(wait_s)}: models that are pinned stay, "
                "and answers are finished first",
                retry_after_s=10.0,
            )
        told = {"lease": loan, "memory": memory, "expires_in_s": for_s}
        return json_response(told, 201)

    async def give_back(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """End a lease before its time."""
        if not self._dispatcher.loans.take_back(name):
            raise NotFound("there is no such lease; it may be over")
        return json_response({"lease": name, "state": "given back"})


def _read(body: bytes) -> Wanted:
    try:
        return msgspec.json.decode(body, type=Wanted)
    except msgspec.DecodeError as error:
        raise BadRequest(
            f'the body is not like {{"gpu": "8GiB", "host": "4GiB", "for": "2h"}}: {error}'
        ) from None


def _memory(wanted: Wanted, budgets: Mapping[str, int]) -> dict[str, int]:
    """Bytes by device; raises ValueError."""
    asked: dict[str, Size] = {}
    if isinstance(wanted.gpu, dict):
        asked |= wanted.gpu
    elif wanted.gpu is not None:
        asked |= dict.fromkeys(filter(is_gpu, budgets), wanted.gpu)
        if not asked:
            raise ValueError("there is no GPU here that swapper knows of")
    if wanted.host is not None:
        asked[HOST] = wanted.host
    if unknown := asked.keys() - budgets.keys():
        raise ValueError(f"there is no device {', '.join(sorted(unknown))}")
    return {
        name: budgets[name] if size == ALL else min(parse_size(size), budgets[name])
        for name, size in asked.items()
    }
