"""Events read from a worker, whatever pieces they come in."""

from __future__ import annotations

import pytest

from tests.front.dialects.streams import delta, read, wire

STREAM = wire(delta(content="é€𝄞"), delta(content='a "b"\n'), delta("stop"))


@pytest.mark.parametrize("ending", ["\n\n", "\r\n\r\n"])
def test_every_split_gives_the_same(ending: str) -> None:
    data = STREAM.replace(b"\n\n", ending.encode())
    whole = read([data])
    assert len(whole) == 4
    assert whole[-1] == b"[DONE]"
    for at in range(len(data)):
        assert read([data[:at], data[at:]]) == whole
    assert read([data[i : i + 1] for i in range(len(data))]) == whole


def test_comments_names_and_ids_are_skipped() -> None:
    data = b": hi\n\nevent: x\nid: 1\ndata: 1\n\nretry: 5\n\ndata:2\ndata: 3\n\ndata: half"
    assert read([data]) == [b"1", b"2\n3"]
