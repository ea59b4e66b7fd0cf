"""Text leaves whole, and never with a stop string in it, however it was cut into tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.serving.text import TextStream

TEXT = st.text(alphabet=st.sampled_from("aab\n é€😀"), max_size=30)
STOPS = st.lists(st.text(alphabet="ab\né😀", min_size=1, max_size=4), max_size=3)


def pieces_of(data: bytes, draw: st.DataObject) -> list[bytes]:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def streamed(pieces: list[bytes], stops: list[str]) -> tuple[list[str], bool]:
    stream = TextStream(stops)
    sent = [stream.push(piece) for piece in pieces]
    sent.append(stream.finish())
    return sent, stream.is_stopped


def cut_at_first_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition, character by character: the stop that is complete first ends the text."""
    for end in range(len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(TEXT, STOPS, st.data())
def test_any_cut_gives_the_same_text(text: str, stops: list[str], data: st.DataObject) -> None:
    sent, is_stopped = streamed(pieces_of(text.encode(), data), stops)
    assert ("".join(sent), is_stopped) == cut_at_first_stop(text, stops)


@given(st.binary(max_size=30), st.data())
def test_bytes_that_are_no_text_read_as_if_whole(raw: bytes, data: st.DataObject) -> None:
    sent, _ = streamed(pieces_of(raw, data), [])
    assert "".join(sent) == raw.decode("utf-8", "replace")


@given(TEXT, st.data())
def test_no_character_is_split(text: str, data: st.DataObject) -> None:
    sent, _ = streamed(pieces_of(text.encode(), data), [])
    assert "\ufffd" not in "".join(sent)


@given(TEXT, STOPS.filter(bool), st.data())
def test_what_was_sent_never_has_to_be_taken_back(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    """After every step, all that was sent is a beginning of the final text."""
    final, _ = cut_at_first_stop(text, stops)
    stream = TextStream(stops)
    sent = ""
    for piece in pieces_of(text.encode(), data):
        sent += stream.push(piece)
        assert final.startswith(sent)
        assert stream.num_sent == len(sent)


def test_text_that_cannot_become_a_stop_is_not_held() -> None:
    stream = TextStream(["STOP"])
    assert stream.push(b"hello S") == "hello "
    assert stream.push(b"o") == "So"


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["b", "abc"], "xabc", "xa"),  # the one that ends first
        (["bc", "abc"], "xabc", "x"),  # of two that end together, the longest
        (["\n\n"], "a\n\nb", "a"),
        (["é"], "caféine", "caf"),
    ],
)
def test_which_stop_wins(stops: list[str], text: str, expected: str) -> None:
    assert streamed([text.encode()], stops) == ([expected, ""], True)


def test_nothing_comes_out_after_a_stop() -> None:
    stream = TextStream(["x"])
    assert stream.push(b"ax") == "a"
    assert stream.push(b"b") == ""
    assert stream.finish() == ""


def test_which_stop_it_was_is_told() -> None:
    stream = TextStream(["four", "ee", "thr"])
    stream.push(b"one two th")
    assert stream.stopped_by is None
    stream.push(b"ree")
    assert stream.stopped_by == "thr"
