"""Schemas that must be kept to: a usual one, and those that nobody should send, with what becomes of them."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _nested(depth: int) -> Schema:
    schema: Schema = {"const": 1}
    for _ in range(depth):
        schema = _all(a=schema)
    return schema


def _all(**properties: Any) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


PERSON = _all(
    name={"type": "string", "maxLength": 12},
    age={"type": "integer", "minimum": 0, "maximum": 150},
    pets={"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
)


def _tree() -> Schema:
    kids = {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}
    return _all(value={"type": "integer", "minimum": 0, "maximum": 9}, kids=kids)


LONG = "x" * 900

# Followed: what is written validates.
KEPT: dict[str, Schema] = {
    "a tree": _tree(),
    "alternatives": _all(a={"anyOf": [{"type": "null"}, _all(b={"const": 1})]}),
    "alternatives that exclude each other": _all(
        a={"oneOf": [{"type": "string", "maxLength": 2}, {"type": "integer", "maximum": 9}]}
    ),
    "all of two": _all(a={"allOf": [{"type": "string", "maxLength": 3}, {"pattern": "^[a-c]+$"}]}),
    "others": {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "additionalProperties": {"type": "boolean"},
        "required": ["a", "b"],
    },
    "others by pattern": {
        "type": "object",
        "patternProperties": {r"^a\d$": {"const": 1}},
        "additionalProperties": False,
    },
    "a huge enum": _all(a={"enum": [f"value number {number}" for number in range(20_000)]}),
    "a huge enum of two kinds": _all(a={"enum": [*range(5000), *map(str, range(5000))]}),
    "odd names": _all(**{"größe": {"const": "ß"}, '"': {"const": 2}, "\\": {"const": 3}}),
    "characters": _all(a={"type": "string", "pattern": "^[а-я]{2}😀$"}),  # noqa: RUF001 - Cyrillic is meant
    "fifty deep": _nested(50),
    "notes of a megabyte": _all(
        **{f"p{i}": {"type": "boolean", "description": 20 * LONG} for i in range(50)}
    ),
    "a long list of definitions": {
        **_all(a={"$ref": "#/$defs/d7"}),
        "$defs": {f"d{i}": {"const": i, "description": LONG} for i in range(1000)},
    },
    "multiples": _all(a={"type": "integer", "multipleOf": 7, "minimum": 100, "maximum": 200}),
    "beyond exact numbers": _all(a={"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 3}),
    "64 bits": _all(a={"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
    "one number": _all(a={"type": "number", "minimum": 0.1, "maximum": 0.1}),
    "a tuple": _all(
        a={"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}
    ),
    "an evil pattern": _all(a={"type": "string", "pattern": "^(a+)+$", "maxLength": 5}),
    "an anchor": {**_all(a={"$ref": "#here"}), "$defs": {"x": {"$anchor": "here", "const": 1}}},
    "our own options": {**_all(a={"const": 1}), "x-guidance": {"whitespace_pattern": "(("}},
}

# Refused, in words that say why.
REFUSED: dict[str, tuple[Schema, str]] = {
    "itself": ({"$ref": "#"}, "no answer fits"),
    "in a circle": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        "no answer fits",
    ),
    "not there": (_all(a={"$ref": "#/$defs/x"}), "does not exist"),
    "elsewhere": (_all(a={"$ref": "https://example.org/x"}), "not present"),
    "an empty enum": (_all(a={"enum": []}), "unsatisfiable"),
    "lengths": (_all(a={"type": "string", "minLength": 5, "maxLength": 3}), "unsatisfiable"),
    "numbers": (_all(a={"type": "integer", "minimum": 5, "maximum": 3}), "unsatisfiable"),
    "types": (_all(a={"allOf": [{"type": "string"}, {"type": "integer"}]}), "unsatisfiable"),
    "no items": (_all(a={"type": "array", "items": False, "minItems": 1}), "unsatisfiable"),
    "the end of 64 bits": (
        _all(a={"type": "integer", "minimum": 2**63 - 10, "maximum": 2**63 - 5}),
        "too close to the end",
    ),
    "one of two that overlap": (
        _all(a={"oneOf": [{"type": "integer"}, {"type": "number"}]}),
        "oneOf constraints are not supported$",
    ),
    "not": (_all(a={"type": "string", "not": {"const": "x"}}), "not"),
    "if": ({**_all(a={}, b={}), "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "if"),
    "unique": (_all(a={"type": "array", "uniqueItems": True}), "uniqueItems"),
    "contains": (_all(a={"type": "array", "contains": {"const": 2}}), "contains"),
    "too deep": (_nested(150), "nested too deeply"),
    "too many to look at": (
        {"type": "object", "properties": {f"p{i}": {"const": LONG} for i in range(2500)}},
        "max is 2000",
    ),
    "a product": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"{i}_{j}": {"const": j}}} for j in range(8)]}
                for i in range(8)
            ]
        },
        "too large",
    ),
    "no type": (_all(a={"type": "wat"}), "Invalid type"),
    "no bound": (_all(a={"type": "integer", "minimum": "x"}), "minimum"),
    "no list": ({"type": "object", "required": "a"}, "required"),
    "look-around": (_all(a={"type": "string", "pattern": "(?=x)"}), "look-around"),
}
