"""The web page at `/ui/`: files of this package, as they are.

A file is served when its path is a key of the dict of all files, so no path leads out of it. They hold
nothing that is secret and need no key; the page asks for one when its data does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from aiohttp import web

from swapper.front.refusal import NotFound, WrongMethod

ROOT: Final = "/ui/"
READING: Final = ("GET", "HEAD")
TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS: Final = {
    "cache-control": "no-cache",  # kept, but asked for with its etag: another version is seen at once
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    content_type: str
    etag: str


class Pages:
    """Answers for the page's files, and shows browsers the way to it."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}  # read when a browser first comes

    def knows(self, request: web.BaseRequest, path: str) -> bool:
        """Whether the request is for the page: for a file of it, or by a browser that comes in."""
        return path.startswith(ROOT) or path == "/ui" or (path == "/" and _is_browser(request))

    def answer(self, request: web.BaseRequest, path: str) -> web.Response:
        """The file, or nothing where the browser has it. Raises NotFound and WrongMethod."""
        if request.method not in READING:
            raise WrongMethod(request.method, READING)
        if not path.startswith(ROOT):  # relative, so that it holds behind another proxy's prefix
            return web.Response(status=302, headers={"location": "ui/", "vary": "accept"})
        if not self._files:
            folder = files(__package__) / "ui"
            self._files = {name: _read(file) for name, file in _walk(folder) if _type_of(name)}
        file = self._files.get(path[len(ROOT) :] or "index.html")
        if file is None:
            raise NotFound(f"there is no {path[:200]}")
        headers = {**HEADERS, "etag": file.etag, "content-type": file.content_type}
        if file.etag in request.headers.get("if-none-match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.content, headers=headers)


def _is_browser(request: web.BaseRequest) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _walk(folder: Traversable, above: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{above}{entry.name}/")
        else:
            yield above + entry.name, entry


def _type_of(name: str) -> str | None:
    return TYPES.get(name.rpartition(".")[2])


def _read(file: Traversable) -> _File:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _File(content, TYPES[file.name.rpartition(".")[2]], etag)
