"""Whatever form is asked for, an answer drawn at random has it; what cannot be had is a 400."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.echo.tokenizer import EOS, IM_END, VOCAB_SIZE, ByteTokenizer
from backends.serving.constraint import GrammarError, Vocabulary
from backends.serving.engine import Grammar
from backends.serving.errors import RequestError
from backends.serving.model import readable
from backends.serving.requests import ChatRequest, decode
from backends.serving.schemas import prepared
from backends.serving.structure import content_rules
from backends.serving.tools.calls import embedded
from tests.serving.odd_schemas import KEPT, REFUSED

VOCABULARY = Vocabulary(ByteTokenizer(), VOCAB_SIZE)
LIKELY = frozenset(b'"{}[],:0123456789abcdef.')


def rules(**fields: Any) -> str:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    found = content_rules(decode(json.dumps(body).encode(), ChatRequest))
    assert found is not None
    return found[0]


def drawn(grammar: Grammar, seed: int, most: int = 4000) -> str | None:
    """A random answer; None when it does not come to an end. What closes is a little likelier."""
    chance, constraint, answer = random.Random(seed), grammar.start(), bytearray()
    for _ in range(most):
        bits = int.from_bytes(constraint.mask(), "little")
        allowed = [token for token in range(VOCAB_SIZE) if bits >> token & 1]
        assert allowed, bytes(answer)
        assert (EOS in allowed) == (IM_END in allowed)
        likely = [token for token in allowed if token in LIKELY or token == EOS]
        token = chance.choice(likely if likely and chance.random() < 0.9 else allowed)
        if token >= 256:
            assert token in (EOS, IM_END)
            return answer.decode()
        answer.append(token)
        if constraint.accept(token):
            return answer.decode()
    return None


def follow(schema: object, *, strict: bool = True) -> Grammar:
    ready = prepared(schema, "schema", strict=strict)
    return VOCABULARY.compile(f"start: {embedded(ready)}")


NAMES = st.sampled_from(["a", "b", "name", "größe", 'q"', "with space"])
SCALARS = st.one_of(
    st.builds(
        lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)},
        st.integers(-2000, 2000),
        st.integers(-2000, 2000),
    ),
    st.builds(lambda a: {"type": "number", "exclusiveMinimum": a}, st.integers(-9, 9)),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}]
    ),
    st.builds(
        lambda a, b: {"type": "string", "minLength": min(a, b), "maxLength": max(a, b)},
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    st.sampled_from(
        [
            {"type": "string", "pattern": "^[a-f]{2,5}$"},
            {"type": "string", "pattern": "b[0-9]+"},
            {"type": "string", "format": "date"},
            {"type": "string", "format": "uuid"},
            {"type": "string", "format": "no-such-format", "maxLength": 5},
            {"enum": ["x", 3, None, {"y": [1]}]},
            {"const": {"z": "é"}},
            {"type": ["string", "null"], "maxLength": 3},
        ]
    ),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(properties: dict[str, Any], needed: int, more: Any) -> dict[str, Any]:
        required = sorted(properties)[:needed]
        return {"type": "object", "properties": properties, "required": required, **more}

    return st.builds(
        made,
        st.dictionaries(NAMES, inner, max_size=4),
        st.integers(0, 4),
        st.sampled_from([{}, {"additionalProperties": False}, {"title": "T", "description": "d"}]),
    )


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        _objects(inner),
        st.builds(
            lambda items, a: {"type": "array", "items": items, "minItems": a, "maxItems": a + 2},
            inner,
            st.integers(0, 2),
        ),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"$ref": "#/$defs/x", "$defs": {"x": a}}, SCALARS),
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    SCHEMAS.filter(lambda schema: "$defs" not in json.dumps(schema) or "$defs" in schema),
    st.integers(0, 2**32),
)
def test_an_untrained_model_s_answer_validates(schema: dict[str, Any], seed: int) -> None:
    answer = drawn(follow(schema), seed)
    if answer is not None:  # else max_tokens would have cut it
        jsonschema.validate(json.loads(answer), schema)


@pytest.mark.parametrize("seed", range(20))
def test_bounded_schemas_always_end(seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 10},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
    }
    answer = drawn(follow(schema), seed, most=400)
    assert answer is not None
    assert len(answer) < 250


def test_an_object_s_list_of_properties_is_all_it_has_unless_it_says_otherwise() -> None:
    listed = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for schema, extra in [
        (listed, False),
        ({**listed, "additionalProperties": True}, True),
        ({**listed, "required": ["b"]}, True),
        ({"allOf": [listed, {"type": "object", "properties": {"b": {}}}]}, True),
    ]:
        constraint = follow(schema).start()
        for char in b'{"':
            constraint.accept(char)
        bits = int.from_bytes(constraint.mask(), "little")
        assert bool(bits >> ord("b") & 1) == extra


def test_white_space_is_bounded() -> None:
    constraint = follow({"type": "object", "properties": {"a": {}}, "required": ["a"]}).start()
    constraint.accept(ord("{"))
    for count in range(40):
        if not int.from_bytes(constraint.mask(), "little") >> (32 if count > 1 else 10) & 1:
            break
        constraint.accept(32 if count > 1 else 10)
    assert count == 22


def test_what_only_a_lenient_schema_may_have_is_left_out() -> None:
    schema = {"type": "object", "propertyNames": {"maxLength": 3}, "additionalProperties": {}}
    follow(schema, strict=False)
    with pytest.raises(GrammarError, match="propertyNames"):
        follow(schema)


@pytest.mark.parametrize(
    ("fields", "form"),
    [
        ({"guided_regex": "^[0-9]{3}/[a-c]+$"}, "[0-9]{3}/[a-c]+"),
        ({"structured_outputs": {"regex": "[0-9]{3}"}}, "[0-9]{3}"),
        ({"guided_choice": ["yes", 'no "no"']}, 'yes|no "no"'),
        ({"response_format": {"type": "regex", "pattern": "a|b"}}, "a|b"),
        ({"grammar": 'root ::= "a" [0-9]+ x\nx ::= "\\u0062" | "\\x63"'}, "a[0-9]+[bc]"),
        ({"guided_grammar": 'start: "a" /[0-9]+/ "b"'}, "a[0-9]+b"),
    ],
)
def test_other_forms_are_followed(fields: dict[str, Any], form: str) -> None:
    grammar = VOCABULARY.compile(rules(**fields))
    for seed in range(5):
        answer = drawn(grammar, seed)
        assert answer is not None
        assert re.fullmatch(form, answer)


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
        {"guided_json": '{"type": "object"}'},
        {"json_schema": {"type": "object"}},
        {"structured_outputs": {"json_object": True}},
    ],
)
def test_every_spelling_of_an_object_gives_one(fields: dict[str, Any]) -> None:
    answer = drawn(VOCABULARY.compile(rules(**fields)), 3)
    assert answer is None or isinstance(json.loads(answer), dict)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"response_format": {"type": "table"}}, "must be text, json_object"),
        ({"response_format": {"type": "json_schema"}}, "schema is required"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}, "an object"),
        ({"guided_json": "{"}, "not valid JSON"),
        ({"guided_choice": []}, "list of strings"),
        ({"grammar": "root ::= ("}, "cannot be read"),
        ({"grammar": "  x  ", "guided_regex": "a"}, "cannot be used together"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structural_tag"),
    ],
)
def test_what_is_no_form_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        rules(**fields)
    assert raised.value.status == 400


@pytest.mark.parametrize("name", KEPT)
def test_odd_schemas_are_kept_to(name: str) -> None:
    schema = KEPT[name]
    grammar = follow(schema)
    found = [answer for seed in range(3) if (answer := drawn(grammar, seed)) is not None]
    assert found or name == "a tree"
    for answer in found:
        jsonschema.validate(json.loads(answer), schema)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_to_is_refused_and_said(name: str) -> None:
    schema, reason = REFUSED[name]
    started = time.monotonic()
    with pytest.raises((RequestError, GrammarError)) as raised:
        follow(schema)
    error = raised.value
    words = readable(error) if isinstance(error, GrammarError) else error.message
    assert re.search(reason, words)
    assert len(words) < 400
    assert time.monotonic() - started < 20
