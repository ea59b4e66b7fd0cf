"""What dialects share in reading what others wrote: bodies of clients, errors and answers of workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json
from swapper.front.refusal import Refusal

Body = TypeVar("Body", bound=msgspec.Struct)

OVERFLOW: Final = "context_length_exceeded"
PROMPTS: Final = ("messages", "prompt", "input")  # fields that may be too long

_PLACE = re.compile(r"^(?P<text>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)
_MAXIMUM = re.compile(r"maximum (?:context|model) length (?:is|of) (\d+)", re.IGNORECASE)
_RESULTED = re.compile(r"(?:resulted in|requested|contains|has) (?:about )?(\d+)", re.IGNORECASE)


def decode(body: bytes, kind: type[Body]) -> Body:
    """A client's body as a value; raises BadRequest that names the field."""
    try:
        value = msgspec.json.decode(body, type=kind)
        msgspec.json.encode(_deeper(value))  # it will be written again, within something else
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
    return value


def _deeper(value: object) -> object:
    for _ in range(32):
        value = [value]
    return value


def _invalid(text: str) -> BadRequest:
    """msgspec's words in a client's."""
    found = _PLACE.match(text)
    assert found is not None
    message = found["text"].replace("`", "")
    if missing := re.match(r"Object missing required field (\w+)", message):
        return BadRequest(f"{missing[1]} is required", param=missing[1])
    place = (found["place"] or "").removeprefix("$.").removeprefix("$")
    return BadRequest(f"{place}: {message}" if place else message, param=place or None)


def parts(content: object, where: str) -> list[Json]:
    """Content as a list of parts: a text is one part, null is none. Raises BadRequest."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    raise BadRequest(f"{where} must be a string or a list of objects", param=where)


def text_of(part: Json, where: str, key: str = "text") -> str:
    """A text field of a part; raises BadRequest."""
    text = part.get(key)
    if not isinstance(text, str):
        raise BadRequest(f"{where}.{key} must be a string", param=where)
    return text


def objects(value: object, where: str) -> list[Json]:
    """A list of objects, or nothing; raises BadRequest."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"{where} must be a list of objects", param=where)
    return value


def simplest(content: list[Json]) -> str | list[Json]:
    """OpenAI's content: one text where all parts are texts, for every server reads that."""
    if all(part["type"] == "text" for part in content):
        return "\n\n".join(part["text"] for part in content)
    return content


# ---------------------------------------------------------------- workers


def refusal_from(status: int, body: bytes, retry_after: str) -> Refusal:
    """A worker's error answer, with its true status. Foreign servers word theirs in many ways."""
    seconds = int(retry_after) if retry_after.isdecimal() else None
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        given = None
    return refusal_of_error(given, status, seconds)


def refusal_of_error(given: object, status: int, retry_after_s: int | None = None) -> Refusal:
    """The same of an error as a value: OpenAI's envelope, or anything."""
    error = given.get("error", given) if isinstance(given, dict) else given
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    message = _said(error) or f"the model's server answered with status {status}"
    kind = error.get("type")
    if counts := _overflow(error, message):
        param = error.get("param")
        what = param if param in PROMPTS else PROMPTS[0]
        words = overflow_message(*counts, what)
        return Refusal(status, words, "invalid_request_error", OVERFLOW, what)
    return Refusal(
        status,
        message,
        kind if isinstance(kind, str) else _type_of(status),
        _text(error.get("code")),
        _text(error.get("param")),
        retry_after_s=retry_after_s,
    )


def _said(error: Json) -> str | None:
    """The message of an error: `detail` is FastAPI's."""
    return _text(error.get("message")) or _text(error.get("detail"))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _type_of(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"


def _overflow(error: Json, message: str) -> tuple[int, int] | None:
    """Tokens and maximum, where the error says that a prompt is too long."""
    tokens, maximum = error.get("n_prompt_tokens"), error.get("n_ctx")
    if isinstance(tokens, int) and isinstance(maximum, int):
        return tokens, maximum
    found = overflow_counts(message)
    return found if found is not None else None


def overflow_message(tokens: int, maximum: int, what: str) -> str:
    """Words that clients search errors for."""
    return (
        f"This model's maximum context length is {maximum} tokens. However, your {what} "
        f"resulted in {tokens} tokens. Please reduce the length of the {what}."
    )


def overflow_counts(message: str) -> tuple[int, int] | None:
    """Tokens and maximum out of such words."""
    maximum = _MAXIMUM.search(message)
    tokens = _RESULTED.search(message, maximum.end()) if maximum else None
    return (int(tokens[1]), int(maximum[1])) if maximum and tokens else None


def as_chunks(answer: Json) -> Iterator[Json]:
    """A whole answer as the chunks of a stream, for servers that do not stream."""
    for choice in answer["choices"]:
        if "message" not in choice:  # of a plain completion, which is the same streamed or not
            yield {**answer, "choices": [choice]}
            continue
        delta = dict(choice["message"])
        calls = delta.get("tool_calls") or []
        delta["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
        yield {**answer, "choices": [{**choice, "delta": delta}]}


def first_choice(chunk: Json) -> Json | None:
    """The first choice's part of a chunk; None where it has none, as one that only tells the usage."""
    choices = chunk.get("choices") or ()
    return next((choice for choice in choices if choice.get("index", 0) == 0), None)


def has_finished(chunk: Json) -> bool:
    """Whether the answer says why it ended."""
    choice = first_choice(chunk)
    return choice is not None and bool(choice.get("finish_reason"))


def reasoning(message: Json) -> str | None:
    """What the model thought, under the names it goes by."""
    return _text(message.get("reasoning_content")) or _text(message.get("reasoning"))


def arguments_object(arguments: str) -> Json:
    """A call's arguments as an object; a model may have written something else, or not to its end."""
    try:
        parsed = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        return {"INVALID_JSON": arguments}
    return parsed if isinstance(parsed, dict) else {"INVALID_JSON": arguments}


def stopped_by(choice: Json) -> str | None:
    """The stop string that ended an answer, where the server tells it."""
    told: Any = choice.get("stop_reason", choice.get("matched_stop"))
    return _text(told)
