"""Requests through the real server to real workers."""

from __future__ import annotations

import concurrent.futures
import sys
from pathlib import Path

import httpx
import openai
import pytest

from tests.system.conftest import PATIENCE_S, eventually

SERVER = Path(__file__).with_name("command_server.py")
ECHO = """
max_loaded: {max_loaded}
models:
  a: {{engine: echo, aliases: [gpt-x], options: {{load_s: 0.2}}}}
  b: {{engine: echo, options: {{load_s: 0.2}}}}
"""


def client(swapper):
    return openai.OpenAI(base_url=f"{swapper.url}/v1", api_key="none", max_retries=0)


def ask(api, model, text, **fields):
    messages = [{"role": "user", "content": text}]
    return api.chat.completions.create(model=model, messages=messages, **fields)


def test_the_openai_client_chats_with_two_models_in_turn(serve):
    with client(serve(ECHO.format(max_loaded=1))) as api:
        for n in range(3):
            for model in ("a", "gpt-x", "b"):
                stream = ask(api, model, f"round {n} to {model}", stream=True)
                text = "".join(e.choices[0].delta.content or "" for e in stream if e.choices)
                assert text == f"round {n} to {model}"
        assert [model.id for model in api.models.list()] == ["a", "b"]


def test_only_as_many_are_loaded_as_fit(serve):
    swapper = serve(ECHO.format(max_loaded=1))
    for model in "abab":
        assert swapper.chat(model).status_code == 200
        assert list(swapper.workers()) == [model]


def test_memory_is_a_limit_like_max_loaded(serve):
    swapper = serve("""
memory: {host: 300MiB}
models:
  a: {engine: echo, memory: {host: 200MiB}}
  b: {engine: echo, memory: {host: 200MiB}}
  small: {engine: echo, memory: {host: 50MiB}}
  large: {engine: echo, memory: {host: 400MiB}}
""")
    assert [swapper.chat(m).status_code for m in ("a", "small", "b")] == [200] * 3
    assert sorted(swapper.workers()) == ["b", "small"]
    refused = swapper.chat("large")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_large")
    assert (
        "400" in refused.json()["error"]["message"] or "0.39" in refused.json()["error"]["message"]
    )
    assert sorted(swapper.workers()) == ["b", "small"]


def test_twenty_clients_at_once(serve):
    swapper = serve(ECHO.format(max_loaded=0))
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: swapper.chat("ab"[n % 2], f"number {n}"), range(60)))
    texts = [answer.json()["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [f"number {n}" for n in range(60)]


def test_timings_and_names_are_in_the_head(serve):
    swapper = serve(ECHO.format(max_loaded=1))
    swapper.chat("b")
    answer = swapper.chat("gpt-x")
    head = answer.headers
    assert (head["x-swapper-model"], head["x-swapper-engine"]) == ("a", "echo")
    assert float(head["x-swapper-load-ms"]) >= 200
    assert float(head["x-swapper-queue-ms"]) >= float(head["x-swapper-load-ms"])
    assert head["x-request-id"]


def test_idle_past_its_ttl_a_model_is_unloaded(serve):
    swapper = serve("models: {a: {engine: echo, ttl: 300ms}}")
    assert swapper.chat("a").status_code == 200
    eventually(lambda: not swapper.workers())


def test_preload_and_unload(serve):
    swapper = serve("models: {a: {engine: echo, preload: true}}")
    eventually(lambda: "a" in swapper.workers())
    done = httpx.post(f"{swapper.url}/swapper/v1/models/a/unload", timeout=PATIENCE_S)
    assert done.status_code == 200
    assert not swapper.workers()


def test_a_command_is_a_model_like_any_other(serve, tmp_path):
    swapper = serve(f"""
models:
  foreign:
    engine: command
    cmd: {sys.executable} {SERVER} ${{port}} 0.3
    env: {{GREETING: hello}}
    cwd: {tmp_path}
    upstream_model: org/its-own-name
    api_key: secret
""")
    answer = swapper.chat("foreign").json()
    assert answer == {"model": "org/its-own-name", "key": "Bearer secret"}
    direct = swapper.get("/upstream/foreign/anything?x=1").json()
    assert direct == {"env": "hello", "cwd": str(tmp_path)}


def test_a_url_is_a_model_like_any_other(serve):
    other = serve("models: {inner: {engine: echo}}")
    swapper = serve(
        f"models: {{outer: {{engine: url, url: '{other.url}', upstream_model: inner}}}}"
    )
    assert (
        swapper.chat("outer", "far away").json()["choices"][0]["message"]["content"] == "far away"
    )


def test_keys_are_asked_for(serve):
    swapper = serve("""
api_keys: ["sesame", {name: bob, key: "open"}]
models: {a: {engine: echo}}
""")
    assert swapper.get("/v1/models").status_code == 401
    assert swapper.get("/health").status_code == 200
    for headers in ({"authorization": "Bearer open"}, {"x-api-key": "sesame"}):
        assert httpx.get(f"{swapper.url}/v1/models", headers=headers).status_code == 200
    assert "sesame" not in swapper.output()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
def test_an_unknown_model_is_a_404_that_names_the_nearest(serve, path):
    swapper = serve("models: {qwen-coder: {engine: echo}}")
    body = {"model": "qwen-codr", "messages": [], "prompt": "x", "input": "x"}
    answer = httpx.post(swapper.url + path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "qwen-coder" in answer.json()["error"]["message"]
