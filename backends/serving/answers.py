"""From a parsed request to the choices the engine runs, and the reply they fill."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backends.serving.chat import ChatTemplate
from backends.serving.choices import Choice
from backends.serving.encoder import Encoder
from backends.serving.engine import Engine, GenerateRequest, SamplingParams
from backends.serving.errors import bad_request
from backends.serving.openai import ChatReply, CompletionReply
from backends.serving.prompts import read_prompts, room
from backends.serving.requests import (
    MAX_LOGPROBS,
    ChatRequest,
    CompletionRequest,
    check,
    check_range,
    sampling,
    stops,
)
from backends.serving.tools import ToolCallReader

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, where a plain completion names no limit


async def chat(
    engine: Engine, encoder: Encoder, template: ChatTemplate, request: ChatRequest, scope: str
) -> ChatReply:
    """A chat completion, checked and ready to run."""
    check(request)
    tools = _tools(request)
    if tools and not template.shows_tools:
        raise bad_request("This model's chat template has no place for tools", "tools")
    text = _chat_text(template, request, tools)
    # A template that writes BOS itself must not get a second one from the tokenizer.
    bos = engine.info.bos_token
    writes_bos = bool(bos) and text.startswith(bos)
    prompt = await encoder.encode(text, add_special=not writes_bos)
    max_tokens = room(engine, prompt, _wanted_tokens(request), "messages")
    params = sampling(request, engine.info.vocab_size, _chat_logprobs(request))
    n = request.n or 1
    choices = [
        Choice(
            index,
            GenerateRequest(prompt, max_tokens, _seeded(params, index), scope),
            engine.tokenizer,
            stops(request),
            ToolCallReader(1 if request.parallel_tool_calls is False else None) if tools else None,
        )
        for index in range(n)
    ]
    return ChatReply(engine, choices, n)


def _chat_text(
    template: ChatTemplate, request: ChatRequest, tools: list[dict[str, Any]] | None
) -> str:
    extra = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        extra.setdefault("reasoning_effort", request.reasoning_effort)
    return template.render(request.messages, tools, extra)


def _wanted_tokens(request: ChatRequest) -> int | None:
    newer, older = request.max_completion_tokens, request.max_tokens
    wanted = older if newer is None else newer
    if wanted == 0:
        raise bad_request("max_tokens must be at least 1 for a chat", "max_tokens")
    return wanted


def _tools(request: ChatRequest) -> list[dict[str, Any]] | None:
    """The tools shown to the model; none when the client rules them out."""
    choice = request.tool_choice
    if not request.tools:
        if choice in (None, "none", "auto"):
            return None
        raise bad_request("tool_choice is given without tools", "tool_choice")
    if choice == "none":
        return None
    if choice not in (None, "auto"):
        raise bad_request(
            "This worker cannot force a tool call yet; use tool_choice auto or none",
            "tool_choice",
        )
    return request.tools


def _chat_logprobs(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    return None


async def completions(
    engine: Engine, encoder: Encoder, request: CompletionRequest, scope: str
) -> CompletionReply:
    """A plain completion of every prompt, checked and ready to run."""
    check(request)
    _check_completion(request)
    assert request.prompt is not None
    prompts = await read_prompts(engine, encoder, request.prompt, "prompt")
    wanted = DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
    params = sampling(request, engine.info.vocab_size, request.logprobs)
    n = request.n or 1
    scores_prompt = bool(request.echo) and request.logprobs is not None
    choices = [
        Choice(
            index,
            GenerateRequest(
                prompt.tokens,
                room(engine, prompt.tokens, wanted or 1, "prompt"),
                _seeded(params, index % n),
                scope,
                scores_prompt,
            ),
            engine.tokenizer,
            stops(request),
            generates=wanted != 0,
        )
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(n))
    ]
    return CompletionReply(engine, choices, n, prompts if request.echo else None)


def _check_completion(request: CompletionRequest) -> None:
    if request.prompt is None:
        raise bad_request("prompt is required", "prompt")
    if request.suffix is not None:
        raise bad_request("This worker cannot fill in before a suffix yet", "suffix")
    if request.best_of not in (None, request.n or 1):
        raise bad_request("best_of must be equal to n: this worker ranks no answers", "best_of")
    if request.logprobs is not None:
        check_range("logprobs", request.logprobs, 0, MAX_LOGPROBS)


def _seeded(params: SamplingParams, choice: int) -> SamplingParams:
    """With one seed for all, the choices of one prompt would all be the same."""
    if params.seed is None or choice == 0:
        return params
    return replace(params, seed=params.seed + choice)
