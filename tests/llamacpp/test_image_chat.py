"""Images over HTTP: a worker that takes them, and one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.echo.worker_process import WorkerProcess
from tests.llamacpp.conftest import write_model
from tests.llamacpp.projectors import answer_by_libmtmd, png, write_projector
from tests.serving.test_pictures import image, text


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("images")
    return write_model(folder / "m.gguf"), write_projector(folder / "mmproj.gguf", "mlp")


@pytest.fixture(scope="module")
def seeing(files: tuple[Path, Path]) -> Iterator[httpx.Client]:
    options = {"model": "tiny", "path": str(files[0]), "mmproj": str(files[1]), "threads": 1}
    with WorkerProcess(options, module="llamacpp") as worker, worker.ready().client() as client:
        assert "vision" in worker.events[-1]["capabilities"]
        yield client


def ask(client: httpx.Client, *parts, **more) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 12}
    body |= {"temperature": 0, "ignore_eos": True, "logprobs": True} | more
    return client.post("/v1/chat/completions", json=body)


def test_an_answer_about_an_image(seeing: httpx.Client, files: tuple[Path, Path]) -> None:
    answer = ask(seeing, text("What is this? "), image(png(1)), text("And this? "), image(png(2)))
    assert answer.status_code == 200, answer.text
    prompt = [
        "<|im_start|>user\nWhat is this? ",
        png(1),
        "And this? ",
        png(2),
        "<|im_end|>\n<|im_start|>assistant\n",
    ]
    expected, _ = answer_by_libmtmd(*files, prompt, 12)
    said = answer.json()["choices"][0]["logprobs"]["content"]
    pieces = seeing.post("/detokenize", json={"tokens": expected}).json()["content"]
    written = b"".join(bytes(token["bytes"] or ()) for token in said)
    assert written.decode("utf-8", "replace") == pieces
    usage = answer.json()["usage"]
    words = "".join(part for part in prompt if isinstance(part, str))
    num_text = len(seeing.post("/tokenize", json={"content": words}).json()["tokens"])
    assert usage["prompt_tokens"] == pytest.approx(num_text + 2 * 36, abs=4)  # merges over seams


def test_a_conversation_goes_on_from_what_is_computed(seeing: httpx.Client) -> None:
    first = ask(seeing, image(png(7)), text("What is this?")).json()
    messages = [
        {"role": "user", "content": [image(png(7)), text("What is this?")]},
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "Are you sure?"},
    ]
    again = seeing.post("/v1/chat/completions", json={"messages": messages, "max_tokens": 4})
    assert again.json()["usage"]["prompt_tokens_details"]["cached_tokens"] > 36


def test_several_answers_to_one_image(seeing: httpx.Client) -> None:
    answer = ask(seeing, image(png(1)), text("What is this?"), n=3)
    said = [choice["message"]["content"] for choice in answer.json()["choices"]]
    assert len(said) == 3
    assert len(set(said)) == 1


def test_a_stream(seeing: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": [image(png(1))]}], "stream": True}
    answer = seeing.post("/v1/chat/completions", json=body | {"max_tokens": 3})
    assert answer.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (image(png(1)[:-40]), "cannot be decoded"),
        (image(b"\x89PNG\r\n\x1a\n" + png(1)[8:40] + b"garbage"), "cannot be decoded"),
        (image(b"GIF89a\x05\x00\x05\x00"), "cannot be decoded"),
        (image(b"RIFF\x00\x00\x00\x00WAVEfmt "), "no image that can be read"),
        ({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}, "not fetched"),
        ({"type": "image"}, "image_url"),
    ],
)
def test_what_is_refused(seeing: httpx.Client, part: dict, words: str) -> None:
    answer = ask(seeing, text("What is this?"), part)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert ask(seeing, image(png(1)), text("?")).status_code == 200


def test_images_that_do_not_fit_the_context(files: tuple[Path, Path]) -> None:
    options = {"model": "tiny", "path": str(files[0]), "mmproj": str(files[1]), "context": 100}
    with WorkerProcess(options, module="llamacpp") as worker, worker.ready().client() as client:
        answer = ask(client, *[image(png(1))] * 4)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_a_model_that_cannot_see(files: tuple[Path, Path]) -> None:
    options = {"model": "tiny", "path": str(files[0]), "threads": 1}
    with WorkerProcess(options, module="llamacpp") as worker, worker.ready().client() as client:
        answer = ask(client, text("What is this?"), image(png(1)))
        assert answer.status_code == 400
        assert "no vision" in answer.json()["error"]["message"]
        assert "vision" not in client.get("/v1/models").json()["data"][0]["capabilities"]
