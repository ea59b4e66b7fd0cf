"""What OpenAI's own client makes of a worker, over TCP."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.echo.worker_process import WorkerProcess

openai: Any = pytest.importorskip("openai")

MESSAGES = [{"role": "user", "content": "Grüße 😀"}]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with WorkerProcess({"model": "parrot"}, f"tcp:127.0.0.1:{port}") as worker:
        worker.ready()
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none") as client:
            yield client


def test_chat(client: Any) -> None:
    answer = client.chat.completions.create(
        model="parrot", messages=MESSAGES, n=2, logprobs=True, top_logprobs=1, seed=1
    )
    assert [choice.message.content for choice in answer.choices] == ["Grüße 😀"] * 2
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens // 2


def test_a_stream_accumulates_to_the_same_answer(client: Any) -> None:
    with client.chat.completions.stream(
        model="parrot", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        stream.until_done()
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "Grüße 😀"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens > 0


def test_tool_calls_accumulate(client: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    calls = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>' * 2
    with client.chat.completions.stream(
        model="parrot", messages=[{"role": "user", "content": calls}], tools=[tool]
    ) as stream:
        stream.until_done()
        message = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in message.tool_calls] == ['{"a": 1}'] * 2
    assert len({call.id for call in message.tool_calls}) == 2


def test_completions_embeddings_models(client: Any) -> None:
    assert client.completions.create(model="parrot", prompt="abc").choices[0].text == "abc"
    assert len(client.embeddings.create(model="parrot", input="abc").data[0].embedding) == 16
    assert client.models.retrieve("parrot").id == "parrot"
    assert [model.id for model in client.models.list()] == ["parrot"]


def test_errors_are_of_the_right_class(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model="parrot", messages=[{"role": "user", "content": "x" * 5000}]
        )
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
