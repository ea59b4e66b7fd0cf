"""The images of a chat: out of its messages, and into the prompt where the template puts them.

A template is given a mark in an image's place, as text that no client can guess. In the finished prompt
the images stand where the marks came to stand.
"""

from __future__ import annotations

import binascii
import re
import secrets
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from backends.serving.errors import RequestError, bad_request
from backends.serving.image_files import KINDS, dimensions
from backends.serving.requests import ChatRequest

MAX_IMAGES = 64
MAX_FILE_BYTES = 20 << 20
MAX_PIXELS = (
    64_000_000  # of all images of one request: what a decoder unpacks is many times the file
)

_IMAGES = frozenset({"image_url", "input_image", "image"})
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)


class Pictures:
    """The images of one request, in the order of its messages."""

    def __init__(self) -> None:
        self._files: list[bytes] = []
        self._num_pixels = 0
        self._mark = f"__image_{secrets.token_hex(8)}_"

    def __bool__(self) -> bool:
        return bool(self._files)

    def add(self, part: dict[str, Any], where: str) -> str:
        """Take the image of a content part; its mark. Raises RequestError."""
        if len(self._files) == MAX_IMAGES:
            raise bad_request(f"A request may have {MAX_IMAGES} images at most", "messages")
        file = _file(part, where)
        size = dimensions(file)
        if size is None:
            raise bad_request(f"{where} is no image that can be read: {KINDS} can", where)
        self._num_pixels += size[0] * size[1]
        if self._num_pixels > MAX_PIXELS:
            limit = MAX_PIXELS // 1_000_000
            raise bad_request(
                f"{where}: the images have more than {limit} million pixels together", where
            )
        self._files.append(file)
        return f"{self._mark}{len(self._files) - 1}_"

    def parts(self, text: str) -> list[str | bytes]:
        """The prompt as texts and images in turn. Raises RequestError where the template left one out."""
        pieces = re.split(rf"{self._mark}(\d+)_", text)  # text, number, text, number, ... text
        numbers = [int(number) for number in pieces[1::2]]
        if set(numbers) != set(range(len(self._files))):
            raise bad_request("The chat template leaves out an image", "messages")
        images = [self._files[number] for number in numbers]
        parts: list[str | bytes] = [pieces[0]]
        for image, piece in zip(images, pieces[2::2], strict=True):
            parts += [image, piece]
        return [part for part in parts if part]


def with_marks(request: ChatRequest) -> tuple[ChatRequest, Pictures]:
    """The request with a mark for every image, and the images."""
    pictures = Pictures()
    messages = [
        _marked(message, f"messages[{index}]", pictures)
        for index, message in enumerate(request.messages)
    ]
    return (replace(request, messages=messages), pictures) if pictures else (request, pictures)


def _marked(message: dict[str, Any], where: str, pictures: Pictures) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list) or not any(map(_is_image, content)):
        return message
    return {**message, "content": _joined(content, f"{where}.content", pictures)}


def _is_image(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _IMAGES


def _joined(parts: Sequence[Any], where: str, pictures: Pictures) -> list[Any]:
    """The marks joined to the texts around them: between an image and a text there is no line's end."""
    joined: list[Any] = []
    is_open = False  # the last part ends with a mark
    for index, part in enumerate(parts):
        is_image = _is_image(part)
        text = pictures.add(part, f"{where}[{index}]") if is_image else _text(part)
        if text is None:
            joined.append(part)  # for whoever refuses it
        elif joined and (is_image or is_open) and _text(joined[-1]) is not None:
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + text}
        else:
            joined.append({"type": "text", "text": text})
        is_open = is_image
    return joined


def _text(part: object) -> str | None:
    if isinstance(part, dict) and part.get("type") in ("text", "input_text"):
        text = part.get("text")
        return text if isinstance(text, str) else None
    return None


def _file(part: dict[str, Any], where: str) -> bytes:
    """The bytes that a part's URL holds."""
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise bad_request(f"{where}.image_url must have a url", where)
    if url[:8].lower().startswith(("http://", "https://")):
        raise bad_request(
            f"{where}: images are not fetched from addresses; send them as data: URLs", where
        )
    head = _DATA.match(url)
    if head is None:
        raise bad_request(f"{where}: an image must be a data: URL in base64", where)
    if (len(url) - head.end()) * 3 // 4 > MAX_FILE_BYTES:
        raise _too_large(where)
    try:
        return binascii.a2b_base64(url[head.end() :], strict_mode=True)
    except ValueError:
        raise bad_request(f"{where}: the image is not valid base64", where) from None


def _too_large(where: str) -> RequestError:
    return bad_request(f"{where}: an image may have {MAX_FILE_BYTES >> 20} MiB at most", where)
