"""A strict tool's arguments validate in every notation, whatever the model would rather say."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.serving.constraint import Vocabulary
from backends.serving.errors import RequestError
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
from tests.serving.test_forced_calls import CLOSING, END, Tokens

# One for each notation in which arguments stand one by one, and one of those that write JSON.
NOTATIONS = [
    "qwen coder",
    "minimax",
    "glm",
    "deepseek v3.2",
    "gemma",
    "lfm",
    "llama 4",
    "hermes",
    "gpt-oss",
]
MARKS = ("</parameter>", "\n</parameter>", "</arg_value>", "</｜DSML｜parameter>", '<|"|>')  # noqa: RUF001 - as models write them
CHECKER = jsonschema.FormatChecker(["date", "ipv4", "ipv6", "uuid", "email"])


class Family:
    """A notation, with its markers as control tokens or as plain text."""

    def __init__(self, name: str, has_controls: bool) -> None:
        self.dialect = Dialect(find_dialect(FAMILIES[name]).calls)
        self.tokens = Tokens(self.dialect.markers if has_controls else ())
        self.vocabulary = Vocabulary(self.tokens, self.tokens.size)
        self.controls = {mark: END + 1 + i for i, mark in enumerate(self.tokens.controls)}

    def said(self, tool: Tool, seed: int) -> str | None:
        """A forced call of a model that knows nothing; None where it comes to no end."""
        wanted = Wanted(tools=[tool], is_single=True)
        rules = answer_rules(self.dialect, wanted, writer(self.controls), prompt="")
        constraint = self.vocabulary.compile(rules).start()
        chance, answer = random.Random(seed), bytearray()
        for _ in range(2500):
            bits = int.from_bytes(constraint.mask(), "little")
            allowed = [token for token in range(self.tokens.size) if bits >> token & 1]
            token = self._drawn(chance, allowed, answer)
            if token == END:
                return answer.decode()
            answer += self.tokens.piece(token) or self.tokens.text(token).encode()
            if constraint.accept(token):
                return answer.decode()
        return None

    def _drawn(self, chance: random.Random, allowed: list[int], answer: bytearray) -> int:
        """Any token, sooner one that goes on with an end: else nothing would come to one."""
        if chance.random() < 0.8:
            for mark in map(str.encode, MARKS):
                for length in range(len(mark) - 1, 0, -1):
                    if answer.endswith(mark[:length]) and mark[length] in allowed:
                        return mark[length]
        likely = [token for token in allowed if token >= END or chr(token) in CLOSING]
        return chance.choice(likely if likely and chance.random() < 0.6 else allowed)

    def arguments(self, tool: Tool, text: str) -> Any:
        reader = AnswerReader(self.dialect, [tool], is_thinking=False)
        parts = [*reader.push(text).calls, *reader.finish().calls]
        assert [part.name for part in parts if part.name] == [tool.name], text
        return json.loads("".join(part.arguments for part in parts))


KINDS = {
    (name, controls): Family(name, controls) for name in NOTATIONS for controls in (True, False)
}


def strict(schema: Mapping[str, Any]) -> Tool:
    return Tool("f", prepared(schema, "tools", strict=True), is_strict=True)


def kept(family: Family, schema: Mapping[str, Any], seed: int) -> Any:
    """Arguments that a random model gives, which must validate; None where it came to no end."""
    tool = strict(schema)
    text = family.said(tool, seed)
    if text is None:
        return None
    arguments = family.arguments(tool, text)
    jsonschema.validate(arguments, schema, format_checker=CHECKER)
    return arguments


# -- any schema ------------------------------------------------------------------------------------

LENGTHS = st.tuples(st.integers(0, 6), st.integers(0, 6)).map(
    lambda both: {"minLength": min(both), "maxLength": max(both)}
)
PATTERNS = st.sampled_from(
    [
        *(
            "^[a-f]{2,5}$",
            "b[0-9]+",
            r"^\d{3}-\w+$",
            "^(cat|dog)s?$",
            "^$|^x",
            r"^\S+$",
            "^.{2,4}$",
        ),
        *(r"^[^\d<]{1,5}$", "[<>/]{3}", r"^\/[\w.\-]+$", r"^[a\\[&]{2}$", r"^\W\D\s$", "^{x}$"),
    ]
)
FORMATS = st.sampled_from(["date", "date-time", "time", "uuid", "ipv4", "ipv6", "email", "uri"])
TEXTS = st.one_of(
    LENGTHS,
    PATTERNS.map(lambda pattern: {"pattern": pattern}),
    FORMATS.map(lambda name: {"format": name}),
    st.just({"pattern": "^[a-z]*$", "minLength": 2, "maxLength": 4}),
    st.just({"anyOf": [{"pattern": "^a+$"}, {"maxLength": 1}], "maxLength": 3}),
    st.just({"allOf": [{"minLength": 1}, {"maxLength": 2}]}),
    st.just({"enum": ["a", 'q"', "two\nlines", "é <b>", "ab"], "maxLength": 4}),
    st.just({"const": "x\\y</z>"}),
).map(lambda bounds: {"type": "string", **bounds})
NUMBERS = st.one_of(
    st.tuples(st.integers(-300, 300), st.integers(0, 50)).map(
        lambda both: {"type": "integer", "minimum": both[0], "maximum": sum(both)}
    ),
    st.tuples(st.integers(-9, 9), st.integers(1, 9)).map(
        lambda both: {"type": "number", "exclusiveMinimum": both[0], "maximum": sum(both)}
    ),
    st.sampled_from([{"type": "integer", "multipleOf": 5}, {"type": "boolean"}]),
)
REFERENCES = st.sampled_from(
    [
        {"$ref": "#/$defs/code"},
        {"$ref": "#/$defs/tree"},
        {"$ref": "#/properties/first"},
        {"anyOf": [{"$ref": "#/$defs/code"}, {"type": "null"}]},
        {"type": ["string", "null"], "maxLength": 3},
        {"enum": ["1", 2, None, {"</arg_value>": "</parameter>"}]},
        {"oneOf": [{"const": "left"}, {"const": "right"}]},
    ]
)
VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS, REFERENCES),
    lambda inner: st.one_of(
        st.tuples(inner, st.integers(0, 2)).map(
            lambda it: {
                "type": "array",
                "items": it[0],
                "minItems": it[1],
                "maxItems": it[1] + 1,
            }
        ),
        st.dictionaries(st.sampled_from(["a", "größe", "</x>"]), inner, max_size=2).map(
            lambda named: {"type": "object", "properties": named, "additionalProperties": False}
        ),
    ),
    max_leaves=3,
)
DEFINITIONS = {
    "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "tree": {
        "type": "object",
        "properties": {
            "leaves": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1}
        },
        "additionalProperties": False,
    },
    "unused": {"not": {}},
}
TOOLS = st.tuples(
    TEXTS,
    st.dictionaries(st.sampled_from(["b", "two", "größe", "x-y"]), VALUES, max_size=3),
    st.booleans(),
).map(
    lambda it: {
        "type": "object",
        "properties": {"first": it[0], **it[1]},
        "required": ["first", *it[1]] if it[2] else ["first"],
        "$defs": DEFINITIONS,
    }
)


@pytest.mark.parametrize("has_controls", [True, False], ids=["control tokens", "text"])
@pytest.mark.parametrize("family", NOTATIONS)
@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=15)
@given(TOOLS, st.integers(0, 2**32))
def test_arguments_of_a_random_model_validate(
    family: str, has_controls: bool, schema: dict[str, Any], seed: int
) -> None:
    kept(KINDS[family, has_controls], schema, seed)


ONE_BY_ONE = sorted({*NOTATIONS} - {"hermes", "gpt-oss"})


@pytest.mark.parametrize("family", ONE_BY_ONE)
@pytest.mark.parametrize(
    "text",
    [
        {"pattern": "^[0-9]{3}$"},
        {"format": "date"},
        {"minLength": 4, "maxLength": 4},
        {"$ref": "#/$defs/code"},
        {"allOf": [{"pattern": "a$"}, {"maxLength": 2}]},
    ],
)
def test_texts_without_quotes_keep_their_bounds(family: str, text: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", **text}},
        "required": ["x"],
        "$defs": DEFINITIONS,
    }
    found = {str(kept(KINDS[family, True], schema, seed)) for seed in range(5)}
    assert len(found) > 1


@pytest.mark.parametrize("family", ONE_BY_ONE)
def test_what_ends_a_value_may_stand_in_a_text_inside_it(family: str) -> None:
    mark = next(iter({*MARKS} & {*KINDS[family, True].dialect.markers}), "</parameter>")
    held = {"x": [f"a {mark} b"], "y": [mark]}
    schema = {"type": "object", "properties": {"v": {"const": held}}, "required": ["v"]}
    for controls in (True, False):
        assert kept(KINDS[family, controls], schema, 1) == {"v": held}


@pytest.mark.parametrize("family", sorted({*ONE_BY_ONE} - {"lfm", "llama 4"}))
def test_a_text_never_holds_what_ends_it(family: str) -> None:
    mark = next(iter({*MARKS} & {*KINDS[family, True].dialect.markers}), "</parameter>")
    schema = {"type": "object", "properties": {"v": {"enum": [f"a{mark}", "b"]}}, "required": ["v"]}
    for controls in (True, False):
        assert kept(KINDS[family, controls], schema, 1) == {"v": "b"}
    long = {"type": "string", "minLength": 30, "maxLength": 60}
    schema = {"type": "object", "properties": {"v": long}, "required": ["v"]}
    for seed in range(10):
        assert kept(KINDS[family, True], schema, seed)
    only = {"type": "object", "properties": {"v": {"const": f"a{mark}"}}, "required": ["v"]}
    with pytest.raises(RequestError, match="no value validates"):
        kept(KINDS[family, True], only, 1)


TEXT = {"type": "string"}


@pytest.mark.parametrize("family", ONE_BY_ONE)
@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"properties": {"a": TEXT}, "oneOf": [{"required": ["a"]}, {}]}, "oneOf describes all"),
        ({"properties": {"a": TEXT, "b": TEXT}, "minProperties": 1}, "minProperties asks for more"),
        ({"properties": {"a": TEXT, "b": TEXT}, "maxProperties": 1}, "maxProperties allows fewer"),
        ({"properties": {"a": TEXT}, "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"required": ["a"], "additionalProperties": False}, "a is required and can have no"),
        ({"type": "array"}, "must be object"),
        ({"$ref": "#/$defs/none"}, "is not found"),
    ],
)
def test_what_binds_all_arguments_together_is_refused(
    family: str, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestError, match=reason) as raised:
        kept(KINDS[family, True], schema, 1)
    assert raised.value.status == 400
    assert raised.value.param == "tools"


@pytest.mark.parametrize("family", sorted({*ONE_BY_ONE} - {"lfm", "llama 4"}))
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"not": {"const": "a"}}, "not is not supported"),
        ({"pattern": "a^b"}, "anchor in the middle"),
        ({"pattern": "^aa$", "minLength": 3}, "empty"),
        ({"minLength": 3, "maxLength": 2}, "no value"),
        ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, "oneOf is followed only"),
        ({"allOf": [{"$ref": "#/properties/a"}]}, "without end"),
    ],
)
def test_a_text_that_cannot_be_bound_is_refused(
    family: str, text: dict[str, Any], reason: str
) -> None:
    schema = {"type": "object", "properties": {"a": {**TEXT, **text}}, "required": ["a"]}
    with pytest.raises(RequestError, match=reason) as raised:
        kept(KINDS[family, True], schema, 1)
    assert raised.value.status == 400
    assert "a of f cannot be bound" in raised.value.message


@pytest.mark.parametrize("family", ONE_BY_ONE)
def test_tools_that_are_not_strict_are_followed_as_far_as_can_be(family: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {**TEXT, "not": {}}, "b": {**TEXT, "pattern": "^x$"}},
        "required": ["b"],
        "minProperties": 1,
    }
    tool = Tool("f", prepared(schema, "tools", strict=False))
    family_ = KINDS[family, True]
    text = family_.said(tool, 3)
    assert text is not None
    assert family_.arguments(tool, text)["b"] == "x"


def test_arguments_that_are_required_and_not_listed_are_there() -> None:
    schema = {
        "required": ["b"],
        "properties": {"a": {"const": "a"}},
        "additionalProperties": {"enum": [1, 2]},
    }
    for family in ONE_BY_ONE:
        assert kept(KINDS[family, True], schema, 1)["b"] in (1, 2)


def test_definitions_are_not_copied_without_end() -> None:
    schema = {
        "type": "object",
        "properties": {f"p{number}": {"$ref": "#/$defs/x"} for number in range(300)},
        "$defs": {"x": {"const": "a", "description": "d" * 100_000}},
    }
    with pytest.raises(RequestError, match="too large"):
        kept(KINDS["glm", True], schema, 1)
