"""Images out of messages, and into the prompt where the template puts them."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from backends.serving import pictures
from backends.serving.chat import ChatTemplate, chat_text
from backends.serving.errors import RequestError
from backends.serving.image_files import dimensions
from backends.serving.pictures import with_marks
from backends.serving.requests import ChatRequest
from tests.llamacpp.projectors import png
from tests.serving.test_chat import IM, info

GIF = b"GIF89a" + struct.pack("<HH", 3, 5) + bytes(8)
BMP = b"BM" + bytes(12) + struct.pack("<Iii", 40, 7, -9) + bytes(24)
OLD_BMP = b"BM" + bytes(12) + struct.pack("<IHH", 12, 7, 9) + bytes(24)
FRAME = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", 11, 13)
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xfe\x00\x03c" + FRAME


def image(file: bytes, **more: Any) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(file).decode()
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def chat(*parts: Any, **more: Any) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": list(parts)}], **more)


def prompt_of(request: ChatRequest, template: str = IM) -> list[str | bytes]:
    marked, found = with_marks(request)
    return found.parts(chat_text(ChatTemplate(info(template)), marked))


@pytest.mark.parametrize(
    ("file", "size"),
    [
        (png(1, 48, 32), (48, 32)),
        (GIF, (3, 5)),
        (BMP, (7, 9)),
        (OLD_BMP, (7, 9)),
        (JPEG, (13, 11)),
        (b"\xff\xd8\xff\xd9", None),
        (b"\xff\xd8\xff\xe0\x00\x04ab", None),
        (JPEG[:-1], None),
        (png(1)[:20], None),
        (png(1)[:16] + bytes(8), None),
        (b"RIFF\0\0\0\0WEBPVP8 ", None),
        (b"<svg/>", None),
        (b"", None),
    ],
)
def test_how_large_an_image_is(file: bytes, size: tuple[int, int] | None) -> None:
    assert dimensions(file) == size


def test_images_stand_in_the_prompt_where_they_stood_among_the_texts() -> None:
    one, two = png(1), png(2)
    parts = prompt_of(chat(text("Compare"), text("this: "), image(one), image(two), text(" now")))
    assert parts == [
        "<|im_start|>user\nCompare\nthis: ",
        one,
        two,
        " now<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_images_of_several_messages_and_none() -> None:
    one, two = png(1), png(2)
    request = ChatRequest(
        messages=[
            {"role": "user", "content": [image(one), text("?")]},
            {"role": "assistant", "content": "a picture"},
            {"role": "user", "content": [text("and "), {"type": "input_image", "image_url": image(two)["image_url"]["url"]}]},
        ]
    )  # fmt: skip
    assert [part for part in prompt_of(request) if isinstance(part, bytes)] == [one, two]
    plain = chat(text("no picture"))
    same, found = with_marks(plain)
    assert same is plain
    assert not found


def test_a_mark_cannot_be_guessed_or_written_by_a_client() -> None:
    marked, _ = with_marks(chat(image(png(1))))
    written = marked.messages[0]["content"][0]["text"]
    parts = prompt_of(chat(text(written), image(png(1))))
    assert sum(isinstance(part, bytes) for part in parts) == 1


def test_a_template_that_leaves_an_image_out_is_told_of() -> None:
    with pytest.raises(RequestError, match="leaves out an image"):
        prompt_of(chat(image(png(1))), "{% for m in messages %}{{ m.role }}{% endfor %}")


def test_a_template_may_show_an_image_twice() -> None:
    parts = prompt_of(
        chat(image(png(1))), "{{ messages[0].content }} again {{ messages[0].content }}!"
    )
    assert parts == [png(1), " again ", png(1), "!"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url"}, "must have a url"),
        ({"type": "image_url", "image_url": {"url": 1}}, "must have a url"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "not fetched"),
        ({"type": "image_url", "image_url": "HTTP://127.0.0.1/a.png"}, "not fetched"),
        ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "data: URL"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}, "data: URL"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,a"}}, "not valid base64"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,YQ==!"}}, "base64"),
        (image(b"no image"), "PNG, JPEG, GIF and BMP can"),
        (image(b""), "PNG, JPEG, GIF and BMP can"),
        (image(png(1)[:16] + struct.pack(">II", 9000, 9000)), "million pixels"),
        (image(b"\x89PNG" + bytes(pictures.MAX_FILE_BYTES)), "20 MiB at most"),
    ],
)  # fmt: skip
def test_images_that_are_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        with_marks(chat(text("look"), part))
    assert raised.value.status == 400
    assert raised.value.param == "messages[0].content[1]"


def test_too_many_images() -> None:
    with_marks(chat(*[image(GIF)] * pictures.MAX_IMAGES))
    with pytest.raises(RequestError, match="64 images at most"):
        with_marks(chat(*[image(GIF)] * (pictures.MAX_IMAGES + 1)))


def test_parts_that_are_no_text_are_left_to_whoever_refuses_them() -> None:
    for part in ({"type": "text", "text": 1}, {"type": "input_audio"}, "words"):
        marked, _ = with_marks(chat(image(png(1)), part, image(png(2))))
        with pytest.raises(RequestError) as raised:
            chat_text(ChatTemplate(info(IM)), marked)
        assert raised.value.status == 400
