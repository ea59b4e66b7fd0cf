"""A schema means the same on both engines: one's answers are the other's, and nothing else is."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.serving.constraint import Vocabulary
from backends.serving.engine import EngineError, Grammar, Tokenizer
from backends.serving.schemas import prepared
from backends.serving.tools.calls import embedded
from tests.serving.odd_schemas import KEPT

DEMO = Path(__file__).parents[2] / "swapper" / "demo"
ENDING = b'"}]'

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("llama_cpp", "tokenizers"))),
    reason="not both engines are installed",
)


@pytest.fixture(scope="module")
def tokenizers() -> Iterator[dict[str, tuple[Tokenizer, int]]]:
    from backends.llamacpp.counting import open_vocabulary
    from backends.paged.tokenizer import ChatFiles, read_tokenizer

    other = open_vocabulary({"model": "m", "path": str(DEMO / "demo-chat.gguf")})
    folder = DEMO / "demo-chat"
    ours = read_tokenizer(folder, {}, ChatFiles(folder))
    try:
        yield {
            "paged": (ours, ours.size),
            "llamacpp": (other.tokenizer, other.info.vocab_size),
        }
    finally:
        other.close()


def said(grammar: Grammar, tokenizer: Tokenizer, size: int, seed: int) -> bytes | None:
    """A random answer, sooner a short one; None where it comes to no end."""
    chance, constraint, text = random.Random(seed), grammar.start(), b""
    for _ in range(1500):
        bits = int.from_bytes(constraint.mask(), "little")
        allowed = [token for token in range(size) if bits >> token & 1]
        closing = [token for token in allowed if tokenizer.piece(token)[:1] in ENDING]
        token = chance.choice(closing if closing and chance.random() < 0.7 else allowed)
        text += tokenizer.piece(token)
        if not tokenizer.piece(token) or constraint.accept(token):
            return text
    return None


def allows(grammar: Grammar, tokenizer: Tokenizer, text: bytes) -> bool:
    constraint, is_over = grammar.start(), False
    tokens = tokenizer.encode(text.decode(), add_special=False, parse_special=False)
    assert b"".join(map(tokenizer.piece, tokens)) == text
    for token in tokens:
        if is_over:
            return False
        try:
            is_over = constraint.accept(token)
        except EngineError:
            return False
    ends = int.from_bytes(constraint.mask(), "little")
    return is_over or any(
        tokenizer.ends_answer(token) for token in range(ends.bit_length()) if ends >> token & 1
    )


def spoilt(text: bytes, chance: random.Random) -> bytes:
    plain = text.decode()
    place = chance.randrange(len(plain))
    return (plain[:place] + chance.choice('01ax"{}[],: ') + plain[place + 1 :]).encode()


@pytest.mark.parametrize("name", KEPT)
def test_both_engines_follow_the_same_language(
    name: str, tokenizers: dict[str, tuple[Any, int]]
) -> None:
    rules = f"start: {embedded(prepared(KEPT[name], '', strict=True))}"
    grammars = {engine: Vocabulary(*it).compile(rules) for engine, it in tokenizers.items()}
    for one, other in (("paged", "llamacpp"), ("llamacpp", "paged")):
        for seed in range(2):
            text = said(grammars[one], *tokenizers[one], seed)
            if text is None:
                continue
            assert allows(grammars[other], tokenizers[other][0], text), text
            for kind in range(5):
                changed = spoilt(text, random.Random(kind))
                first, second = (
                    allows(grammars[engine], tokenizers[engine][0], changed)
                    for engine in (one, other)
                )
                assert first == second, changed
