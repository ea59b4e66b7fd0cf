"""Calls come out whole, content comes out as it was, and neither depends on how the text was cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.serving.tools import ToolCallReader

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": [1, 2.50]}}\n</tool_call>'
PARTS = st.lists(
    st.sampled_from(
        [CALL, "<tool_call>", "</tool_call>", "<tool", "_call>", " ", "\n", "text", '{"name": 1}']
    ),
    max_size=8,
).map("".join)


def read(pieces: list[str], max_calls: int | None = None) -> tuple[str, list[tuple[str, str]]]:
    reader = ToolCallReader(max_calls)
    content, calls = "", []
    for piece in pieces:
        text, found = reader.push(piece)
        content += text
        calls += found
    text, found = reader.finish()
    calls += found
    assert reader.num_calls == len(calls)
    return content + text, [(call.name, call.arguments) for call in calls]


@given(PARTS, st.data())
def test_any_cut_gives_the_same_answer(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text])


@given(
    st.text(alphabet="<tool_call>/ \n{}", max_size=40).filter(
        lambda text: "<tool_call>" not in text
    )
)
def test_text_without_calls_is_untouched(text: str) -> None:
    assert read(list(text)) == (text, [])


def test_a_call_keeps_the_model_s_spelling() -> None:
    content, [(name, arguments)] = read([CALL])
    assert (content, name) == ("", "f")
    assert arguments == '{"a": [1, 2.50]}'


def test_white_space_beside_calls_is_dropped_and_text_kept() -> None:
    content, calls = read([f"Let me see.\n{CALL}\n{CALL}\n done"])
    assert content == "Let me see.done"
    assert len(calls) == 2


@pytest.mark.parametrize(
    "inside",
    ["", "nonsense", '{"arguments": {}}', '{"name": "f", "arguments": [1]}', '{"name": 3}'],
)
def test_what_is_no_call_stays_text(inside: str) -> None:
    text = f"a <tool_call>{inside}</tool_call> b"
    assert read(list(text)) == (text, [])


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"name": "f"}', {}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
    ],
)
def test_other_spellings_of_arguments(written: str, arguments: object) -> None:
    _, [(_, found)] = read([f"<tool_call>{written}</tool_call>"])
    assert json.loads(found) == arguments


def test_a_call_without_its_end_tag_counts() -> None:
    assert read([CALL.removesuffix("</tool_call>")])[1] == [("f", '{"a": [1, 2.50]}')]


def test_no_more_calls_than_allowed() -> None:
    assert read([CALL + CALL + "rest"], max_calls=1) == ("", [("f", '{"a": [1, 2.50]}')])
