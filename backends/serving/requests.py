"""What clients send, as typed values. Unknown fields are ignored, null is the same as absent, and a
wrong type or an impossible value is an error that names the field."""

from __future__ import annotations

import re
from math import inf
from typing import Any, TypeVar

import msgspec

from backends.serving.engine import Grammar, SamplingParams
from backends.serving.errors import RequestError, bad_request

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_LOGPROBS = 20
MOST = 2**63 - 1  # of an integer: engines hand them to code that takes no longer ones


class StreamOptions(msgspec.Struct):
    """What a stream carries beside the answer."""

    include_usage: bool | None = None


class Generation(msgspec.Struct, kw_only=True):
    """The fields that chat and plain completions share."""

    n: int | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    min_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    # The same wish in the words of llama.cpp, and of vLLM old and new.
    grammar: str | None = None
    json_schema: Any = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None
    # What is refused rather than ignored: see _HARMLESS.
    use_beam_search: Any = None
    length_penalty: Any = None
    allowed_token_ids: Any = None
    bad_words: Any = None
    include_stop_str_in_output: Any = None
    skip_special_tokens: Any = None
    truncate_prompt_tokens: Any = None
    mirostat: Any = None
    dry_multiplier: Any = None
    xtc_probability: Any = None
    dynatemp_range: Any = None
    samplers: Any = None
    top_n_sigma: Any = None
    n_predict: Any = None
    prompt_logprobs: Any = None
    no_repeat_ngram_size: Any = None
    logits_processors: Any = None
    lora: Any = None


