"""Texts, or tokens already, into prompts that fit the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.serving.encoder import Encoder
from backends.serving.engine import Engine, Tokenizer
from backends.serving.errors import bad_request, context_exceeded


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model continues; `text` is known where the client gave text."""

    tokens: Sequence[int]
    text: str | None = None

    def as_text(self, tokenizer: Tokenizer) -> str:
        """The prompt as it reads."""
        if self.text is not None:
            return self.text
        return b"".join(map(tokenizer.piece, self.tokens)).decode("utf-8", "replace")


async def read_prompts(
    engine: Engine, encoder: Encoder, given: str | list[Any], param: str
) -> list[Prompt]:
    """A string, several strings, one list of token ids, or several such lists."""
    if isinstance(given, str):
        return [Prompt(await encoder.encode(given), given)]
    if not given:
        raise bad_request(f"{param} is empty", param)
    if all(isinstance(item, str) for item in given):
        return [Prompt(await encoder.encode(text), text) for text in given]
    if all(isinstance(item, list) for item in given):
        return [Prompt(checked_tokens(engine, tokens, param)) for tokens in given]
    return [Prompt(checked_tokens(engine, given, param))]


async def infill_prompts(
    engine: Engine, encoder: Encoder, given: str | list[Any], suffix: str
) -> list[Prompt]:
    """What stands before and behind the gap, between the model's own marks for them."""
    special = engine.info.special
    marks = [special.get(name, "") for name in ("fim_prefix", "fim_suffix", "fim_middle")]
    if not all(marks):
        raise bad_request("This model cannot fill in before a suffix", "suffix")
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise bad_request("prompt must be text where there is a suffix", "prompt")
    before, behind, middle = marks
    return [
        Prompt(await encoder.encode(f"{before}{text}{behind}{suffix}{middle}"), text)
        for text in texts
    ]


def checked_tokens(engine: Engine, tokens: Sequence[Any], param: str) -> list[int]:
    """Token ids that a client brought, if the model has them."""
    limit = engine.info.vocab_size
    for token in tokens:
        if type(token) is not int:
            raise bad_request(
                f"{param} must be a string, a list of strings, a list of token ids, "
                "or a list of such lists",
                param,
            )
        if not 0 <= token < limit:
            raise bad_request(
                f"{param}: {token} is no token id of this model (0 to {limit - 1})", param
            )
    return list(tokens)


def room(engine: Engine, prompt: Sequence[int], wanted: int | None, param: str) -> int:
    """How many tokens may be generated: as wanted (-1: no limit), but no more than fit."""
    context = engine.info.context
    if not prompt:
        raise bad_request(f"{param} has no tokens", param)
    left = context - len(prompt)
    if left < 1:
        raise context_exceeded(context, len(prompt), param)
    return left if wanted is None or wanted < 0 else min(wanted, left)
