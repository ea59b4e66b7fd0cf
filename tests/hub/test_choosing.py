from __future__ import annotations

import pytest

from swapper.errors import ConfigError
from swapper.hub.choosing import Choice, RemoteFile, Wanted, choose, parse_wanted


def chosen(text: str, *paths: str) -> list[str]:
    return [file.path for file in choice(text, *paths).files]


def choice(text: str, *paths: str) -> Choice:
    return choose(parse_wanted(text), [RemoteFile(path, 1 << 20) for path in paths])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("org/name", Wanted("org/name")),
        ("org/name:q8_0", Wanted("org/name", "Q8_0")),
        ("org/name/a/b.gguf", Wanted("org/name", None, "a/b.gguf")),
        ("hf.co/org/name:Q4_0", Wanted("org/name", "Q4_0")),
        (
            "https://huggingface.co/org/name/blob/main/x.gguf",
            Wanted("org/name", None, "x.gguf"),
        ),
        ("https://huggingface.co/org/name/", Wanted("org/name")),
    ],
)
def test_what_is_wanted(text: str, wanted: Wanted) -> None:
    assert parse_wanted(text) == wanted


@pytest.mark.parametrize("text", ["name", "", "/", "org/", "org/name/x:Q4", "a/../b"])
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(ConfigError, match="is no repository"):
        parse_wanted(text)


GGUFS = ("M-Q2_K.gguf", "M-Q4_K_M.gguf", "M-Q8_0.gguf", "M.imatrix.gguf", "README.md")


def test_a_quantisation() -> None:
    assert chosen("o/n", *GGUFS) == ["M-Q4_K_M.gguf"]
    assert chosen("o/n:q8_0", *GGUFS) == ["M-Q8_0.gguf"]
    assert chosen("o/n:Q4_K_XL", "M-UD-Q4_K_XL.gguf", "M-Q4_K_S.gguf") == ["M-UD-Q4_K_XL.gguf"]
    assert chosen("o/n/M-Q2_K.gguf", *GGUFS) == ["M-Q2_K.gguf"]
    assert chosen("o/n", "odd.gguf") == ["odd.gguf"]


def test_all_parts_of_a_split_file() -> None:
    parts = [f"BF16/M-BF16-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert chosen("o/n:BF16", "M-Q4_K_M.gguf", *reversed(parts)) == parts
    assert chosen(f"o/n/{parts[1]}", *parts) == parts
    assert choice("o/n:BF16", *parts).main == parts[0]
    with pytest.raises(ConfigError, match="holds 2 of its 3 parts"):
        choice("o/n:BF16", *parts[:2])


def test_the_projector_comes_along() -> None:
    found = choice("o/n", *GGUFS, "mmproj-F32.gguf", "mmproj-F16.gguf")
    assert [file.path for file in found.files] == ["M-Q4_K_M.gguf", "mmproj-F16.gguf"]
    assert found.projector == "mmproj-F16.gguf"


def test_a_safetensors_folder() -> None:
    files = [
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "merges.txt",
        "a-1-of-2.safetensors",
    ]
    rest = ["README.md", "pytorch_model.bin", "onnx/model.onnx", "consolidated.safetensors", "x.py"]
    found = choice("o/n", *files, *rest)
    assert sorted(file.path for file in found.files) == sorted(files)
    assert found.main is None


@pytest.mark.parametrize(
    ("text", "paths", "said"),
    [
        ("o/n:Q3_K", GGUFS, r"has no Q3_K; there is Q2_K \(1 MiB\), Q4_K_M \(1 MiB\), Q8_0"),
        ("o/n", ["M-Q2_K.gguf", "M-Q3_K.gguf"], "has nothing that goes without saying; there is"),
        ("o/n", ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "has 2 files of Q4_K_M; name one: a-Q4"),
        ("o/n/x.gguf", GGUFS, "has no file x.gguf; there is"),
        ("o/n/config.json", GGUFS, "only GGUF files"),
        ("o/n:Q4_0", ["README.md"], "it has no GGUF file at all"),
        ("o/n", ["README.md"], "holds neither GGUF files nor safetensors"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(text: str, paths: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choice(text, *paths)
