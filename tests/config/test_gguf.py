from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swapper.errors import ConfigError
from swapper.gguf import read_header, split_parts

Make = Callable[..., Path]


def test_what_a_header_says(make_gguf: Make) -> None:
    path = make_gguf(words=2000, **{"attention.sliding_window_pattern": [True, False]})
    header = read_header(path)
    assert header.architecture == "llama"
    assert header.file_bytes == path.stat().st_size
    assert header.metadata["llama.block_count"] == 2
    assert header.metadata["llama.attention.sliding_window_pattern"] == (True, False)
    assert header.lengths == {"tokenizer.ggml.tokens": 2000, "tokenizer.ggml.scores": 2000}
    assert "tokenizer.ggml.tokens" not in header.metadata
    sizes = {tensor.name: tensor.num_bytes for tensor in header.tensors}
    assert sizes["token_embd.weight"] == 2000 * 64 * 2
    assert sizes["blk.1.attn_q.weight"] == 64 * 64 * 2
    assert {tensor.name: tensor.shape for tensor in header.tensors}["token_embd.weight"] == (
        64,
        2000,
    )


def test_it_agrees_with_the_reference_reader(make_gguf: Make) -> None:
    path = make_gguf()
    reference = gguf.GGUFReader(path)
    expected = {tensor.name: int(tensor.n_bytes) for tensor in reference.tensors}
    assert {tensor.name: tensor.num_bytes for tensor in read_header(path).tensors} == expected


def test_a_large_vocabulary_is_stepped_over_quickly(make_gguf: Make) -> None:
    path = make_gguf(words=150_000)
    begin = time.process_time()
    assert read_header(path).lengths["tokenizer.ggml.tokens"] == 150_000
    assert time.process_time() - begin < 0.5  # 15 ms when nothing else runs


def test_a_file_cut_off_anywhere_is_named(make_gguf: Make, tmp_path: Path) -> None:
    data = make_gguf(words=20, layers=1).read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in [*range(1, 1500, 7), len(data) - 1]:
        cut.write_bytes(data[: min(length, len(data) - 1)])
        with pytest.raises(ConfigError, match=r"cut\.gguf (is cut off|is not a GGUF)"):
            read_header(cut)


def test_how_much_is_missing(make_gguf: Make, tmp_path: Path) -> None:
    path = make_gguf()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 100)
    with pytest.raises(
        ConfigError, match=rf"model.gguf is cut off: {size - 100} of \d+ bytes are there"
    ):
        read_header(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PK\x03\x04" + bytes(40), "does not begin with GGUF"),
        (b"", "not a GGUF file"),
        (b"GGUF", "cut off within its header"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1 of the format is not known"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "cut off within its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "cut off within its header"),
        (b"GGUF" + struct.pack("<IQQQcI", 3, 0, 1, 1, b"a", 77), "value type 77"),
        (b"GGUF" + struct.pack("<IQQQcIIQ", 3, 0, 1, 1, b"a", 9, 77, 5000), "of type 77"),
    ],
)  # fmt: skip
def test_what_is_no_model(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=why):
        read_header(path)


def test_big_endian_files_are_refused(make_gguf: Make) -> None:
    with pytest.raises(ConfigError, match="big-endian"):
        read_header(make_gguf(endianess=gguf.GGUFEndian.BIG))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        read_header(tmp_path / "nix.gguf")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_header(tmp_path)


def test_a_split_file_is_one_model(make_gguf: Make, tmp_path: Path) -> None:
    first = make_gguf("big-00001-of-00002.gguf")
    second = shutil.copy(make_gguf("other.gguf", layers=5), tmp_path / "big-00002-of-00002.gguf")
    header = read_header(first)
    assert header.file_bytes == first.stat().st_size + second.stat().st_size
    assert len(header.tensors) == len(read_header(tmp_path / "other.gguf").tensors) + 4
    assert split_parts(first) == [first, second]
    with pytest.raises(ConfigError, match="later part of a split file; name its first part"):
        read_header(second)
    second.unlink()
    with pytest.raises(ConfigError, match=r"big-00002-of-00002.gguf: there is no such file"):
        read_header(first)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.booleans())
def test_broken_bytes_are_a_clear_error_and_nothing_else(
    tmp_path: Path, noise: bytes, place: int, valid_start: bool
) -> None:
    path = tmp_path / "noise.gguf"
    start = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) if valid_start else b""
    path.write_bytes(start + bytes(place % 9) + noise)
    try:
        read_header(path)
    except ConfigError as error:
        assert "noise.gguf" in str(error)  # noqa: PT017
