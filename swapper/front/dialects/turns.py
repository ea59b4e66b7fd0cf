"""Messages in the order that every chat template takes: one system message, then turns."""

from __future__ import annotations

from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import parts, simplest


def tidy(messages: list[Json]) -> list[Json]:
    """System messages at the start become one, later ones a user's; users in a row are one turn."""
    tidied: list[Json] = []
    for message in messages:
        last = tidied[-1] if tidied else None
        if message["role"] == "system" and last is not None and last["role"] != "system":
            message = {**message, "role": "user"}
        if last is not None and last["role"] == message["role"] and message["role"] in _JOINED:
            both = parts(last["content"], "") + parts(message["content"], "")
            tidied[-1] = {"role": message["role"], "content": simplest(both)}
        else:
            tidied.append(message)
    return tidied


_JOINED = ("system", "user")
