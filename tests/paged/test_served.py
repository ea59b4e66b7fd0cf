"""The demo model by the paged engine, behind swapper, asked by the openai package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

openai = pytest.importorskip("openai", reason="the openai package is not installed")

ROOT = Path(__file__).parents[2]
QUESTION = [{"role": "user", "content": "What is swapper?"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("served")
    address, config = folder / "proxy.sock", folder / "config.yaml"
    demo = ROOT / "swapper" / "demo" / "demo-chat"
    config.write_text(
        f"listen: {address}\n"
        f"models: {{demo: {{engine: paged, path: {demo}, parallel: 16, aliases: [gpt-4o-mini]}}}}\n"
    )
    environment = os.environ | {"XDG_STATE_HOME": str(folder)}
    command = [sys.executable, "-m", "swapper", "serve", "--config", str(config)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stderr is not None
    log: list[bytes] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()))
    try:
        assert any(b'"listening"' in line for line in process.stderr), "swapper did not serve"
        reader.start()  # a full pipe would hold swapper up
        transport = httpx.HTTPTransport(uds=str(address))
        with httpx.Client(transport=transport, timeout=60) as http:
            yield openai.OpenAI(
                base_url="http://localhost/v1", api_key="none", http_client=http, max_retries=0
            )
    finally:
        process.terminate()
        process.wait(30)
        reader.join(10)
        process.stderr.close()


def test_a_stream_says_what_a_whole_answer_says(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="demo", messages=QUESTION, temperature=0, max_tokens=40
    )
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=QUESTION, temperature=0, max_tokens=40, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == whole.choices[0].message.content
    assert "one endpoint" in text


def test_an_answer_that_the_client_has_begun(client: openai.OpenAI) -> None:
    def said(messages: list[dict[str, str]], **more: object) -> str:
        answer = client.chat.completions.create(
            model="demo", messages=messages, temperature=0, max_tokens=60, extra_body=more
        )
        return answer.choices[0].message.content or ""

    whole = said(QUESTION)
    begun = whole[: whole.index(" ", len(whole) // 2)]
    talk = [*QUESTION, {"role": "assistant", "content": begun}]
    rest = said(talk, continue_final_message=True, add_generation_prompt=False)
    assert (begun + rest).startswith(whole)


def test_an_answer_that_has_to_be_json_is(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["a", "b"]}, "fine": {"type": "boolean"}},
        "required": ["name", "fine"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="demo",
        messages=QUESTION,
        temperature=0,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert found["name"] in ("a", "b")
    assert isinstance(found["fine"], bool)


def test_many_at_once_get_the_answers_they_get_alone(client: openai.OpenAI) -> None:
    def ask(number: int) -> str:
        answer = client.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": f"Tell me {number} things about models."}],
            temperature=0,
            max_tokens=24,
        )
        return answer.choices[0].message.content or ""

    alone = [ask(number) for number in range(12)]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(ask, range(12))) == alone


def test_a_prompt_that_is_too_long_is_a_400_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"2048.*3000"):
        client.completions.create(model="demo", prompt=[5] * 3000)
