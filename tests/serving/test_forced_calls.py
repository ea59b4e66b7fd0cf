"""In every family's own notation, a call that is forced is one, and follows its schema."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import jsonschema
import pytest

from backends.serving.constraint import Vocabulary
from backends.serving.schemas import prepared
from backends.serving.tools import (
    AnswerReader,
    Dialect,
    Tool,
    Wanted,
    answer_rules,
    find_dialect,
    writer,
)
from tests.serving.families import FAMILIES

SCHEMAS = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 0, "maximum": 20},
            "unit": {"enum": ["c", "f"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        },
        "required": ["city", "unit"],
    },
    "now": {"type": "object", "properties": {}},
}
TOOLS = [Tool(name, prepared(schema, "", strict=True)) for name, schema in SCHEMAS.items()]
END = 256
CLOSING = "<>/{}[]\"'|=\nabcdefg"


class Tokens:
    """A token for each byte, one that ends, and control tokens."""

    def __init__(self, controls: Sequence[str] = ()) -> None:
        self.controls = list(controls)
        self.size = END + 1 + len(self.controls)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if text in self.controls:
            return [END + 1 + self.controls.index(text)]
        return list(text.encode())

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    def text(self, token: int) -> str:
        return "" if token < END else ["<end>", *self.controls][token - END]

    def ends_answer(self, token: int) -> bool:
        return token == END


def drawn(vocabulary: Tokens, rules: str, seed: int) -> str | None:
    """A random answer as a reader sees it; None when it does not come to an end."""
    constraint = Vocabulary(vocabulary, vocabulary.size).compile(rules).start()
    chance, answer = random.Random(seed), bytearray()
    for _ in range(1500):
        bits = int.from_bytes(constraint.mask(), "little")
        allowed = [token for token in range(vocabulary.size) if bits >> token & 1]
        likely = [token for token in allowed if token >= END or chr(token) in CLOSING]
        token = chance.choice(likely if likely and chance.random() < 0.9 else allowed)
        if token == END:
            return answer.decode("utf-8", "replace")
        answer += vocabulary.piece(token) or vocabulary.text(token).encode()
        if constraint.accept(token):
            return answer.decode("utf-8", "replace")
    return None


def calls_in(dialect: Dialect, text: str) -> tuple[str, list[tuple[str, str]]]:
    reader = AnswerReader(dialect, TOOLS, is_thinking=False)
    calls: list[tuple[str, str]] = []
    content = ""
    for heard in (reader.push(text), reader.finish()):
        content += heard.content
        for part in heard.calls:
            if part.name:
                calls.append((part.name, part.arguments))
            else:
                calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
    return content, calls


@pytest.mark.parametrize("has_controls", [True, False], ids=["control tokens", "text"])
@pytest.mark.parametrize("is_single", [True, False], ids=["one", "some"])
@pytest.mark.parametrize("family", FAMILIES)
def test_forced_calls_are_calls(family: str, is_single: bool, has_controls: bool) -> None:
    dialect = Dialect(find_dialect(FAMILIES[family]).calls)
    vocabulary = Tokens(dialect.markers if has_controls else ())
    controls = {marker: END + 1 + index for index, marker in enumerate(vocabulary.controls)}
    wanted = Wanted(tools=TOOLS, is_single=is_single)
    rules = answer_rules(dialect, wanted, writer(controls), prompt="")
    for seed in range(4):
        text = drawn(vocabulary, rules, seed)
        if text is None:
            continue
        content, calls = calls_in(dialect, text)
        assert calls, text
        assert not content.strip(), text
        assert len(calls) == 1 or not is_single
        for name, arguments in calls:
            jsonschema.validate(json.loads(arguments), SCHEMAS[name])


@pytest.mark.parametrize("has_controls", [True, False], ids=["control tokens", "text"])
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"gpt-oss"}))
def test_free_text_may_go_over_to_calls_and_they_are_valid(family: str, has_controls: bool) -> None:
    dialect = Dialect(find_dialect(FAMILIES[family]).calls)
    vocabulary = Tokens(dialect.markers if has_controls else ())
    controls = {marker: END + 1 + index for index, marker in enumerate(vocabulary.controls)}
    wanted = Wanted(tools=TOOLS, may_talk=True)
    grammar = Vocabulary(vocabulary, vocabulary.size).compile(
        answer_rules(dialect, wanted, writer(controls), prompt="")
    )
    assert dialect.calls is not None
    constraint = grammar.start()
    for byte in b"Well, ":
        assert int.from_bytes(constraint.mask(), "little") >> byte & 1
        constraint.accept(byte)
    assert int.from_bytes(constraint.mask(), "little") >> END & 1, "text alone is an answer"
    if dialect.calls.may_be_bare:
        constraint = grammar.start()
    start = "[" if family == "llama 4" else "{" if family == "llama" else dialect.calls.starts[0]
    for token in _written(vocabulary, start):
        assert int.from_bytes(constraint.mask(), "little") >> token & 1
        constraint.accept(token)
    assert not int.from_bytes(constraint.mask(), "little") >> END & 1, "a call has begun"


def _written(vocabulary: Tokens, text: str) -> list[int]:
    tokens: list[int] = []
    while text:
        control = next((it for it in vocabulary.controls if text.startswith(it)), None)
        piece = control or text[0]
        tokens += vocabulary.encode(piece, add_special=False, parse_special=True)
        text = text[len(piece) :]
    return tokens


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<think>\n", "hm</think>{"),
        ("", "<think>hm</think>\n{"),
        ("", "{"),
        ("<think></think>", "{"),
    ],
)
def test_reasoning_comes_before_a_form(prompt: str, opening: str) -> None:
    dialect = find_dialect(FAMILIES["qwen"])
    rules = answer_rules(dialect, Wanted('start: "{" /[a-z]+/ "}"'), writer({}), prompt=prompt)
    constraint = Vocabulary(Tokens(), END + 1).compile(rules).start()
    for byte in opening.encode():
        assert int.from_bytes(constraint.mask(), "little") >> byte & 1
        constraint.accept(byte)
    allowed = int.from_bytes(constraint.mask(), "little")
    assert allowed == sum(1 << byte for byte in range(ord("a"), ord("z") + 1))


@pytest.mark.parametrize(
    "said",
    [
        "<|channel|>final<|message|>Hi",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hi",
        "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}",
    ],
)
def test_gpt_oss_may_answer_or_call(said: str) -> None:
    dialect = find_dialect(FAMILIES["gpt-oss"])
    vocabulary = Tokens(dialect.markers)
    controls = {marker: END + 1 + index for index, marker in enumerate(vocabulary.controls)}
    wanted = Wanted(tools=TOOLS, may_talk=True)
    rules = answer_rules(dialect, wanted, writer(controls), prompt="<|start|>assistant")
    constraint = Vocabulary(vocabulary, vocabulary.size).compile(rules).start()
    for token in _written(vocabulary, said):
        assert int.from_bytes(constraint.mask(), "little") >> token & 1
        constraint.accept(token)
    assert int.from_bytes(constraint.mask(), "little") >> END & 1
