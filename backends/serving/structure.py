"""What a client wants an answer's content to look like, as a grammar in llguidance's dialect of Lark.

Clients ask in the words of OpenAI, vLLM or llama.cpp; only one of them at a time makes sense.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from backends.serving import schemas
from backends.serving.errors import RequestError, bad_request
from backends.serving.requests import Generation
from backends.serving.tools.calls import embedded, literal

_GBNF = re.compile(r"(?m)^\s*[\w-]+\s*::=")
_CODE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))")
_SPECIAL = {'"': '\\"', "\\": "\\\\", "[": "\\[", "]": "\\]", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOTES = frozenset(
    {"disable_any_whitespace", "disable_additional_properties", "whitespace_pattern"}
)


def content_rules(request: Generation) -> tuple[str, str] | None:
    """The grammar of the content, and the field that asked for it; None: anything goes.

    Raises RequestError for what cannot be read; whether it can be followed, only compiling tells.
    """
    found = [(rules, param) for rules, param in _asked(request) if rules is not None]
    if len(found) > 1:
        names = " and ".join(param for _, param in found)
        raise bad_request(f"{names} cannot be used together", found[1][1])
    return found[0] if found else None


def _asked(request: Generation) -> Iterator[tuple[str | None, str]]:
    yield _response_format(request.response_format), "response_format"
    yield _structured(request.structured_outputs or {}), "structured_outputs"
    if request.guided_json is not None:
        yield _schema(request.guided_json, "guided_json"), "guided_json"
    if request.json_schema is not None:
        yield _schema(request.json_schema, "json_schema"), "json_schema"
    if request.guided_regex is not None:
        yield _regex(request.guided_regex, "guided_regex"), "guided_regex"
    if request.guided_choice is not None:
        yield _choice(request.guided_choice, "guided_choice"), "guided_choice"
    if request.guided_grammar is not None:
        yield _grammar(request.guided_grammar, "guided_grammar"), "guided_grammar"
    if request.grammar:
        yield _grammar(request.grammar, "grammar"), "grammar"


def _response_format(given: Mapping[str, Any] | None) -> str | None:
    param = "response_format"
    form = (given or {}).get("type", "text")
    if given is None or form == "text":
        return None
    if form == "json_object":
        schema = given.get("schema")  # as llama.cpp has it
        return _any_object() if schema is None else _schema(schema, f"{param}.schema")
    if form == "json_schema":
        described = given.get("json_schema", given)
        if not isinstance(described, Mapping) or "schema" not in described:
            raise bad_request(f"{param}.json_schema.schema is required", f"{param}.json_schema")
        is_strict = bool(described.get("strict"))
        return _schema(described["schema"], f"{param}.json_schema.schema", strict=is_strict)
    if form == "regex":
        return _regex(given.get("pattern"), f"{param}.pattern")
    if form == "grammar":
        return _grammar(given.get("grammar"), f"{param}.grammar")
    raise bad_request(
        f"{param}.type must be text, json_object, json_schema, regex or grammar; it is {form}",
        param,
    )


def _structured(given: Mapping[str, Any]) -> str | None:
    param = "structured_outputs"
    asked = {key: value for key, value in given.items() if value not in (None, False)}
    asked = {key: value for key, value in asked.items() if key not in _NOTES}
    if len(asked) > 1:
        raise bad_request(f"{param} takes one of {', '.join(_READERS)}", param)
    for key, value in asked.items():
        if key == "json_object":
            return _any_object()
        if key not in _READERS:
            raise bad_request(f"{param} takes one of {', '.join(_READERS)}; it has {key}", param)
        return _READERS[key](value, f"{param}.{key}")
    return None


def _any_object() -> str:
    return f"start: {embedded(schemas.any_object())}"


def _schema(given: object, param: str, *, strict: bool = False) -> str:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise bad_request(f"{param} is not valid JSON", param) from None
    return f"start: {embedded(schemas.prepared(given, param, strict=strict))}"


def _regex(given: object, param: str) -> str:
    if not isinstance(given, str) or not given:
        raise bad_request(f"{param} must be a regular expression", param)
    pattern = given.removeprefix("^")
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1]
    pattern = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], pattern)
    return f"start: /{pattern}/".replace("\n", "\\n")


def _choice(given: object, param: str) -> str:
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise bad_request(f"{param} must be a list of strings", param)
    return "start: " + " | ".join(map(literal, given))


def _grammar(given: object, param: str) -> str:
    """Lark as it is, GBNF translated."""
    if not isinstance(given, str) or not given.strip():
        raise bad_request(f"{param} must be a grammar in GBNF or Lark", param)
    if not _GBNF.search(given):
        return given
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        lark: str = gbnf_to_lark(_CODE.sub(_character, given))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception for whatever it cannot read
        raise _unreadable(param, str(error)) from None
    return lark


def _character(found: re.Match[str]) -> str:
    """An escaped code as the character itself: the translation knows the others only."""
    code = int(found[1] or found[2] or found[3], 16)
    text = chr(code) if code < 0x110000 else "\ufffd"
    return _SPECIAL.get(text, text)


def _unreadable(param: str, reason: str) -> RequestError:
    return bad_request(f"{param} cannot be read: {' '.join(reason.split())[:300]}", param)


_READERS = {"json": _schema, "regex": _regex, "choice": _choice, "grammar": _grammar}
