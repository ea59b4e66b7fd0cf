"""What the configuration says of request fields: put into bodies before they go to a worker.

Bodies for models without such words are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from swapper.errors import BadRequest

NULL: Final = b"null"

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw])


class Adjustment(Protocol):
    """How requests that name one model, or one alias, are changed. In this order: fields of `drop`
    are left out, those of `default` put in where the client gave none, those of `set` put in anyway;
    `system` goes before the chat's own system message, or becomes it."""

    @property
    def drop(self) -> frozenset[str]: ...

    @property
    def default(self) -> Mapping[str, object]: ...

    @property
    def set(self) -> Mapping[str, object]: ...

    @property
    def system(self) -> str | None: ...


def adjusted(body: bytes, adjustment: Adjustment) -> bytes:
    """The JSON object as the worker gets it; raises BadRequest for what is none."""
    try:
        given = _fields.decode(body)
        kept = {k: v for k, v in given.items() if k not in adjustment.drop and bytes(v) != NULL}
        fields: dict[str, object] = {**adjustment.default, **kept, **adjustment.set}
        if adjustment.system is not None and "messages" in kept:
            fields["messages"] = _with_system(_items.decode(kept["messages"]), adjustment.system)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not what it should be: {error}") from None
    return msgspec.json.encode(fields)


def _with_system(messages: Sequence[msgspec.Raw], system: str) -> list[object]:
    first: Any = msgspec.json.decode(messages[0]) if messages else None
    if not isinstance(first, dict) or first.get("role") not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    content = first.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": system}, *content]
    else:
        content = f"{system}\n\n{content or ''}".rstrip()
    return [{**first, "content": content}, *messages[1:]]
