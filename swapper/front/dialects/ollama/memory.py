"""The `context` of generations: what was said so far, as numbers that clients keep and send again.

Clients know nothing of these numbers but that they go with the next prompt. They are the
conversation's text, three bytes a number, and not a model's tokens: so they mean the same to every
engine, to foreign ones too, and to a model that was changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json

MARK: Final = int.from_bytes(b"swp")  # the first number: these are ours
BYTES: Final = 3  # a number; clients may have no more than 31 bits for one
ROLES: Final = ("system", "user", "assistant")


def remembered(messages: Sequence[Json]) -> list[int]:
    """A conversation as numbers. Pictures are forgotten."""
    told = [{"role": m["role"], "content": _text(m["content"])} for m in messages]
    data = msgspec.json.encode(told)
    data += b" " * (-len(data) % BYTES)
    numbers = (int.from_bytes(data[at : at + BYTES]) for at in range(0, len(data), BYTES))
    return [MARK, *numbers]


def recalled(context: Sequence[int]) -> list[Json]:
    """The conversation; raises BadRequest for numbers that are not ours."""
    if not context:
        return []
    try:
        if context[0] != MARK:
            raise ValueError("another's")
        data = b"".join(number.to_bytes(BYTES) for number in context[1:])
        messages: list[Json] = msgspec.json.decode(data, type=list[dict[str, str]])
        if not all(set(m) == {"role", "content"} and m["role"] in ROLES for m in messages):
            raise ValueError("not a conversation")
    except (ValueError, OverflowError, msgspec.DecodeError):
        raise BadRequest(
            "context is none that this server gave; leave it out, or chat by /api/chat",
            param="context",
        ) from None
    return messages


def _text(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content if part["type"] == "text")
