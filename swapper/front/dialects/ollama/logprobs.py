"""Logprobs of tokens: of a chat or of a plain completion, in the one shape that Ollama has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swapper.front.dialects.dialect import Json

NO_CHARACTER: Final = "\ufffd"  # stands for bytes that are none by themselves


def logprobs(choice: Json, num_top: int) -> list[Json]:
    """The tokens of a choice, or of a chunk of it, and the `num_top` likeliest in place of each."""
    told = choice.get("logprobs") or {}
    if "tokens" not in told:
        return told.get("content") or []
    best = told.get("top_logprobs") or [{}] * len(told["tokens"])
    columns = zip(told["tokens"], told["token_logprobs"], best, strict=True)
    return [
        {**_entry(token, logprob), "top_logprobs": _best(others or {}, num_top)}
        for token, logprob, others in columns
    ]


def _best(alternatives: Mapping[str, float], count: int) -> list[Json]:
    """Plain completions tell the chosen token beside the likeliest, in whatever order."""
    ordered = sorted(alternatives.items(), key=lambda it: -it[1])
    return [_entry(token, logprob) for token, logprob in ordered[:count]]


def _entry(token: str, logprob: float) -> Json:
    entry: Json = {"token": token, "logprob": logprob}
    if NO_CHARACTER not in token:
        entry["bytes"] = list(token.encode())
    return entry
