"""Which handler a request goes to. Each part of the front tells its own routes, by path template.

A path without a name in it is found in one dict, because routing by patterns costs more than everything
else a small request takes here. Of templates with a name the longest is taken: a `{model}` may hold
slashes, other names hold none, and a `{path}` is all that follows.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

from aiohttp import web

from swapper.front.refusal import NotFound, WrongMethod

# Of a template with a name, a handler is given the name too: what is in the place of `{model}`, and so on,
# unquoted; in that of a `{path}`, as it came.
Handler: TypeAlias = Callable[..., Awaitable[web.StreamResponse]]
Serve: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Methods: TypeAlias = Mapping[str, Handler]  # HEAD is answered by GET's
Routes: TypeAlias = Mapping[str, Methods]  # by template

ANY: Final = "*"  # all methods
NOTHING: Final[Methods] = {}  # of a `{path}` below which nothing is served


class _Named(NamedTuple):
    """A template with a name in it, as the path around the name."""

    before: str
    after: str
    holds: re.Pattern[str]
    is_open: bool  # whatever follows, so that nothing is known to be there for another method
    methods: Methods

    def name_in(self, path: str) -> str | None:
        """What of the path is the name, as it came; None where the path is another."""
        end = len(path) - len(self.after)
        if not path.startswith(self.before) or not path.endswith(self.after):
            return None
        name = path[len(self.before) : end]
        return name if self.holds.fullmatch(name) else None


class Router:
    """All routes; `routes` of later parts may not be among those of earlier ones."""

    def __init__(self, *parts: Routes) -> None:
        self.routes: dict[str, Methods] = {}
        for part in parts:
            assert self.routes.keys().isdisjoint(part), "a path is served twice"
            self.routes.update(part)
        self._plain = {path: methods for path, methods in self.routes.items() if "{" not in path}
        named = [_named(path, methods) for path, methods in self.routes.items() if "{" in path]
        self._named = sorted(named, key=lambda it: (-len(it.before), -len(it.after), it.is_open))

    def find(self, method: str, path: str) -> Serve:
        """What answers; raises NotFound and WrongMethod. `path`: without a query, as it came."""
        methods = self._plain.get(path)
        if methods is not None:
            return _of(methods, method)
        for route in self._named:
            if (name := route.name_in(path)) is None:
                continue
            if not route.is_open:
                return partial(_of(route.methods, method), name=unquote(name))
            if (handler := _handler(route.methods, method)) is not None:
                return partial(handler, name=name)
            break
        raise NotFound(f"there is no {path[:200]}; GET / says what there is")


def _named(template: str, methods: Methods) -> _Named:
    before, _, rest = template.partition("{")
    is_open = rest.endswith("path}")
    name, _, after = ("path", "", "") if is_open else rest.partition("}")
    holds = re.compile(".+" if name in ("path", "model") else "[^/]+", re.DOTALL)
    return _Named(before, after, holds, is_open, methods)


def _handler(methods: Methods, method: str) -> Handler | None:
    found = methods.get(method) or methods.get(ANY)
    return methods.get("GET") if found is None and method == "HEAD" else found


def _of(methods: Methods, method: str) -> Handler:
    handler = _handler(methods, method)
    if handler is None:
        allowed = (("GET", "HEAD") if name == "GET" else (name,) for name in methods)
        raise WrongMethod(method, tuple(name for names in allowed for name in names))
    return handler
