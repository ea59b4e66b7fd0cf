"""What the engine brings in steps is one answer, however it is cut, streamed or whole."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.echo.tokenizer import IM_END, IM_START, VOCAB_SIZE, ByteTokenizer
from backends.serving.choices import Choice, Delta
from backends.serving.engine import (
    Engine,
    EngineError,
    GenerateRequest,
    ModelInfo,
    Progress,
    SamplingParams,
    Token,
)
from backends.serving.generation import follow_all
from backends.serving.openai import ChatReply, CompletionReply
from backends.serving.prompts import Prompt
from backends.serving.tools import HERMES, AnswerReader, Dialect, Thinking, Tool

CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


class ScriptedEngine:
    """Plays the same steps for every request, and remembers what was closed."""

    info = ModelInfo("m", 100, 100, VOCAB_SIZE, frozenset({"chat"}), None, "", "")
    tokenizer = ByteTokenizer()

    def __init__(self, steps: list[Progress], error: EngineError | None = None) -> None:
        self.steps = steps
        self.error = error
        self.num_open = 0
        self.num_steps = 0

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Progress]:
        self.num_open += 1
        try:
            for step in self.steps:
                self.num_steps += 1
                yield step
            if self.error is not None:
                raise self.error
        finally:
            self.num_open -= 1

    @classmethod
    def of(cls, text: str, cuts: list[int] | None = None, reason: Any = "stop") -> "ScriptedEngine":
        data = text.encode()
        edges = [0, *(cuts if cuts is not None else range(1, len(data))), len(data)]
        tokens = [
            tuple(Token(byte, -1.0, ((byte, -1.0),)) for byte in data[i:j])
            for i, j in pairwise(edges)
        ]
        steps = [Progress(part, num_cached_tokens=2) for part in tokens]
        return cls([*steps[:-1], replace(steps[-1], finish_reason=reason)])


def a_reader(max_calls: int | None = None) -> AnswerReader:
    tools = [Tool("f", {"type": "object"})]
    return AnswerReader(Dialect(HERMES), tools, is_thinking=False, max_calls=max_calls)


def choice(index: int = 0, **fields: Any) -> Choice:
    sampling = SamplingParams(logprobs=fields.pop("logprobs", None))
    return Choice(index, GenerateRequest([1, 2, 3], 50, sampling), ByteTokenizer(), **fields)


async def whole(engine: ScriptedEngine, *choices: Choice) -> dict[str, Any]:
    reply = ChatReply(cast(Engine, engine), choices, len(choices))

    async def collect(choice: Choice, delta: Delta) -> None:
        reply.collect(choice, delta)

    await follow_all(cast(Engine, engine), choices, collect)
    answer: dict[str, Any] = json.loads(reply.body())
    return answer


async def events(engine: ScriptedEngine, *choices: Choice, usage: bool = False) -> list[Any]:
    reply = ChatReply(cast(Engine, engine), choices, len(choices))
    reply.start_stream(usage)
    sent = b""

    async def emit(choice: Choice, delta: Delta) -> None:
        nonlocal sent
        data, is_last = reply.chunk(choice, delta)
        sent += data
        assert is_last == data.endswith(b"data: [DONE]\n\n")

    await follow_all(cast(Engine, engine), choices, emit)
    lines = sent.decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def joined(chunks: list[Any], index: int = 0) -> dict[str, Any]:
    """A stream's chunks, put together by the rules of the API."""
    mine = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
    assert [c["delta"].get("role") for c in mine] == ["assistant"] + [None] * (len(mine) - 1)
    reasons = [c["finish_reason"] for c in mine if c["finish_reason"] is not None]
    assert reasons == [mine[-1]["finish_reason"]]
    calls: list[dict[str, str]] = []
    for part in (call for c in mine for call in c["delta"].get("tool_calls", [])):
        if "id" in part:
            assert part["index"] == len(calls)
            calls.append(dict(part["function"]))
        else:
            assert part["index"] == len(calls) - 1
            assert set(part["function"]) == {"arguments"}
            calls[-1]["arguments"] += part["function"]["arguments"]
    return {
        "content": "".join(c["delta"].get("content", "") for c in mine),
        "calls": calls,
        "logprobs": [t for c in mine if c["logprobs"] for t in c["logprobs"]["content"]],
        "finish_reason": reasons[0],
    }


def plain(answer: dict[str, Any], index: int = 0) -> dict[str, Any]:
    found = answer["choices"][index]
    return {
        "content": found["message"]["content"] or "",
        "calls": [call["function"] for call in found["message"].get("tool_calls", [])],
        "logprobs": (found["logprobs"] or {}).get("content", []),
        "finish_reason": found["finish_reason"],
    }


@given(
    st.lists(st.sampled_from(["a", "é", "😀", " ", "\n", "ST", "STOP", CALL, "<tool"]), max_size=8)
    .map("".join)
    .filter(bool),
    st.data(),
    st.sampled_from([(), ("STOP",), ("é", "\n")]),
    st.booleans(),
    st.sampled_from([None, 1]),
)
async def test_streamed_and_whole_are_the_same(
    text: str, data: st.DataObject, stops: Any, tools: bool, logprobs: Any
) -> None:
    size = len(text.encode())
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=10)))
    answers = []
    for cut in (cuts, [], None):
        for read in (whole, events):
            made = choice(stops=stops, reader=a_reader() if tools else None, logprobs=logprobs)
            answer: Any = await read(ScriptedEngine.of(text, cut), made)
            answers.append(joined(answer) if read is events else plain(answer))
    assert all(answer == answers[0] for answer in answers)


