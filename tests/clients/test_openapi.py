"""Every route by its own description: what fits it, what does not, and what nobody should send."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from swapper.config import DEMO_FOLDER
from swapper.front.openapi import document
from tests.system.conftest import Swapper, eventually, serving

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

PATIENCE_S = 20.0  # of a request whose answer is a few tokens long
CONFIG = """
memory: {host: 1GiB}
models:
  echo: {engine: echo, set: {max_tokens: 4, n: 1}, drop: [max_completion_tokens]}
  plain: {engine: echo}
"""
DEMO = """
  demo:
    engine: llamacpp
    path: %s/demo-chat.gguf
    set: {max_tokens: 4, n: 1}
    drop: [max_completion_tokens]
"""
ENDLESS = ("/logs/stream", "/swapper/v1/events")
SAID_TO_BE = (501, 503)  # errors of the server that say what to do
NAMES = st.sampled_from(["echo", "plain", "demo", "nobody"])
EXAMPLES = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
FUZZED = [
    found.ok()
    for found in schemathesis.openapi.from_dict(document()).get_all_operations()
    if found.ok().path not in ENDLESS
]


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapper]:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    config = CONFIG + DEMO % DEMO_FOLDER
    with serving(tmp_path_factory.mktemp("swapper"), config) as swapper:
        yield swapper


def in_flight(swapper: Swapper) -> int:
    running = swapper.get("/running").json()["running"]
    return sum(worker["in_flight"] + worker["waiting"] for worker in running)


def check_whole(swapper: Swapper) -> None:
    """Nothing is left of what was asked, and what is asked now is answered."""
    eventually(lambda: in_flight(swapper) == 0)
    for model in ("plain", "demo"):
        assert swapper.chat(model, max_tokens=4).status_code == 200
    assert "failed inside" not in swapper.output()
    assert "Traceback" not in swapper.output()


def check_truth(path: str, method: str, answer: httpx.Response) -> None:
    """The answer is one that the document knows."""
    told = document()["paths"][path][method.lower()]["responses"]
    assert answer.status_code < 500 or answer.status_code in SAID_TO_BE, answer.text
    assert str(answer.status_code) in told, f"{answer.status_code} is not described: {answer.text}"
    content = told[str(answer.status_code)]["content"]
    media = answer.headers["content-type"].partition(";")[0]
    assert media in content or "*/*" in content, f"{media} is not described"
    if media == "application/json":
        schema = {
            **content.get(media, {"schema": {}})["schema"],
            "components": document()["components"],
        }
        jsonschema.validate(answer.json(), schema)


@pytest.mark.parametrize("operation", FUZZED, ids=lambda it: f"{it.method.upper()} {it.path}")
def test_whatever_is_sent_the_answer_is_as_described(swapper: Swapper, operation: Any) -> None:
    right = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
    wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

    @EXAMPLES
    @given(st.data())
    def send(data: st.DataObject) -> None:
        case = data.draw(data.draw(st.sampled_from([right, right, wrong])))
        name = data.draw(NAMES)
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = name
        if "model" in (case.path_parameters or {}):
            case.path_parameters["model"] = name
        (case.query or {}).pop("follow", None)  # has no end
        if operation.path.endswith("/lease") and isinstance(case.body, dict):
            case.body |= {"for": "1s", "wait": "1s"}
        answer = case.call(base_url=swapper.url, timeout=PATIENCE_S)
        check_truth(operation.path, operation.method, httpx_like(answer))

    send()
    check_whole(swapper)


def httpx_like(answer: Any) -> httpx.Response:
    headers = {name: values[0] for name, values in answer.headers.items()}
    headers = {
        k: v for k, v in headers.items() if k not in ("transfer-encoding", "content-encoding")
    }
    return httpx.Response(answer.status_code, headers=headers, content=answer.content)


HOSTILE = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "NUL": b"\0" * 100,
    "deep": b'{"model":"plain","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "half a character": b'{"model":"plain","prompt":"\\ud83d","input":"\\ud83d","messages":'
    b'[{"role":"user","content":"\\ud83d"}],"max_tokens":4}',
    "a large number": b'{"model":"plain","max_tokens":1' + b"0" * 400 + b"}",
    "many messages": b'{"model":"plain","max_tokens":4,"messages":['
    + b'{"role":"user","content":"x"},' * 20_000
    + b'{"role":"user","content":"x"}]}',
    "a part of a form": b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nplain',
}
WITH_BODIES = [
    path
    for path, methods in document()["paths"].items()
    if "requestBody" in methods.get("post", {})
]


@pytest.mark.parametrize("path", WITH_BODIES)
def test_hostile_bodies(swapper: Swapper, path: str) -> None:
    with httpx.Client(base_url=swapper.url, timeout=PATIENCE_S) as client:
        for body in HOSTILE.values():
            for media in ("application/json", "multipart/form-data; boundary=b"):
                answer = client.post(path, content=body, headers={"content-type": media})
                check_truth(path, "post", answer)
    check_whole(swapper)


def test_clients_that_leave_at_once_leave_nothing(swapper: Swapper) -> None:
    asked = {"model": "plain", "prompt": "x" * 3000, "max_tokens": 1000, "stream": True}
    for path in ("/v1/completions", "/api/generate"):
        for _ in range(20):
            with httpx.stream("POST", swapper.url + path, json=asked, timeout=PATIENCE_S):
                pass
    check_whole(swapper)


def test_every_route_that_is_told_of_at_the_door_is_described(swapper: Swapper) -> None:
    served = httpx.get(f"{swapper.url}/openapi.json")
    assert served.json() == document()
    told = re.findall(r"(?:GET|POST|DELETE|HEAD)\s+(/\S*)", swapper.get("/").text)
    described = {re.sub(r"\{.*", "", path) for path in document()["paths"]}
    for path in told:
        start = re.split(r"[?{.…*]|MODEL|NAME|ID", path)[0]
        assert any(it.startswith(start) or start.startswith(it) for it in described), path
