"""`options`, `format`, `think`: how to answer, in Ollama's words and in OpenAI's."""

from __future__ import annotations

from typing import Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Json

EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "max": "high"}
_SAME: Final = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
)
_WHOLE: Final = ("top_k", "seed", "repeat_last_n")


class Options(msgspec.Struct, kw_only=True):
    """What of `options` is looked at; null is the same as absent.

    How a model is loaded (`num_ctx`, `num_gpu`, `num_thread`, ...) is configured, and no reason to load
    it anew: of `num_ctx` clients ask for what they like, and a prompt that is too long is told of.
    """

    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: float | None = None
    top_k: float | None = None
    seed: float | None = None
    repeat_last_n: float | None = None
    num_predict: float | None = None  # below 1: as many as there is room for
    stop: str | list[str] | None = None


def sampling(options: Options | None) -> Json:
    """OpenAI's fields of the options that were given."""
    if options is None:
        return {}
    fields: Json = {n: value for n in _SAME if (value := getattr(options, n)) is not None}
    for name in _WHOLE:
        if (value := getattr(options, name)) is not None:
            fields[name] = int(value)
    if options.num_predict is not None and options.num_predict >= 1:
        fields["max_tokens"] = int(options.num_predict)
    if options.stop:
        fields["stop"] = options.stop
    return fields


def response_format(form: object) -> Json:
    """The form that the answer is to have: `json`, or a schema; raises BadRequest."""
    if form is None or form == "":
        return {}
    if form == "json":
        return {"response_format": {"type": "json_object"}}
    if isinstance(form, dict):
        schema = {"name": "output", "schema": form, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    raise BadRequest("format must be 'json' or a JSON schema", param="format")


def hides_thinking(think: bool | str | None) -> bool:
    """The client wants none."""
    return think is False or think in ("false", "none")


def thinking(think: bool | str | None) -> Json:
    """Whether, and how hard, the model is to think; raises BadRequest."""
    if think is None or think == "":
        return {}
    if hides_thinking(think):
        return {"chat_template_kwargs": {"enable_thinking": False}}
    told: Json = {"chat_template_kwargs": {"enable_thinking": True}}
    if isinstance(think, str) and think != "true":
        if think not in EFFORTS:
            raise BadRequest("think must be true, false, low, medium, high or max", param="think")
        told["reasoning_effort"] = EFFORTS[think]
    return told
