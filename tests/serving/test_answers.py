"""What of a request reaches the engine."""

import json
from dataclasses import replace
from typing import Any

import pytest

from backends.echo.engine import EchoEngine
from backends.echo.options import Options
from backends.serving import answers
from backends.serving.chat import ChatTemplate
from backends.serving.engine import GenerateRequest
from backends.serving.errors import RequestError
from backends.serving.requests import ChatRequest, CompletionRequest, decode

BOS = 256
TOOL = {"type": "function", "function": {"name": "f"}}


def engine(template: str | None = None) -> EchoEngine:
    made = EchoEngine(Options(context=100))
    made.info = replace(made.info, chat_template=template)
    return made


def chat(template: str | None = None, scope: str = "", **fields: Any) -> list[GenerateRequest]:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    made = engine(template)
    request = decode(json.dumps(body).encode(), ChatRequest)
    reply = answers.chat(made, ChatTemplate(made.info), request, scope)
    return [choice.request for choice in reply.choices]


def completions(**fields: Any) -> list[GenerateRequest]:
    request = decode(json.dumps(fields).encode(), CompletionRequest)
    return [choice.request for choice in answers.completions(engine(), request, "key").choices]


def test_prompts_are_shared_only_within_one_key() -> None:
    assert chat(scope="key")[0].cache_scope == "key"
    assert completions(prompt="a")[0].cache_scope == "key"


def test_a_template_s_own_bos_is_the_only_one() -> None:
    assert chat("{{ bos_token }}{{ messages[0].content }}")[0].prompt == [BOS, *b"hi"]
    assert chat("{{ messages[0].content }}")[0].prompt == [BOS, *b"hi"]


def test_choices_of_one_seed_differ_and_repeat() -> None:
    assert [request.sampling.seed for request in chat(n=3, seed=7)] == [7, 8, 9]
    assert [request.sampling.seed for request in chat(n=2)] == [None, None]
    two = completions(prompt=["a", "b"], n=2, seed=7)
    assert [request.sampling.seed for request in two] == [7, 8, 7, 8]


def test_the_newer_name_of_max_tokens_wins() -> None:
    assert chat(max_tokens=5, max_completion_tokens=6)[0].max_tokens == 6
    with pytest.raises(RequestError, match="at least 1"):
        chat(max_tokens=0)


def test_the_answer_never_exceeds_the_context() -> None:
    [request] = chat(max_tokens=32000)
    assert len(request.prompt) + request.max_tokens == 100
    assert completions(prompt=[1] * 90, max_tokens=-1)[0].max_tokens == 10


def test_only_an_echoed_and_scored_prompt_is_scored() -> None:
    assert completions(prompt="a", echo=True, logprobs=0)[0].prompt_logprobs
    assert not completions(prompt="a", echo=True)[0].prompt_logprobs
    assert not completions(prompt="a", logprobs=3)[0].prompt_logprobs


def test_tools_need_a_template_that_shows_them() -> None:
    template = "{{ messages[0].content }}"
    with pytest.raises(RequestError, match="no place for tools") as raised:
        chat(template, tools=[TOOL])
    assert raised.value.param == "tools"
    assert chat(template, tools=[TOOL], tool_choice="none")[0].prompt == [BOS, *b"hi"]
    assert chat(template, tools=[])[0].prompt == [BOS, *b"hi"]


def test_a_tool_choice_without_tools() -> None:
    with pytest.raises(RequestError, match="without tools"):
        chat(tool_choice="required")
    assert chat(tool_choice="auto")
