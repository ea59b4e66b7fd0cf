"""From a parsed request to the choices the engine runs, and the reply they fill."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from backends.serving.at_least import AtLeast
from backends.serving.chat import chat_text, continued_text
from backends.serving.choices import Choice
from backends.serving.engine import (
    CanSee,
    Engine,
    GenerateRequest,
    Grammar,
    SamplingParams,
    SeenPrompt,
)
from backends.serving.errors import bad_request
from backends.serving.model import ServedModel
from backends.serving.openai import ChatReply, CompletionReply
from backends.serving.pictures import with_marks
from backends.serving.prompts import checked_tokens, infill_prompts, read_prompts, room
from backends.serving.requests import (
    MAX_LOGPROBS,
    ChatRequest,
    CompletionRequest,
    Generation,
    check,
    check_range,
    sampling,
    stops,
)
from backends.serving.structure import content_rules
from backends.serving.toolbox import Toolbox, read_toolbox
from backends.serving.tools import AnswerReader, Dialect, Wanted, answer_rules, writer

DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, where a plain completion names no limit


async def chat(model: ServedModel, request: ChatRequest, scope: str) -> ChatReply:
    """A chat completion, checked and ready to run."""
    check(request)
    engine, template = model.engine, model.template
    toolbox = read_toolbox(request)
    request, pictures = with_marks(request) if engine.info.sees else (request, None)
    text = chat_text(template, request)
    # A template that writes BOS itself must not get a second one from the tokenizer.
    bos = engine.info.bos_token
    writes_bos = bool(bos) and text.startswith(bos)
    if pictures:
        assert isinstance(engine, CanSee)
        prompt = await engine.see(pictures.parts(text), add_special=not writes_bos)
    else:
        prompt = SeenPrompt(await model.encoder.encode(text, add_special=not writes_bos))
    max_tokens = room(engine, prompt.tokens, _wanted_tokens(request), "messages")
    begun = _begun(model.dialect, text, continued_text(request))
    grammar = await _chat_grammar(model, request, toolbox, begun)
    grammar = _long_enough(model, request, _wanted_tokens(request), grammar)
    params = sampling(request, engine.info.vocab_size, _chat_logprobs(request), grammar)
    n = request.n or 1
    choices = [
        Choice(
            index,
            GenerateRequest(
                prompt.tokens, max_tokens, _seeded(params, index), scope, images=prompt.images
            ),
            engine.tokenizer,
            stops(request),
            *_reading(model, toolbox, begun),
            stop_tokens=_stop_tokens(engine, request),
            min_tokens=request.min_tokens or 0,
        )
        for index in range(n)
    ]
    return ChatReply(engine, choices, n)


def _begun(dialect: Dialect, prompt: str, continued: str | None) -> str | None:
    """What of the prompt tells whether the answer is thinking; None where it is past that, because the
    client has begun it."""
    if continued is None:
        return prompt
    thinking = dialect.thinking
    if thinking is not None and continued.rfind(thinking.begin) > continued.rfind(thinking.end):
        return thinking.begin
    return None


async def _chat_grammar(
    model: ServedModel, request: ChatRequest, toolbox: Toolbox, prompt: str | None
) -> Grammar | None:
    """What the answer must follow, if the request asks for anything of it."""
    content, param = content_rules(request) or (None, "tools")
    dialect = model.dialect
    if toolbox.forced:
        wanted = Wanted(None, toolbox.forced, toolbox.is_single)
        param = "tools"
    elif content is not None:
        wanted = Wanted(content, toolbox.shown, toolbox.is_single)
    elif toolbox.is_strict or (toolbox.shown and not model.template.shows_tools):
        wanted = Wanted(None, toolbox.shown, toolbox.is_single, may_talk=True)
    else:
        return None
    if prompt is None and dialect.is_harmony and wanted.tools:
        raise bad_request("This model calls no tools in an answer that has begun", param)
    # On a thread: schemas may be of any size, and texts in them are looked into.
    write = writer(model.controls)
    rules = await asyncio.to_thread(answer_rules, dialect, wanted, write, prompt=prompt)
    return await model.compile(rules, param)


def _reading(
    model: ServedModel, toolbox: Toolbox, prompt: str | None
) -> tuple[AnswerReader | None, Mapping[int, bytes]]:
    """What splits one answer, and the control tokens that it must see to do so."""
    dialect = model.dialect
    if not toolbox.shown and not dialect.is_harmony:
        dialect = replace(dialect, calls=None)
    if dialect.calls is None and dialect.thinking is None:
        return None, {}
    reader = AnswerReader(
        dialect,
        toolbox.shown,
        is_thinking=prompt is not None and dialect.is_thinking(prompt),
        max_calls=1 if toolbox.is_single else None,
    )
    controls = model.controls
    return reader, {controls[it]: it.encode() for it in dialect.markers if it in controls}


def _long_enough(
    model: ServedModel, request: Generation, wanted: int | None, grammar: Grammar | None
) -> Grammar | None:
    """`grammar` under which the answer gets its `min_tokens`."""
    least = request.min_tokens
    if not least:
        return grammar
    if wanted is not None and 0 <= wanted < least:
        raise bad_request(
            f"min_tokens must be at most max_tokens, {wanted}; it is {least}", "min_tokens"
        )
    ends = model.ends | _stop_tokens(model.engine, request)
    return AtLeast(least, ends, model.engine.info.vocab_size, grammar)


def _stop_tokens(engine: Engine, request: Generation) -> frozenset[int]:
    return frozenset(checked_tokens(engine, request.stop_token_ids or (), "stop_token_ids"))


def _wanted_tokens(request: ChatRequest) -> int | None:
    newer, older = request.max_completion_tokens, request.max_tokens
    wanted = older if newer is None else newer
    if wanted == 0:
        raise bad_request("max_tokens must be at least 1 for a chat", "max_tokens")
    return wanted


def _chat_logprobs(request: ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise bad_request("top_logprobs needs logprobs to be true", "top_logprobs")
    return None


async def completions(
    model: ServedModel, request: CompletionRequest, scope: str
) -> CompletionReply:
    """A plain completion of every prompt, checked and ready to run."""
    check(request)
    _check_completion(request)
    assert request.prompt is not None
    engine = model.engine
    if request.suffix is None:
        prompts = await read_prompts(engine, model.encoder, request.prompt, "prompt")
    else:
        prompts = await infill_prompts(engine, model.encoder, request.prompt, request.suffix)
    wanted = DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
    grammar = await _content_grammar(model, request)
    grammar = _long_enough(model, request, wanted, grammar)
    params = sampling(request, engine.info.vocab_size, request.logprobs, grammar)
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
            stop_tokens=_stop_tokens(engine, request),
            min_tokens=request.min_tokens or 0,
            generates=wanted != 0,
        )
        for index, prompt in enumerate(prompt for prompt in prompts for _ in range(n))
    ]
    return CompletionReply(engine, choices, n, prompts if request.echo else None)


async def _content_grammar(model: ServedModel, request: CompletionRequest) -> Grammar | None:
    content = content_rules(request)
    if content is None:
        return None
    rules, param = content
    return await model.compile(rules, param)


def _check_completion(request: CompletionRequest) -> None:
    if request.prompt is None:
        raise bad_request("prompt is required", "prompt")
    if request.best_of not in (None, request.n or 1):
        raise bad_request("best_of must be equal to n: this worker ranks no answers", "best_of")
    if request.logprobs is not None:
        check_range("logprobs", request.logprobs, 0, MAX_LOGPROBS)


def _seeded(params: SamplingParams, choice: int) -> SamplingParams:
    """With one seed for all, the choices of one prompt would all be the same."""
    if params.seed is None or choice == 0:
        return params
    return replace(params, seed=params.seed + choice)
