"""The `openai` package's chats, completions and embeddings, asked of both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import KEY

openai: Any = pytest.importorskip("openai", reason="the package `openai` is not installed")

HELLO = [{"role": "user", "content": "What is swapper?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {field: {"enum": values}},
                "required": [field],
                "additionalProperties": False,
            },
        },
    }
    for name, field, values in (("weather", "city", ["Oslo", "Rome"]), ("time", "zone", ["CET"]))
]


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def chat(api: Any, model: str, **fields: Any) -> Any:
    """The one choice of an answer, and what it used."""
    asked = {"messages": HELLO, "temperature": 0, "max_tokens": 100, **fields}
    answer = api.chat.completions.create(model=model, **asked)
    [choice] = answer.choices
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return choice, answer.usage


def streamed(api: Any, model: str, **fields: Any) -> tuple[str, str, Any]:
    """Text, reason and usage of a stream."""
    asked = {"messages": HELLO, "temperature": 0, "max_tokens": 100, **fields}
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(api.chat.completions.create(model=model, **asked, **options))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    [reason] = [choice.finish_reason for choice in choices if choice.finish_reason]
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, reason, chunks[-1].usage


def test_stop_strings(api: Any, demo: str) -> None:
    whole = chat(api, demo)[0].message.content
    word = whole.split()[3]
    stopped, usage = chat(api, demo, stop=["never said", word])
    assert stopped.message.content == whole[: whole.index(word)]
    assert stopped.finish_reason == "stop"
    assert streamed(api, demo, stop=[word]) == (stopped.message.content, "stop", usage)


def test_no_end_before_the_least_tokens(api: Any, demo: str) -> None:
    ended, usage = chat(api, demo, max_tokens=200)
    assert ended.finish_reason == "stop"
    least = usage.completion_tokens + 20
    longer, used = chat(api, demo, max_tokens=200, extra_body={"min_tokens": least})
    assert longer.message.content.startswith(ended.message.content)
    assert used.completion_tokens >= least
    word = ended.message.content.split()[1]
    past, _ = chat(api, demo, stop=[word], extra_body={"min_tokens": usage.completion_tokens})
    assert word in past.message.content
    schema = {"type": "array", "items": {"enum": [1]}, "maxItems": 30}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    fields = {"max_tokens": 200, "response_format": form}
    listed, used = chat(api, demo, **fields, extra_body={"min_tokens": 20})
    assert used.completion_tokens >= 20
    assert set(json.loads(listed.message.content)) == {1}
    with pytest.raises(openai.BadRequestError, match="min_tokens must be at most max_tokens"):
        chat(api, demo, max_tokens=8, extra_body={"min_tokens": 9})
    [found] = api.completions.create(
        model=demo, prompt="Swapper", max_tokens=30, extra_body={"min_tokens": 30}
    ).choices
    assert found.finish_reason == "length"


def test_a_stream_says_the_same(api: Any, demo: str) -> None:
    whole, usage = chat(api, demo)
    assert streamed(api, demo) == (whole.message.content, whole.finish_reason, usage)
    cut, _ = chat(api, demo, max_tokens=3)
    assert cut.finish_reason == "length"
    newer, _ = chat(api, demo, max_tokens=openai.omit, max_completion_tokens=3)
    assert newer.message.content == cut.message.content


def test_several_choices_by_a_seed(api: Any, demo: str) -> None:
    asked = {"messages": HELLO, "n": 3, "seed": 7, "temperature": 2, "max_tokens": 12}
    first, second = (api.chat.completions.create(model=demo, **asked).choices for _ in range(2))
    texts = [choice.message.content for choice in first]
    assert texts == [choice.message.content for choice in second]
    assert len(set(texts)) > 1
    assert [choice.index for choice in first] == [0, 1, 2]
    pieces = ["", "", ""]
    for chunk in api.chat.completions.create(model=demo, stream=True, **asked):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
    assert pieces == texts


def test_scores_and_biases(api: Any, demo: str) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 6}
    scores = chat(api, demo, **asked)[0].logprobs.content
    assert b"".join(bytes(score.bytes) for score in scores).decode() == "".join(
        score.token for score in scores
    )
    chunks = api.chat.completions.create(
        model=demo, messages=HELLO, temperature=0, stream=True, **asked
    )
    told = [chunk.choices[0].logprobs for chunk in chunks]
    assert [score for each in told if each for score in each.content] == scores
    tokenize = f"{str(api.base_url).removesuffix('/v1/')}/upstream/{demo}/tokenize"
    [first] = api.post(tokenize, body={"content": scores[0].token}, cast_to=object)["tokens"]
    biased = chat(api, demo, logit_bias={str(first): -100}, max_tokens=1)[0].message.content
    assert biased != scores[0].token


@pytest.mark.parametrize("choice", ["none", "required", "named"])
def test_tools(api: Any, demo: str, choice: str) -> None:
    named = {"type": "function", "function": {"name": "time"}}
    asked = {"tools": TOOLS, "tool_choice": named if choice == "named" else choice}
    answer, _ = chat(api, demo, parallel_tool_calls=False, **asked)
    if choice == "none":
        assert answer.message.tool_calls is None
        assert answer.message.content
        return
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert (call.function.name, arguments) in [
        ("weather", {"city": "Oslo"}),
        ("weather", {"city": "Rome"}),
        ("time", {"zone": "CET"}),
    ]
    assert choice != "named" or call.function.name == "time"


def test_completions(api: Any, demo: str) -> None:
    def text(prompt: Any, **fields: Any) -> list[str]:
        asked = {"max_tokens": 6, "temperature": 0, **fields}
        answer = api.completions.create(model=demo, prompt=prompt, **asked)
        return [choice.text for choice in answer.choices]

    [alone] = text("Swapper is")
    assert text(["Swapper is", "A model"]) == [alone, *text("A model")]
    assert text("Swapper is", echo=True) == ["Swapper is" + alone]
    assert text("Swapper is", echo=True, max_tokens=0) == ["Swapper is"]
    assert text([[5, 6, 7], [5, 6]]) == [*text([5, 6, 7]), *text([5, 6])]
    scored = api.completions.create(
        model=demo, prompt="Swapper is", echo=True, logprobs=1, max_tokens=2, temperature=0
    ).choices[0]
    assert "".join(scored.logprobs.tokens) == scored.text
    assert scored.logprobs.token_logprobs[0] is None
    with pytest.raises(openai.BadRequestError) as caught:
        text("a", suffix="b")  # it was never taught to fill in
    assert caught.value.param == "suffix"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"extra_body": {"n_predict": 5}}, "n_predict"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "word " * 20000}]}, "messages"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_wrong_is_named(
    api: Any, demo: str, fields: dict[str, Any], param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.chat.completions.create(
            **{"model": demo, "messages": HELLO, "stream": stream, **fields}
        )
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
