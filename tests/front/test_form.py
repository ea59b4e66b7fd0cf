"""Forms with files: the model's name is found in them, and only that is ever changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper.errors import BadRequest
from swapper.front.form import MOST_PARTS, Form, boundary_of, read_form
from tests.front.conftest import House

LINE = b"x-boundary"
TYPE = {"content-type": 'multipart/form-data; charset=utf-8; boundary="x-boundary"'}
SOUND = b"RIFF\r\n--x-bound\r\n\r\n\x00\xff--" * 1000


def form(*fields: tuple[str, bytes], line: bytes = LINE) -> bytes:
    parts = b"".join(
        b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n"
        % (line, name.encode(), value)
        for name, value in fields
    )
    return parts + b"--" + line + b"--\r\n"


def fields(body: bytes) -> list[tuple[str, bytes]]:
    """As Python's own library reads it."""
    head = b"content-type: multipart/form-data; boundary=x-boundary\r\n\r\n"
    parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
    named = [part["content-disposition"].params.get("name", "") for part in parts]
    return list(zip(named, [value for _, value in raw(body)], strict=True))


def raw(body: bytes) -> list[tuple[str, bytes]]:
    read = read_form(body, LINE)
    return [(part.name, body[part.start : part.end]) for part in read.parts]


def read(body: bytes) -> Form:
    return read_form(body, LINE)


@pytest.mark.parametrize("header", ["application/json", None, "", "multipart/mixed; boundary=x"])
def test_other_bodies_are_no_forms(header: str | None) -> None:
    assert boundary_of(header) is None


def test_a_form_without_a_boundary_is_refused() -> None:
    with pytest.raises(BadRequest, match="boundary"):
        boundary_of("multipart/form-data")


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="model"',
        "form-data; name=model",
        'form-data; filename="a; name=b"; name="model"',
        'form-data; NAME="model"',
    ],
)
def test_the_name_is_found_however_it_is_written(disposition: str) -> None:
    body = (
        b"a preamble\r\n--x-boundary  \r\nX-Other: y\r\ncontent-DISPOSITION: "
        + disposition.encode()
        + b"\r\n\r\nwhisper\r\n--x-boundary--"
    )
    assert read(body).asked().model == "whisper"


def test_the_last_of_equal_names_counts_and_all_are_renamed() -> None:
    read_once = read(form(("model", b"a"), ("file", SOUND), ("model", b"b")))
    assert read_once.asked().model == "b"
    renamed = read_once.renamed("c")
    assert raw(renamed) == [("model", b"c"), ("file", SOUND), ("model", b"c")]


@given(
    st.lists(st.tuples(st.sampled_from(["model", "file", "x"]), st.binary(max_size=60)), max_size=6)
)
def test_what_is_renamed_is_otherwise_the_same(given_fields: list[tuple[str, bytes]]) -> None:
    clean = [(name, value) for name, value in given_fields if LINE not in value]
    after = raw(read(form(*clean)).renamed("other"))
    assert after == [(name, b"other" if name == "model" else value) for name, value in clean]


@given(st.binary(max_size=300))
def test_whatever_the_body_it_is_read_or_refused(noise: bytes) -> None:
    for body in (noise, b"--x-boundary\r\n" + noise, form(("model", b"a"))[: len(noise)] + noise):
        try:
            read(body).asked()
        except BadRequest:
            pass


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(BadRequest, match=str(MOST_PARTS)):
        read(form(*[("x", b"")] * (MOST_PARTS + 1)))


def test_no_name_and_no_text() -> None:
    with pytest.raises(BadRequest, match="model"):
        read(form(("file", SOUND))).asked()
    with pytest.raises(BadRequest, match="no text"):
        read(form(("model", b"\xff"))).asked()


@dataclass
class Settings:
    drop: frozenset[str] = frozenset()
    default: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    system: str | None = None


def test_settings_of_the_model_hold_for_forms_too() -> None:
    settings = Settings(frozenset({"prompt"}), {"language": "de", "x": 1}, {"temperature": 0.5})
    given_form = form(("file", SOUND), ("prompt", b"p"), ("language", b"en"), ("temperature", b"1"))
    after = read(given_form).adjusted(settings).body
    assert dict(fields(after)) == {
        "file": SOUND,
        "language": b"en",
        "x": b"1",
        "temperature": b"0.5",
    }


async def test_the_body_goes_on_byte_for_byte(house: House) -> None:
    worker = await house.worker()
    body = form(("file", SOUND), ("model", b"tiny"))
    assert (await house.post("/v1/audio/transcriptions", body, TYPE)).status == 200
    assert worker.seen[0].body == body
    assert worker.seen[0].headers["content-type"] == TYPE["content-type"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(("model", b"nobody")), 404),
        (form(("file", b"")), 400),
        (form(("model", b"tiny"))[:-20], 400),
        (b"", 400),
        (b'{"model":"tiny"}', 400),
    ],
)
async def test_forms_that_are_wrong_are_refused(house: House, body: bytes, status: int) -> None:
    got = await house.post("/v1/images/edits", body, TYPE)
    assert got.status == status
    assert got.error["type"] == "invalid_request_error"


async def test_nothing_is_loaded_for_what_an_engine_cannot_do(house: House) -> None:
    got = await house.post("/v1/moderations", b'{"model":"org/model:7b","input":"x"}')
    assert got.status == 404
    assert "llamacpp" in str(got.error["message"])
    assert not house.dispatcher.arrivals
