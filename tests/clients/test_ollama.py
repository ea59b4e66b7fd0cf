"""The `ollama` package, as chat UIs and scripts use it."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.clients.conftest import KEY
from tests.clients.scripted import ScriptedServer

ollama = pytest.importorskip("ollama", reason="the package `ollama` is not installed")

HELLO = [{"role": "user", "content": "What is swapper?"}]
EXACT = {"temperature": 0, "num_predict": 48}
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Any]:
    client = ollama.Client(host=url, headers={"Authorization": f"Bearer {KEY}"})
    yield client
    client.close()


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return f"rain in {city}"


def test_a_demo_model_answers_the_same_streamed_or_not(api: Any, demo: str) -> None:
    began = time.monotonic()
    whole = api.chat(demo, messages=HELLO, options=EXACT)
    took_ns = (time.monotonic() - began) * 1e9
    parts = list(api.chat(f"{demo}:latest", messages=HELLO, options=EXACT, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content != ""
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert last.model == f"{demo}:latest"
    assert last.done_reason == whole.done_reason in ("stop", "length")
    assert last.eval_count == whole.eval_count > 0
    assert last.prompt_eval_count == whole.prompt_eval_count > 0
    assert abs(datetime.fromisoformat(last.created_at) - datetime.now(UTC)).total_seconds() < 60
    spans = whole.load_duration + whole.prompt_eval_duration + whole.eval_duration
    assert 0 < spans <= whole.total_duration <= took_ns
    assert whole.eval_duration > 0


def test_an_answer_that_the_client_has_begun(api: Any, demo: str) -> None:
    options = {"temperature": 0, "num_predict": 40}
    question = {"role": "user", "content": "What is swapper?"}
    whole = api.chat(demo, [question], options=options).message.content
    begun = whole[: whole.index(" ", len(whole) // 3)]
    talk = [question, {"role": "assistant", "content": begun}]
    rest = api.chat(demo, talk, options=options).message.content
    assert (begun + rest).startswith(whole)


def test_a_generation_and_one_that_goes_on_from_it(api: Any, demo: str) -> None:
    asked = "What is swapper?"
    whole = api.generate(demo, prompt=asked, options=EXACT)
    parts = list(api.generate(demo, prompt=asked, options=EXACT, stream=True))
    assert "".join(part.response for part in parts) == whole.response
    assert whole.response == api.chat(demo, messages=HELLO, options=EXACT).message.content
    assert parts[-1].context == whole.context
    more = api.generate(demo, prompt="And?", context=whole.context, options=EXACT)
    said = [*HELLO, {"role": "assistant", "content": whole.response}]
    same = api.chat(demo, messages=[*said, {"role": "user", "content": "And?"}], options=EXACT)
    assert more.response == same.message.content
    assert more.prompt_eval_count == same.prompt_eval_count


def test_raw_prompts_are_not_put_into_the_template(api: Any) -> None:
    found = api.generate("echo", prompt="one two", raw=True, options={"num_predict": 3})
    assert found.response == "one"
    assert found.done_reason == "length"
    assert found.eval_count == 3
    assert found.context is None


def test_logprobs(api: Any, demo: str) -> None:
    """The same of a raw prompt as of a chat's, as it is the same answer."""
    scored = {"logprobs": True, "top_logprobs": 2, "options": {**EXACT, "num_predict": 6}}
    for fields in ({"raw": True}, {}):
        whole = api.generate(demo, prompt="Swapper is", **fields, **scored)
        assert "".join(score.token for score in whole.logprobs) == whole.response
        assert {len(score.top_logprobs) for score in whole.logprobs} == {2}
        assert all(score.logprob == score.top_logprobs[0].logprob for score in whole.logprobs)
        parts = api.generate(demo, prompt="Swapper is", stream=True, **fields, **scored)
        assert [score for part in parts for score in part.logprobs or ()] == whole.logprobs


def test_a_conversation_with_tools(api: Any, scripted: ScriptedServer) -> None:
    messages: list[Any] = [{"role": "user", "content": "weather?"}]
    first = api.chat("scripted", messages=messages, tools=[get_weather], think=True)
    streamed = list(api.chat("scripted", messages=messages, tools=[get_weather], stream=True))
    calls = [call for part in streamed for call in part.message.tool_calls or ()]
    assert calls == first.message.tool_calls
    assert "".join(part.message.thinking or "" for part in streamed) == "The tool knows."
    assert first.message.thinking == "The tool knows."
    (call,) = calls
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Oslo"})
    messages += [first.message, {"role": "tool", "content": "rainy", "tool_name": "get_weather"}]
    second = api.chat("scripted", messages=messages, tools=[get_weather])
    assert second.message.content == "It is rainy in Oslo."
    seen = scripted.seen[-1]["messages"]
    assert seen[1]["tool_calls"][0]["id"] == seen[2]["tool_call_id"]
    assert seen[1]["tool_calls"][0]["function"]["arguments"] == '{"city":"Oslo"}'
    assert scripted.seen[-1]["tools"][0]["function"]["parameters"]["required"] == ["city"]


