"""Images through the whole of it, in every dialect: the same prompt, and so the same answer."""

from __future__ import annotations

import base64
import importlib.util

import httpx
import pytest

from tests.llamacpp.conftest import write_model
from tests.llamacpp.projectors import png, write_projector

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)

PICTURE = base64.b64encode(png(1)).decode()
URL = "data:image/png;base64," + PICTURE
TEXT = """
models:
  eyes: {engine: llamacpp, path: m.gguf, mmproj: mmproj.gguf, context: 512}
  blind: {engine: llamacpp, path: m.gguf, context: 512}
"""
GREEDY = {"max_tokens": 12, "temperature": 0}


@pytest.fixture
def swapper(serve, tmp_path):
    write_model(tmp_path / "m.gguf")
    write_projector(tmp_path / "mmproj.gguf", "mlp")
    return serve(TEXT)


def openai(swapper, model="eyes", url=URL) -> httpx.Response:
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "See?"}]
    messages = [{"role": "user", "content": parts}]
    body = {"model": model, "messages": messages, **GREEDY}
    return httpx.post(f"{swapper.url}/v1/chat/completions", json=body, timeout=60)


def anthropic(swapper, model="eyes") -> httpx.Response:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "See?"}]
    messages = [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, **GREEDY}
    return httpx.post(f"{swapper.url}/v1/messages", json=body, timeout=60)


def responses(swapper) -> httpx.Response:
    content = [{"type": "input_image", "image_url": URL}, {"type": "input_text", "text": "See?"}]
    body = {"model": "eyes", "input": [{"role": "user", "content": content}]}
    body |= {"max_output_tokens": 12, "temperature": 0}
    return httpx.post(f"{swapper.url}/v1/responses", json=body, timeout=60)


def ollama(swapper) -> httpx.Response:
    messages = [{"role": "user", "content": "See?", "images": [PICTURE]}]
    options = {"num_predict": 12, "temperature": 0}
    body = {"model": "eyes", "messages": messages, "options": options, "stream": False}
    return httpx.post(f"{swapper.url}/api/chat", json=body, timeout=60)


def test_every_dialect_shows_the_model_the_same_image(swapper) -> None:
    listed = {model["id"]: model for model in swapper.get("/v1/models").json()["data"]}
    assert listed["eyes"]["input_modalities"] == ["text", "image"]
    assert "input_modalities" not in listed["blind"]

    plain = openai(swapper).json()
    said = plain["choices"][0]["message"]["content"]
    assert plain["usage"]["prompt_tokens"] > 36
    assert anthropic(swapper).json()["content"][0]["text"] == said
    assert responses(swapper).json()["output"][0]["content"][0]["text"] == said

    shown = httpx.post(f"{swapper.url}/api/show", json={"model": "eyes"}, timeout=60).json()
    assert "vision" in shown["capabilities"]
    told = ollama(swapper).json()
    assert told["prompt_eval_count"] > 36, told  # its own order of text and image
    assert told["message"]["content"]


def test_what_is_refused_says_so_in_its_dialect(swapper) -> None:
    for answer in (openai(swapper, "blind"), anthropic(swapper, "blind")):
        assert answer.status_code == 400
        assert "no vision" in answer.json()["error"]["message"]
    broken = openai(swapper, url=URL[:-60] + "AAAA")
    assert broken.status_code == 400
    assert "broken" in broken.json()["error"]["message"]
    fetched = openai(swapper, url="http://127.0.0.1:9/picture.png")
    assert fetched.status_code == 400
    assert "not fetched" in fetched.json()["error"]["message"]
    assert openai(swapper).status_code == 200  # of the second worker, which may be a forked one


def test_tokens_of_images_are_not_counted_without_the_model(swapper) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    body = {"model": "eyes", "messages": messages}
    answer = httpx.post(f"{swapper.url}/v1/messages/count_tokens", json=body, timeout=60)
    assert answer.status_code == 400
    assert "images" in answer.json()["error"]["message"]