class ChatRequest(Generation, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    thinking: dict[str, Any] | None = None  # the same in the words of DeepSeek and GLM
    reasoning: dict[str, Any] | None = None  # and of OpenRouter
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None
    chat_template: Any = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def __post_init__(self) -> None:
        """One wish is told in many ways."""
        thinking, reasoning = self.thinking or {}, self.reasoning or {}
        if self.reasoning_effort is None and isinstance(reasoning.get("effort"), str):
            self.reasoning_effort = reasoning["effort"]
        if self.enable_thinking is None:
            is_off = thinking.get("type") == "disabled" or reasoning.get("enabled") is False
            is_on = thinking.get("type") == "enabled" or reasoning.get("enabled") is True
            self.enable_thinking = False if is_off else True if is_on else None


class CompletionRequest(Generation, kw_only=True):
    """`POST /v1/completions`."""

    prompt: str | list[Any] | None = None
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/embeddings`."""

    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None  # cut longer inputs to so many; -1: to the context


class RerankRequest(msgspec.Struct, kw_only=True):
    """`POST /v1/rerank`."""

    query: str
    documents: list[Any]
    top_n: int | None = None
    return_documents: bool | None = None


class TokenizeRequest(msgspec.Struct):
    """`POST /tokenize`; `add_special` puts the model's BOS and EOS, `parse_special` reads written ones."""

    content: str
    add_special: bool | None = None
    parse_special: bool | None = None


class DetokenizeRequest(msgspec.Struct):
    """`POST /detokenize`."""

    tokens: list[int]


class ThreadsRequest(msgspec.Struct):
    """`POST /threads`."""

    threads: int


Body = TypeVar("Body", bound=msgspec.Struct)

_PLACE = re.compile(r"^(?P<text>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)


def decode(body: bytes, kind: type[Body]) -> Body:
    """The body as a value, or a 400 that says where it is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise bad_request(f"The request body is not valid JSON: {error}") from None
    except RecursionError:
        raise bad_request("The request body is nested too deeply") from None


def _invalid(text: str) -> RequestError:
    """msgspec's words in a client's: which field, what was expected."""
    found = _PLACE.match(text)
    assert found is not None
    message = found["text"].replace("`", "").replace("Object missing", "missing")
    place = (found["place"] or "").removeprefix("key in ").removeprefix("$.").removeprefix("$")
    place = place.removesuffix("[...]")
    missing = re.match(r"missing required field (\w+)", message)
    if missing:
        place = missing[1]
        message = f"{place} is required"
    return bad_request(f"{place}: {message}" if place and not missing else message, place or None)


_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 1e6),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, 1e6),
    "repeat_penalty": (1e-6, 1e6),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "top_k": (-1, MOST),
    "repeat_last_n": (-1, MOST),
    "seed": (-(2**63), 2**64 - 1),
    "n": (1, MAX_CHOICES),
    "top_logprobs": (0, MAX_LOGPROBS),
    "max_tokens": (-1, MOST),  # -1 is "no limit" to llama.cpp's clients
    "max_completion_tokens": (-1, MOST),
    "min_tokens": (0, MOST),
}


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside its range, with the range in the answer."""
    if low <= value <= high and value != inf:
        return
    limit = f"from {low:g} to {high:g}" if high < MOST else f"at least {low:g}"
    if high >= MOST and value > high:
        limit = "a number of 64 bits"
    raise bad_request(f"{name} must be {limit}; it is {_short(value)}", name)


def _short(value: float) -> str:
    """Numbers of JSON may be longer than any that Python turns into a float, or prints."""
    return f"{value:g}" if abs(value) <= MOST else "larger than that"


def check(request: Generation) -> None:
    """Refuse values that no engine can serve."""
    for name, (low, high) in _RANGES.items():
        value = getattr(request, name, None)
        if value is not None:
            check_range(name, value, low, high)
    for name, harmless in _HARMLESS.items():
        value = getattr(request, name, None)
        if value is not None and value not in harmless:
            instead = f"use {_INSTEAD[name]}" if name in _INSTEAD else "leave it out"
            raise bad_request(f"{name} is not supported by this worker; {instead}", name)


# Fields that would change the answer, were they served, and values that would not.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "mirostat": (0,),
    "dry_multiplier": (0,),
    "xtc_probability": (0,),
    "dynatemp_range": (0,),
    "samplers": (),
    "top_n_sigma": (-1, 0),
    "n_predict": (-1,),
    "prompt_logprobs": (),
    "no_repeat_ngram_size": (0,),
    "logits_processors": ([],),
    "lora": ([],),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": ([], ["text"]),
    "audio": (),
    "web_search_options": (),
    "chat_template": (),
}

_INSTEAD = {"functions": "tools", "function_call": "tool_choice", "n_predict": "max_tokens"}


def sampling(
    request: Generation, vocab_size: int, logprobs: int | None, grammar: Grammar | None = None
) -> SamplingParams:
    """How the engine is to choose tokens. What the request leaves open stays at the defaults."""
    chosen: dict[str, Any] = {
        name: value for name in _SAMPLING_FIELDS if (value := getattr(request, name)) is not None
    }
    if request.repeat_penalty is not None:
        chosen.setdefault("repetition_penalty", request.repeat_penalty)
    if request.repeat_last_n is not None:
        chosen["penalty_last_n"] = request.repeat_last_n
    if chosen.get("top_k", 0) < 0:
        del chosen["top_k"]  # -1 is "off" to some clients
    if chosen.get("seed") == -1:
        del chosen["seed"]  # and "any seed" to llama.cpp's
    if request.logit_bias:
        chosen["logit_bias"] = _logit_bias(request.logit_bias, vocab_size)
    return SamplingParams(**chosen, logprobs=logprobs, grammar=grammar)


_SAMPLING_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "ignore_eos",
)


def _logit_bias(given: dict[str, float], vocab_size: int) -> dict[int, float]:
    bias = {}
    for key, value in given.items():
        check_range("logit_bias", value, -100, 100)
        if not key.isascii() or not key.isdigit() or len(key) > 20 or int(key) >= vocab_size:
            raise bad_request(
                f"logit_bias: {key[:40]!r} is no token id of this model (0 to {vocab_size - 1})",
                "logit_bias",
            )
        bias[int(key)] = value
    return bias


def stops(request: Generation) -> tuple[str, ...]:
    """The stop strings; empty ones would stop everything and are left out."""
    given = request.stop
    if given is None:
        return ()
    found = [given] if isinstance(given, str) else given
    if len(found) > MAX_STOPS:
        raise bad_request(f"stop takes at most {MAX_STOPS} strings; it has {len(found)}", "stop")
    return tuple(dict.fromkeys(stop for stop in found if stop))
