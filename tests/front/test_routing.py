"""Routes by template, and that all of them are described."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from swapper.front.openapi import document
from swapper.front.refusal import NotFound, WrongMethod
from swapper.front.routing import ANY, NOTHING, Router
from tests.front.conftest import House


def router(*templates: str, methods: tuple[str, ...] = ("GET",)) -> Router:
    """Each route answers with its template and the name."""
    return Router({it: {method: telling(it) for method in methods} for it in templates})


def telling(template: str) -> Any:
    return lambda request, name="": (template, name)


def found(router: Router, path: str, method: str = "GET") -> Any:
    request: Any = None
    return router.find(method, path)(request)


TEMPLATES = (
    "/plain",
    "/models/{model}",
    "/models/{model}/load",
    "/kept/{id}",
    "/kept/{id}/items",
    "/open/{path}",
    "/open/inner/{model}",
)


@pytest.mark.parametrize(
    ("path", "template", "name"),
    [
        ("/plain", "/plain", ""),
        ("/models/org/big%20one", "/models/{model}", "org/big one"),
        ("/models/org/one/load", "/models/{model}/load", "org/one"),
        ("/models/load", "/models/{model}", "load"),
        ("/kept/7", "/kept/{id}", "7"),
        ("/kept/7/items", "/kept/{id}/items", "7"),
        ("/open/a%2Fb/c", "/open/{path}", "a%2Fb/c"),
        ("/open/inner/x/y", "/open/inner/{model}", "x/y"),
        ("/open/inner", "/open/{path}", "inner"),
    ],
)
def test_the_longest_template_gets_the_name(path: str, template: str, name: str) -> None:
    assert found(router(*TEMPLATES), path) == (template, name)
    assert found(router(*reversed(TEMPLATES)), path, "HEAD") == (template, name)


@pytest.mark.parametrize(
    "path", ["/", "/plain/", "/models/", "/models", "/kept/7/8", "/kept//items", "/open/"]
)
def test_what_is_not_there(path: str) -> None:
    with pytest.raises(NotFound):
        found(router(*TEMPLATES), path)


def test_methods() -> None:
    routes = router("/plain", "/kept/{id}", methods=("GET", "DELETE"))
    for path in ("/plain", "/kept/7"):
        assert found(routes, path, "DELETE")
        with pytest.raises(WrongMethod) as raised:
            found(routes, path, "POST")
        assert raised.value.allowed == ("GET", "HEAD", "DELETE")
    assert found(router("/open/{path}", methods=(ANY,)), "/open/x", "PATCH")


def test_of_an_open_path_nothing_is_known_for_other_methods() -> None:
    routes = Router({"/v1/{path}": {"POST": telling("all")}, "/v1/ours/{path}": NOTHING})
    assert found(routes, "/v1/any/thing", "POST") == ("all", "any/thing")
    for method, path in (("GET", "/v1/anything"), ("POST", "/v1/ours/anything")):
        with pytest.raises(NotFound):
            found(routes, path, method)


# ---------------------------------------------------------------- the document


async def test_every_route_is_described(house: House) -> None:
    assert house.front is not None
    paths = document()["paths"]
    for template, methods in house.front.routes.items():
        for method in methods:
            assert method == ANY or method.lower() in paths[template], f"{method} {template}"
        assert methods == NOTHING or template in paths, template


async def test_whatever_is_described_is_a_route(house: House) -> None:
    assert house.front is not None
    routes, served = house.front.routes, Router(house.front.routes)
    for path, methods in document()["paths"].items():
        for method in map(str.upper, methods):
            assert served.find(method, path)
            assert path not in routes or {method, ANY} & routes[path].keys(), f"{method} {path}"
            if path not in routes:  # one of those that are passed on
                assert method in routes["/v1/{path}"]
                assert path.startswith("/v1/")


def test_a_path_is_served_once() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    with pytest.raises(AssertionError, match="twice"):
        Router({"/a": {"GET": answer}}, {"/a": {"POST": answer}})
