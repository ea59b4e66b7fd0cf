"""Items of a response's input as they are kept and listed: each with an id, so that clients can come back
to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.dialects.reading import text_of

REFERENCE: Final = "item_reference"
MOST: Final = 100  # items of one page
USUAL: Final = 20


def resolved(given: str | Sequence[Json] | None, find: Callable[[str], Json | None]) -> list[Json]:
    """The input as items, with what it refers to in place of references; raises BadRequest."""
    if given is None:
        return []
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    items: list[Json] = []
    seen: set[str] = set()
    for index, item in enumerate(given):
        where = f"input[{index}]"
        if _is_reference(item):
            id = text_of(item, where, "id")
            if id in seen:  # a short request would become a very long one
                raise BadRequest(f"{where}: item '{id[:100]}' is there twice", param=where)
            seen.add(id)
            item = _referred(id, where, find)
        items.append(item)
    return items


def _is_reference(item: Json) -> bool:
    """OpenAI's clients may leave its type out, too."""
    return item.get("type") == REFERENCE or set(item) == {"id"}


def _referred(id: str, where: str, find: Callable[[str], Json | None]) -> Json:
    item = find(id)
    if item is None:
        raise BadRequest(
            f"{where}: there is no item '{id[:100]}' (any more); send the item itself (clients do "
            "so with store: false)",
            param=where,
        )
    return item


def listed(items: Sequence[Json], unique: str) -> list[Json]:
    """Items as they are told: in full, whatever clients left out. `unique` makes ids."""
    return [_in_full(item, f"{unique}_in{number}") for number, item in enumerate(items)]


def _in_full(item: Json, suffix: str) -> Json:
    kind = item.get("type") or "message"
    told: Json = {"status": "completed", **item, "type": kind}
    if not isinstance(told.get("id"), str):
        told["id"] = f"{_PREFIXES.get(kind, 'item')}_{suffix}"
    if kind == "message" and isinstance(told.get("content"), str):
        told["content"] = [_text(told["role"], told["content"])]
    return told


def _text(role: object, text: str) -> Json:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


_PREFIXES: Final = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}


# ---------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which items of a list: `limit` of them, behind the item `after` in their order."""

    limit: int = USUAL
    is_ascending: bool = False
    after: str | None = None


def wanted(query: Mapping[str, str]) -> Wanted:
    """What a query asks for; raises BadRequest."""
    order, limit = query.get("order", "desc"), query.get("limit", str(USUAL))
    if order not in ("asc", "desc"):
        raise BadRequest("order must be asc or desc", param="order")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= MOST:
        raise BadRequest(f"limit must be from 1 to {MOST}", param="limit")
    return Wanted(int(limit), order == "asc", query.get("after"))


def page(items: Sequence[Json], wanted: Wanted) -> Json:
    """Some of the items; raises BadRequest where there is no item `after`."""
    ordered = list(items) if wanted.is_ascending else list(reversed(items))
    start = 0
    if wanted.after is not None:
        places = [place for place, item in enumerate(ordered) if item["id"] == wanted.after]
        if not places:
            raise BadRequest(f"after: there is no item '{wanted.after[:100]}'", param="after")
        start = places[0] + 1
    data = ordered[start : start + wanted.limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + wanted.limit < len(ordered),
    }
