"""Scored tokens in the two shapes that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from backends.serving.engine import Token, Tokenizer

Scored = tuple[Token, int]  # a token, and where its text begins


def _finite(logprob: float) -> float:
    """JSON has no infinity; this is what OpenAI writes for it."""
    return max(logprob, -9999.0)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def chat_logprobs(tokenizer: Tokenizer, scored: Iterable[Scored]) -> dict[str, Any]:
    """For chat: one entry a token, its best alternatives inside."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        data = tokenizer.piece(token)
        return {"token": _text(data), "logprob": _finite(logprob), "bytes": list(data)}

    return {
        "content": [
            {
                **entry(token.id, token.logprob),
                "top_logprobs": [entry(*alternative) for alternative in token.top],
            }
            for token, _ in scored
        ],
        "refusal": None,
    }


def completion_logprobs(
    tokenizer: Tokenizer, scored: Iterable[tuple[Token, int]], offset: int = 0
) -> dict[str, list[Any]]:
    """For completions: parallel lists; the chosen token is always among the alternatives."""
    shape: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for token, start in scored:
        best: dict[str, float] = {}
        for alternative, logprob in (*token.top, (token.id, token.logprob)):
            best.setdefault(_text(tokenizer.piece(alternative)), _finite(logprob))
        _append(
            shape, _text(tokenizer.piece(token.id)), _finite(token.logprob), best, offset + start
        )
    return shape


def prompt_logprobs(
    tokenizer: Tokenizer, prompt: Sequence[int], scores: Sequence[Token | None]
) -> dict[str, list[Any]]:
    """The same for an echoed prompt, whose first token nothing has predicted."""
    shape = completion_logprobs(tokenizer, ())
    data = b""
    for id, token in zip(prompt, scores, strict=True):
        start = len(data.decode("utf-8", "ignore"))
        data += tokenizer.piece(id)
        if token is None:
            _append(shape, _text(tokenizer.piece(id)), None, None, start)
        else:
            _extend(shape, completion_logprobs(tokenizer, [(token, start)]))
    return shape


def _append(
    shape: dict[str, list[Any]],
    text: str,
    logprob: float | None,
    best: dict[str, float] | None,
    start: int,
) -> None:
    for key, value in zip(shape, (text, logprob, best, start), strict=True):
        shape[key].append(value)


def _extend(shape: dict[str, list[Any]], more: dict[str, list[Any]]) -> None:
    for key, values in more.items():
        shape[key] += values


def joined(shapes: Iterable[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Several parts of one answer as one."""
    whole: dict[str, list[Any]] = {}
    for shape in shapes:
        for key, values in shape.items():
            whole.setdefault(key, []).extend(values)
    return whole
