"""What of a request reaches the engine."""

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import pytest

from backends.echo.engine import EchoEngine
from backends.echo.options import Options
from backends.echo.tokenizer import ByteTokenizer
from backends.serving import answers
from backends.serving.encoder import LONG_TEXT, Encoder
from backends.serving.engine import GenerateRequest
from backends.serving.errors import RequestError
from backends.serving.model import ServedModel
from backends.serving.requests import ChatRequest, CompletionRequest, decode

BOS = 256
TOOL = {"type": "function", "function": {"name": "f"}}


def engine(template: str | None = None, context: int = 100) -> EchoEngine:
    made = EchoEngine(Options(context=context))
    made.info = replace(made.info, chat_template=template)
    return made


async def chat(
    template: str | None = None, scope: str = "", context: int = 100, **fields: Any
) -> list[GenerateRequest]:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    made = engine(template, context)
    request = decode(json.dumps(body).encode(), ChatRequest)
    reply = await answers.chat(ServedModel(made), request, scope)
    return [choice.request for choice in reply.choices]


async def completions(**fields: Any) -> list[GenerateRequest]:
    request = decode(json.dumps(fields).encode(), CompletionRequest)
    reply = await answers.completions(ServedModel(engine()), request, "key")
    return [choice.request for choice in reply.choices]


async def test_prompts_are_shared_only_within_one_key() -> None:
    assert (await chat(scope="key"))[0].cache_scope == "key"
    assert (await completions(prompt="a"))[0].cache_scope == "key"


async def test_a_template_s_own_bos_is_the_only_one() -> None:
    assert (await chat("{{ bos_token }}{{ messages[0].content }}"))[0].prompt == [BOS, *b"hi"]
    assert (await chat("{{ messages[0].content }}"))[0].prompt == [BOS, *b"hi"]


async def test_choices_of_one_seed_differ_and_repeat() -> None:
    assert [request.sampling.seed for request in await chat(n=3, seed=7)] == [7, 8, 9]
    assert [request.sampling.seed for request in await chat(n=2)] == [None, None]
    two = await completions(prompt=["a", "b"], n=2, seed=7)
    assert [request.sampling.seed for request in two] == [7, 8, 7, 8]


async def test_the_newer_name_of_max_tokens_wins() -> None:
    assert (await chat(max_tokens=5, max_completion_tokens=6))[0].max_tokens == 6
    with pytest.raises(RequestError, match="at least 1"):
        await chat(max_tokens=0)


async def test_the_answer_never_exceeds_the_context() -> None:
    [request] = await chat(max_tokens=32000)
    assert len(request.prompt) + request.max_tokens == 100
    assert (await completions(prompt=[1] * 90, max_tokens=-1))[0].max_tokens == 10


async def test_only_an_echoed_and_scored_prompt_is_scored() -> None:
    assert (await completions(prompt="a", echo=True, logprobs=0))[0].prompt_logprobs
    assert not (await completions(prompt="a", echo=True))[0].prompt_logprobs
    assert not (await completions(prompt="a", logprobs=3))[0].prompt_logprobs


async def test_a_template_without_a_place_for_tools_has_them_told() -> None:
    template = "{{ messages[0].content }}"
    told = bytes((await chat(template, context=2000, tools=[TOOL]))[0].prompt[1:]).decode()
    assert told.startswith("You may call functions.")
    assert told.endswith('{"name": "f"}\n\nhi')
    assert (await chat(template, tools=[TOOL], tool_choice="none"))[0].prompt == [BOS, *b"hi"]
    assert (await chat(template, tools=[]))[0].prompt == [BOS, *b"hi"]


async def test_a_tool_choice_without_tools() -> None:
    with pytest.raises(RequestError, match="without tools"):
        await chat(tool_choice="required")
    assert await chat(tool_choice="auto")


class WaitingTokenizer(ByteTokenizer):
    """Does not finish a text before it is let."""

    def __init__(self) -> None:
        self.may_finish = threading.Event()

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        assert self.may_finish.wait(10)
        return super().encode(text, add_special=add_special, parse_special=parse_special)


async def test_a_long_text_does_not_hold_up_the_loop() -> None:
    tokenizer = WaitingTokenizer()
    encoder = Encoder(tokenizer)
    encoding = asyncio.create_task(encoder.encode("x" * LONG_TEXT, add_special=False))
    await asyncio.sleep(0)  # it has begun, and the loop is here again
    tokenizer.may_finish.set()
    assert await encoding == [120] * LONG_TEXT
    await encoder.close()


async def test_a_long_text_that_nobody_waits_for_is_finished_before_the_model_goes() -> None:
    tokenizer = WaitingTokenizer()
    encoder = Encoder(tokenizer)
    encoding = asyncio.create_task(encoder.encode("x" * LONG_TEXT))
    await asyncio.sleep(0)
    encoding.cancel()
    closing = asyncio.create_task(encoder.close())
    with pytest.raises(asyncio.CancelledError):
        await encoding
    assert not closing.done()
    tokenizer.may_finish.set()
    await closing
