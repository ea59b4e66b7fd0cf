"""Putting another model's name into a body changes nothing else."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper.errors import BadRequest
from swapper.front.answer import WholeLines
from swapper.front.body import asked, renamed

text = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
spaces = st.sampled_from([None, 0, 3, "\t"])


def same(left: object, right: object) -> bool:
    """Equal as JSON: 1 and 1.0 differ, 0.0 and -0.0 too."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(
    fields=st.dictionaries(text, values, max_size=8),
    old=text,
    new=text,
    position=st.integers(0, 8),
    indent=spaces,
    ascii_only=st.booleans(),
)
def test_only_the_name_changes(
    fields: dict[str, object],
    old: str,
    new: str,
    position: int,
    indent: int | str | None,
    ascii_only: bool,
) -> None:
    items = [item for item in fields.items() if item[0] != "model"]
    items.insert(position, ("model", old))
    body = json.dumps(dict(items), indent=indent, ensure_ascii=ascii_only).encode()
    assert asked(body).model == old
    after = json.loads(renamed(body, new))
    assert list(after) == [key for key, _ in items]
    assert same(after, {**dict(items), "model": new})


@given(
    raw=st.lists(
        st.sampled_from([b"1.0e5", b'"\\u00e9"', b'"\xc3\xa9"', b"[1, 2 ]", b"-0.0", b"1E400"])
    )
)
def test_other_values_keep_their_very_bytes(raw: list[bytes]) -> None:
    fields = b",".join(b'"k%d": %b' % pair for pair in enumerate(raw))
    body = b'{"model":"a"%b%b}' % (b"," if raw else b"", fields)
    after = msgspec.json.decode(renamed(body, "b"), type=dict[str, msgspec.Raw])
    assert [bytes(after[f"k{i}"]) for i in range(len(raw))] == raw


def test_names_within_other_fields_are_left_alone() -> None:
    body = b'{"messages":[{"model":"a","content":"\\"model\\":\\"a\\""}],"model":"a"}'
    expected = b'{"messages":[{"model":"a","content":"\\"model\\":\\"a\\""}],"model":"b"}'
    assert renamed(body, "b") == expected


def test_of_equal_keys_one_is_left() -> None:
    assert renamed(b'{"model":"a","model":"c"}', "b") == b'{"model":"b"}'


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_a_bad_one(body: bytes) -> None:
    for read in (asked, lambda data: renamed(data, "b")):
        try:
            read(body)
        except BadRequest:
            pass


def test_numbers_beyond_float_are_not_touched() -> None:
    huge = b'{"model":"a","seed":123456789012345678901234567890,"x":1e999}'
    assert b"123456789012345678901234567890" in renamed(huge, "b")
    assert math.isinf(json.loads(renamed(huge, "b"))["x"])


@given(st.lists(st.binary(max_size=8)))
def test_line_filter_loses_nothing_and_cuts_no_line(pieces: list[bytes]) -> None:
    lines = WholeLines()
    sent = [lines.whole(piece) for piece in pieces]
    assert b"".join(sent) + lines.rest() == b"".join(pieces)
    assert all(not piece or piece.endswith(b"\n") for piece in sent)


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 3_000_000])
def test_endless_line_is_not_held_for_ever(size: int) -> None:
    assert WholeLines().whole(b"x" * size) == b"x" * size
