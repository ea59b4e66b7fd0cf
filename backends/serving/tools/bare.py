"""Texts that a notation writes without quotes: which arguments are such, and what they may be.

Their schemas become terminals of llguidance's Lark, where `&` is both and `~` is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.serving.patterns import FORMATS, PatternError, whole
from backends.serving.schemas import Schema, referred

MAX_DEPTH = 20  # of schemas inside schemas of one text
_ANYTHING = "/(?s:.*)/"


class Unbound(Exception):
    """What a schema asks for cannot be kept in this notation, in words that a client may read."""


def is_text(schema: object, root: Schema, depth: int = 0) -> bool:
    """Whether only strings validate, as far as the schema says so plainly."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return False
    if "const" in schema:
        return isinstance(schema["const"], str)
    if isinstance(choices := schema.get("enum"), list):
        return bool(choices) and all(isinstance(choice, str) for choice in choices)
    if schema.get("type") in ("string", ["string"]):
        return True
    if "$ref" in schema and is_text(referred(schema["$ref"], root), root, depth + 1):
        return True
    if any(is_text(part, root, depth + 1) for part in _listed(schema, "allOf")):
        return True
    return any(
        parts and all(is_text(part, root, depth + 1) for part in parts)
        for parts in (_listed(schema, "anyOf"), _listed(schema, "oneOf"))
    )


def text_term(schema: Schema, root: Schema, without: str) -> str:
    """All texts that validate and do not hold `without`, as a terminal. Raises Unbound."""
    found = _Terms(root, without).of(schema, 0)
    if found is None:
        raise Unbound("no value validates")
    return f"({found}) & {lacking(without)}"


def lacking(text: str) -> str:
    """All texts without `text`, as a terminal. What is not something may also be no text at all."""
    return f"{_ANYTHING} & ~/(?s:.*){in_regex(text)}(?s:.*)/"


def in_regex(text: str) -> str:
    """Text as it stands in a regular expression of Lark."""
    return _SIGNS.sub(lambda found: "\\" + found[0], text).replace("\n", "\\n")


_SIGNS = re.compile(r"[][\\.*+?^${}()|/&~#-]")


class _Terms:
    def __init__(self, root: Schema, without: str) -> None:
        self._root = root
        self._without = without

    def of(self, schema: object, depth: int) -> str | None:
        """None: no text validates."""
        if depth > MAX_DEPTH:
            raise Unbound("it refers to itself without end")
        if schema is True:
            return _ANYTHING
        if not isinstance(schema, Mapping):
            return None
        terms = list(self._parts(schema, depth))
        if None in terms:
            return None
        return " & ".join(f"({term})" for term in terms) or _ANYTHING

    def _parts(self, schema: Schema, depth: int) -> Iterator[str | None]:
        kinds = schema.get("type", "string")
        if "string" not in (kinds if isinstance(kinds, list) else [kinds]):
            yield None
        if "const" in schema:
            yield self._choice([schema["const"]])
        if isinstance(schema.get("enum"), list):
            yield self._choice(schema["enum"])
        if isinstance(pattern := schema.get("pattern"), str):
            yield _pattern(pattern)
        if (form := schema.get("format")) in FORMATS:
            yield _regex(FORMATS[form])
        if "minLength" in schema or "maxLength" in schema:
            yield _lengths(schema)
        if "$ref" in schema:
            yield self.of(referred(schema["$ref"], self._root), depth + 1)
        for part in _listed(schema, "allOf"):
            yield self.of(part, depth + 1)
        if "anyOf" in schema:
            yield self._any(_listed(schema, "anyOf"), depth)
        if "oneOf" in schema:
            yield self._one(_listed(schema, "oneOf"), depth)
        for key in ("not", "if", "$dynamicRef", "$recursiveRef"):
            if key in schema:
                raise Unbound(f"{key} is not supported")

    def _choice(self, choices: Sequence[object]) -> str | None:
        texts = [one for one in choices if isinstance(one, str) and self._without not in one]
        return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts) or None

    def _any(self, parts: Sequence[object], depth: int) -> str | None:
        terms = [self.of(part, depth + 1) for part in parts]
        return " | ".join(f"({term})" for term in terms if term is not None) or None

    def _one(self, parts: Sequence[object], depth: int) -> str | None:
        possible = [part for part in parts if self.of(part, depth + 1) is not None]
        listed = [text for part in possible for text in _values(part)]
        if len(possible) > 1 and (
            len(listed) != len(set(listed)) or not all(_values(part) for part in possible)
        ):
            raise Unbound("oneOf is followed only where its choices are lists of different texts")
        return self._any(possible, depth)


def _listed(schema: Schema, key: str) -> Sequence[object]:
    parts = schema.get(key, ())
    return parts if isinstance(parts, list) else ()


def _values(schema: object) -> list[str]:
    """The texts that a schema lists."""
    if not isinstance(schema, Mapping):
        return []
    values = [schema["const"]] if "const" in schema else _listed(schema, "enum")
    return sorted({value for value in values if isinstance(value, str)})


def _pattern(pattern: str) -> str:
    try:
        return _regex(whole(pattern))
    except PatternError as error:
        raise Unbound(str(error)) from None


def _regex(expression: str) -> str:
    """A regular expression as a terminal."""
    written = re.sub(r"\\.|/", lambda it: "\\/" if it[0] == "/" else it[0], expression)
    return f"/{written or '(?:)'}/".replace("\n", "\\n")


def _lengths(schema: Schema) -> str | None:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not _is_count(least) or not (most is None or _is_count(most)):
        raise Unbound("minLength and maxLength must be numbers")
    least, most = int(least), None if most is None else int(most)
    if most is not None and least > most:
        return None
    return f"/(?s:.{{{least},{'' if most is None else most}}})/"


def _is_count(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < 1 << 31 and value == int(value)
