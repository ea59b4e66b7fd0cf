"""The list of models, as Anthropic's clients read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from swapper.front.dialects.dialect import Json


def model_entry(entry: Json) -> Json:
    """One model, made of OpenAI's entry."""
    created = datetime.fromtimestamp(entry["created"], UTC).isoformat().replace("+00:00", "Z")
    told = {
        "type": "model",
        "id": entry["id"],
        "display_name": entry["id"],
        "created_at": created,
    }
    if context := entry.get("context_length"):
        told["max_input_tokens"] = context
    return told


def model_list(entries: Sequence[Json]) -> Json:
    """All of them, as one page."""
    data = [model_entry(entry) for entry in entries]
    return {
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": False,
    }