async def test_scores_tell_the_text_that_was_sent() -> None:
    answer = plain(
        await whole(ScriptedEngine.of("café STOP now"), choice(stops=["STOP"], logprobs=0))
    )
    assert answer["content"] == "café "
    scored = bytes(byte for token in answer["logprobs"] for byte in token["bytes"])
    assert scored == "café ".encode()


async def test_a_stop_ends_the_sequence() -> None:
    engine = ScriptedEngine.of("aXbbbbbbbb", reason="length")
    made = choice(stops=["X"])
    assert plain(await whole(engine, made))["finish_reason"] == "stop"
    assert (engine.num_open, engine.num_steps, made.num_tokens) == (0, 2, 2)


async def test_tokens_behind_a_stop_in_the_same_step_do_not_count() -> None:
    made = choice(stops=["X"])
    answer = await whole(ScriptedEngine.of("aXbbb", []), made)
    assert answer["usage"]["completion_tokens"] == 2


async def test_a_call_gives_its_finish_reason_and_no_content() -> None:
    answer = await whole(ScriptedEngine.of(CALL), choice(reader=a_reader()))
    found = answer["choices"][0]
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] is None
    [call] = found["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"].startswith("call_")


async def test_a_call_that_was_cut_off_is_length() -> None:
    engine = ScriptedEngine.of(CALL[:-13], reason="length")
    answer = plain(await whole(engine, choice(reader=a_reader())))
    assert (answer["content"], answer["finish_reason"]) == ("", "length")
    [call] = answer["calls"]
    assert call["arguments"].startswith("{")


async def test_one_call_at_most_ends_the_sequence() -> None:
    engine = ScriptedEngine.of(CALL + CALL)
    answer = plain(await whole(engine, choice(reader=a_reader(1))))
    assert len(answer["calls"]) == 1
    assert answer["finish_reason"] == "tool_calls"
    assert engine.num_steps == CALL.index("}") + 1


async def test_usage_counts_a_prompt_once_and_every_answer() -> None:
    chunks = await events(
        ScriptedEngine.of("abc"), *(choice(index) for index in range(3)), usage=True
    )
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 9,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert [joined(chunks, index)["content"] for index in range(3)] == ["abc"] * 3


async def test_usage_only_where_asked_for() -> None:
    assert not any("usage" in chunk for chunk in await events(ScriptedEngine.of("abc"), choice()))


async def test_one_failure_ends_all_choices() -> None:
    engine = ScriptedEngine([], EngineError("unavailable", "no room"))
    with pytest.raises(EngineError, match="no room"):
        await whole(engine, choice(0), choice(1))
    assert engine.num_open == 0


async def test_an_answer_that_just_ends_is_a_failure() -> None:
    engine = ScriptedEngine([Progress((Token(65),))])
    with pytest.raises(EngineError, match="without saying why"):
        await whole(engine, choice())


async def test_minus_infinity_is_still_json() -> None:
    token = Token(65, float("-inf"), ((65, float("-inf")),))
    engine = ScriptedEngine([Progress((token,), "stop")])
    answer = await whole(engine, choice(logprobs=1))
    assert answer["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


async def test_an_echoed_prompt_is_scored_before_the_answer() -> None:
    scores = (None, Token(2, -0.5), Token(3, -0.25))
    made = Choice(
        0, GenerateRequest(list("éa".encode()), 5, SamplingParams(logprobs=0)), ByteTokenizer()
    )
    engine = cast(Engine, ScriptedEngine([]))
    reply = CompletionReply(engine, [made], 1, [Prompt(made.request.prompt, "éa")])
    reply.collect(made, made.take(Progress((), prompt_logprobs=scores)))
    reply.collect(made, made.take(Progress((Token(66, -1.0),), "length")))
    found = json.loads(reply.body())["choices"][0]
    assert found["text"] == "éaB"
    assert found["logprobs"]["token_logprobs"] == [None, -0.5, -0.25, -1.0]
    assert found["logprobs"]["text_offset"] == [0, 0, 1, 2]


async def test_no_tokens_wanted_gives_none() -> None:
    made = choice(generates=False)
    answer = await whole(ScriptedEngine.of("abc"), made)
    assert plain(answer)["content"] == ""
    assert answer["usage"]["completion_tokens"] == 0


THINKER = Dialect(None, Thinking("<|im_start|>", "<|im_end|>"))


def thinking(logprobs: int | None = None) -> Choice:
    reader = AnswerReader(THINKER, (), is_thinking=False)
    shown = {IM_START: b"<|im_start|>", IM_END: b"<|im_end|>"}
    return choice(reader=reader, shown=shown, logprobs=logprobs)


def thoughts() -> ScriptedEngine:
    tokens = [IM_START, *b"hm\n", IM_END, *b"\n\nYes <3"]
    steps = [Progress((Token(token),)) for token in tokens]
    return ScriptedEngine([*steps, Progress((), "stop")])


async def test_reasoning_between_control_tokens_is_apart() -> None:
    answer = await whole(thoughts(), thinking())
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes <3", "hm")
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2}
    deltas = [chunk["choices"][0]["delta"] for chunk in await events(thoughts(), thinking())]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [d["reasoning_content"] for d in deltas if "reasoning_content" in d] == ["h", "m"]
    assert "".join(d.get("content", "") for d in deltas) == "Yes <3"


async def test_nothing_ends_an_answer_before_its_least_tokens() -> None:
    engine = ScriptedEngine.of("a.b.c.d")  # a byte a token
    held = choice(stops=["."], min_tokens=2)
    assert plain(await whole(engine, held))["content"] == "a.b"
    held = choice(stop_tokens=frozenset(b"."), min_tokens=2)
    assert plain(await whole(engine, held))["content"] == "a.b"
    begun_before = choice(stops=["b.c"], min_tokens=3)  # what is said cannot be taken back
    assert plain(await whole(engine, begun_before))["content"] == "a.b.c.d"
