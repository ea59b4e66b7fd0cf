"""Bodies that are forms with files (`multipart/form-data`, RFC 7578): sound to write down, pictures to
change. Their fields are found in place; the files among them are passed on unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from typing import Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.adjusting import Adjustment
from swapper.front.body import Asked

FORM: Final = "multipart/form-data"
MOST_PARTS: Final = 1000
LONGEST_HEAD: Final = 16 * 1024  # bytes of one part's headers

_BOUNDARY = re.compile(r'\bboundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_DELIMITER_END = re.compile(rb"[ \t]*(\r\n|--)")


@dataclass(frozen=True, slots=True)
class Part:
    """One field: `body[begin:end]` with its headers, the value from `start` on; `begin` is behind the
    line of the boundary, `end` before the line break that leads to the next."""

    name: str
    begin: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Form:
    """A body and where its parts are."""

    body: bytes
    boundary: bytes
    parts: tuple[Part, ...]

    def asked(self) -> Asked:
        """What the proxy wants to know; of equal names the last counts. Raises BadRequest."""
        model, stream = self._text("model"), self._text("stream")
        if model is None:
            raise BadRequest("the form needs a field `model`", param="model")
        return Asked(model, stream in ("true", "True", "1"))

    def renamed(self, model: str) -> bytes:
        """The same form with another model's name; every other part byte for byte as it was."""
        return self._with(
            {part: _field("model", model) for part in self.parts if part.name == "model"}
        )

    def adjusted(self, adjustment: Adjustment) -> Form:
        """The form as the worker gets it. There are no messages for a system prompt to go before."""
        given = {part.name for part in self.parts}
        fields = {k: v for k, v in adjustment.default.items() if k not in given} | dict(
            adjustment.set
        )
        gone = adjustment.drop | set(adjustment.set)
        kept = [self.body[part.begin : part.end] for part in self.parts if part.name not in gone]
        new = [_field(name, _as_text(value)) for name, value in fields.items()]
        return read_form(self._joined([*new, *kept]), self.boundary)

    def _text(self, name: str) -> str | None:
        found = [part for part in self.parts if part.name == name]
        if not found:
            return None
        value = self.body[found[-1].start : found[-1].end]
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"the form's field `{name}` is no text", param=name) from None

    def _with(self, changed: dict[Part, bytes]) -> bytes:
        """Only what lies between two changes is copied, each byte once."""
        pieces: list[bytes | memoryview] = []
        whole, at = memoryview(self.body), 0
        for part, field in changed.items():
            pieces += [whole[at : part.begin], field]
            at = part.end
        return b"".join([*pieces, whole[at:]])

    def _joined(self, parts: list[bytes]) -> bytes:
        line = b"--" + self.boundary
        pieces = [piece for part in parts for piece in (line, b"\r\n", part, b"\r\n")]
        return b"".join([*pieces, line, b"--\r\n"])


def boundary_of(content_type: str | None) -> bytes | None:
    """What parts the fields of a form; None where the body is no form. Raises BadRequest."""
    if content_type is None or not content_type.lstrip().lower().startswith(FORM):
        return None
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BadRequest(f"content-type: {FORM} needs a boundary")
    return (found[1] or found[2]).encode("utf-8", "surrogateescape")


def read_form(body: bytes, boundary: bytes) -> Form:
    """Where the parts are; raises BadRequest for what is no such form."""
    return Form(body, boundary, tuple(_parts(body, boundary)))


def _parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    line, between = b"--" + boundary, b"\r\n--" + boundary
    at = 0 if body.startswith(line) else body.find(between) + 2
    if at == 1:
        raise BadRequest("the form does not have the boundary that its content-type says")
    for _ in range(MOST_PARTS):
        ending = _DELIMITER_END.match(body, at + len(line))
        if ending is None:
            raise BadRequest("the form is broken: a boundary is not the end of its line")
        if ending[1] == b"--":
            return
        begin = ending.end()
        end = body.find(between, begin)
        start = body.find(b"\r\n\r\n", begin, min(end, begin + LONGEST_HEAD)) + 4
        if end < 0 or start < 4:
            raise BadRequest("the form is cut short, or a part of it has no headers")
        yield Part(_name(body[begin:start]), begin, start, end)
        at = end + 2
    raise BadRequest(f"the form has more than {MOST_PARTS} parts")


def _name(head: bytes) -> str:
    """The field's name; empty where the part says none, or says it wrongly."""
    message = Message()
    for header in head.split(b"\r\n"):
        name, _, value = header.partition(b":")
        if name.strip().lower() == b"content-disposition":
            message["content-disposition"] = value.decode("utf-8", "replace")
    found = message.get_param("name", header="content-disposition")
    return found if isinstance(found, str) else ""


def _field(name: str, value: str) -> bytes:
    return b'content-disposition: form-data; name="%b"\r\n\r\n%b' % (name.encode(), value.encode())


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