def test_a_schema_and_json(api: Any, demo: str, scripted: ScriptedServer) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    found = api.chat(demo, messages=HELLO, format=schema, options={"num_predict": 64})
    assert '"answer"' in found.message.content
    api.chat("scripted", messages=HELLO, format="json")
    assert scripted.seen[-1]["response_format"] == {"type": "json_object"}


def test_pictures(api: Any, scripted: ScriptedServer) -> None:
    api.chat("scripted", messages=[{"role": "user", "content": "what?", "images": [PIXEL]}])
    part = scripted.seen[-1]["messages"][0]["content"][1]
    address = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    assert part == {"type": "image_url", "image_url": {"url": address}}


def test_embeddings(api: Any) -> None:
    found = api.embed("echo", input=["one", "two", "one"])
    assert found.embeddings[0] == found.embeddings[2] != found.embeddings[1]
    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-6) for vector in found.embeddings)
    assert found.prompt_eval_count > 0
    assert found.total_duration > 0
    older = api.embeddings("echo", prompt="one").embedding
    assert list(older) == pytest.approx(found.embeddings[0])


def test_lists_and_what_a_model_is(api: Any, demo: str) -> None:
    listed = {model.model: model for model in api.list().models}
    assert {demo, f"{demo}:precise", "echo", "scripted", "local-claude"} <= set(listed)
    assert listed[demo].details.format == ("gguf" if demo == "demo-chat" else "safetensors")
    assert listed[demo].details.quantization_level == "F16"
    assert listed[demo].size > 1_000_000
    shown = api.show(demo)
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown.capabilities)
    assert "num_ctx" in shown.parameters
    assert api.show("scripted").modelinfo


def test_loads_stays_and_unloads(api: Any) -> None:
    def left_s() -> float | None:
        for model in api.ps().models:
            if model.model == "echo":
                return (model.expires_at - datetime.now(UTC)).total_seconds()
        return None

    def gone() -> bool:
        deadline = time.monotonic() + 30
        while left_s() is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        return left_s() is None

    loaded = api.generate("echo", keep_alive="1h30m")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    assert 5300 < left_s() <= 5400
    api.chat("echo", messages=HELLO)  # says nothing of it
    assert 5300 < left_s() <= 5400
    api.embed("echo", input="x", keep_alive=60)
    assert 50 < left_s() <= 60
    (running,) = [model for model in api.ps().models if model.model == "echo"]
    assert running.size > 0
    assert running.size_vram == 0
    api.chat("echo", messages=HELLO, keep_alive=-1)
    assert left_s() > 20 * 365 * 86400
    unloaded = api.chat("echo", messages=[], keep_alive=0)
    assert unloaded.done_reason == "unload"
    assert gone()
    assert api.generate("echo", keep_alive=0).done_reason == "unload"
    assert left_s() is None  # and it was not loaded for that
    assert api.chat("echo", messages=HELLO, keep_alive=0).message.content
    assert gone()


@pytest.mark.parametrize("stream", [True, False])
def test_errors(api: Any, url: str, stream: bool) -> None:
    def refused(model: str, client: Any = api, **fields: Any) -> Any:
        asked = {"messages": HELLO, **fields, "stream": stream}
        with pytest.raises(ollama.ResponseError) as caught:  # of a stream, when it is read
            list(client.chat(model, **asked))
        return caught.value

    unknown = refused("eco")
    assert unknown.status_code == 404
    assert "model 'eco' not found; did you mean 'echo'?" in unknown.error
    overflow = refused("scripted", messages=[{"role": "user", "content": "too long"}])
    assert overflow.status_code == 400
    assert "maximum context length is 100 tokens" in overflow.error
    assert refused("echo", options={"temperature": -5}).status_code == 400
    assert refused("echo", keep_alive="soon").status_code == 400
    stranger = ollama.Client(host=url, headers={"Authorization": "Bearer wrong"})
    assert refused("echo", stranger).status_code == 401
    stranger.close()


def test_what_is_done_elsewhere_says_where(api: Any) -> None:
    acts = [
        (lambda: api.pull("llama3"), "swapper pull"),
        (lambda: api.push("llama3"), "not sent"),
        (lambda: api.create("mine", from_="echo"), "swapper create"),
        (lambda: api.copy("echo", "mine"), "aliases"),
        (lambda: api.delete("echo"), "configuration"),
        (lambda: api.generate("echo", prompt="x", template="{{ .Prompt }}"), "Go's language"),
    ]
    for act, words in acts:
        with pytest.raises(ollama.ResponseError, match=words) as caught:
            act()
        assert caught.value.status_code in (400, 501)


async def test_the_asynchronous_client(url: str) -> None:
    client = ollama.AsyncClient(host=url, headers={"Authorization": f"Bearer {KEY}"})
    parts = [part async for part in await client.chat("echo", messages=HELLO, stream=True)]
    assert "".join(part.message.content for part in parts) == "What is swapper?"
    await client.close()
