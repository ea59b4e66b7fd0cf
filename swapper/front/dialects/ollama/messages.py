"""Ollama's messages as OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import objects, simplest
from swapper.front.dialects.turns import tidy

SYSTEMS: Final = ("system", "developer")
_PICTURES: Final = {"/9j/": "jpeg", "iVBORw0": "png", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}


class Message(msgspec.Struct, kw_only=True):
    """One message; null is the same as absent."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[Json] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def chat_messages(given: Sequence[Message]) -> list[Json]:
    """The same conversation; raises BadRequest."""
    calls = _Calls()
    messages: list[Json] = []
    for index, message in enumerate(given):
        where = f"messages.{index}"
        match message.role.lower():
            case "user":
                content = shown(message.content, message.images)
                messages.append({"role": "user", "content": content})
            case "assistant":
                messages.append(_assistant(message, calls, where))
            case "tool":
                told = {"role": "tool", "tool_call_id": calls.answered(message)}
                messages.append({**told, "content": message.content or ""})
            case role if role in SYSTEMS:
                messages.append({"role": "system", "content": message.content or ""})
            case _:
                raise BadRequest(
                    f"{where}.role must be system, user, assistant or tool", param=where
                )
    return tidy(messages)


def shown(text: str | None, images: Sequence[str] | None) -> str | list[Json]:
    """What a user says and shows, as OpenAI's content."""
    parts: list[Json] = [{"type": "text", "text": text or ""}] if text or not images else []
    parts += [{"type": "image_url", "image_url": {"url": _address(it)}} for it in images or ()]
    return simplest(parts)


def _address(image: str) -> str:
    if image.startswith("data:"):
        return image
    kinds = (kind for start, kind in _PICTURES.items() if image.startswith(start))
    return f"data:image/{next(kinds, 'png')};base64,{image}"


def _assistant(message: Message, calls: _Calls, where: str) -> Json:
    given = objects(message.tool_calls, f"{where}.tool_calls")
    told: Json = {"role": "assistant", "content": message.content or (None if given else "")}
    if message.thinking:
        told["reasoning_content"] = message.thinking
    if given:
        told["tool_calls"] = [
            calls.made(call, f"{where}.tool_calls.{index}") for index, call in enumerate(given)
        ]
    return told


class _Calls:
    """The tool calls of a conversation: results name them by id, by their function, or not at all."""

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []  # id and name of those without a result
        self._num_made = 0

    def made(self, call: Json, where: str) -> Json:
        """A call of the assistant's."""
        function = call.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise BadRequest(f"{where}.function.name must be a string", param=where)
        given = call.get("id")
        id = given if isinstance(given, str) and given else f"call_{self._num_made}"
        self._num_made += 1
        self._open.append((id, name))
        told = {"name": name, "arguments": _written(function.get("arguments"))}
        return {"id": id, "type": "function", "function": told}

    def answered(self, message: Message) -> str:
        """The id of the call whose result this is."""
        wanted = message.tool_call_id, message.tool_name
        for number, open_call in enumerate(self._open):
            if wanted == (None, None) or open_call[0] == wanted[0] or open_call[1] == wanted[1]:
                return self._open.pop(number)[0]
        return message.tool_call_id or f"call_{message.tool_name or 0}"


def _written(arguments: Any) -> str:
    """An object as the text that OpenAI has for it; some clients send that text already."""
    if isinstance(arguments, str):
        return arguments
    return msgspec.json.encode({} if arguments is None else arguments).decode()
