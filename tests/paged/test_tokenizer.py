"""Tokenizers of the kinds that checkpoints bring: their pieces, joined, are the text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Rules

from backends.paged.files import read_json_if_any
from backends.paged.tokenizer import ChatFiles, Tokenizer, read_pooling, read_tokenizer
from backends.serving.engine import EngineError
from tests.paged.checkpoints import TEMPLATE, write_tokenizer

TEXTS = ["hello there", " leading", "grüße 🎉 ñ", "line\nbreak\ttab", "", "a  b"]


def sentencepiece_like() -> Rules:
    """Llama 2's kind: spaces are written ▁, what is not known falls back to bytes."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁h"]
    rules = Rules(
        models.BPE(
            {token: index for index, token in enumerate(tokens)}, [("▁", "h")],
            unk_token="<unk>", byte_fallback=True, fuse_unk=True,
        )
    )  # fmt: skip
    rules.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    rules.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    rules.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return rules


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_a_byte_level_vocabulary(tmp_path: Path, text: str) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path, {}, ChatFiles(tmp_path))
    tokens = tokenizer.encode(text, add_special=True, parse_special=True)
    assert b"".join(map(tokenizer.piece, tokens)).decode() == text


def test_every_byte_has_its_piece(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path, {}, ChatFiles(tmp_path))
    assert {tokenizer.piece(token) for token in range(256)} == {bytes([b]) for b in range(256)}
    text = "".join(map(chr, range(0x800)))
    tokens = tokenizer.encode(text, add_special=False, parse_special=False)
    assert b"".join(map(tokenizer.piece, tokens)).decode() == text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_of_a_vocabulary_with_byte_fallback(text: str) -> None:
    tokenizer = Tokenizer(sentencepiece_like())
    tokens = tokenizer.encode(text, add_special=False, parse_special=True)
    # Such a vocabulary begins every text with a space; within an answer, a space is a space.
    assert b"".join(map(tokenizer.piece, tokens)).decode() == (" " + text if text else "")


def test_word_pieces() -> None:
    vocabulary = {"[UNK]": 0, "play": 1, "##ing": 2, "is": 3}
    rules = Rules(models.WordPiece(vocabulary, unk_token="[UNK]"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.decoder = decoders.WordPiece()
    tokenizer = Tokenizer(rules)
    tokens = tokenizer.encode("is playing", add_special=False, parse_special=True)
    assert b"".join(map(tokenizer.piece, tokens)) == b" is playing"


def test_special_tokens(tmp_path: Path) -> None:
    size = write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path, {"eos_token_id": 5}, ChatFiles(tmp_path))
    text = "<|im_start|>hi<think>"
    parsed = tokenizer.encode(text, add_special=False, parse_special=True)
    plain = tokenizer.encode(text, add_special=False, parse_special=False)
    assert len(parsed) == 4
    assert len(plain) > len(parsed)
    assert b"".join(map(tokenizer.piece, parsed)) == b"hi<think>"
    assert b"".join(map(tokenizer.piece, plain)) == text.encode()
    assert tokenizer.text(parsed[0]) == "<|im_start|>"
    assert tokenizer.text(size + 5) == ""
    assert tokenizer.piece(size + 5) == b""
    assert tokenizer.size == size
    assert tokenizer.ends == {5, size - 2}
    (tmp_path / "tokenizer_config.json").unlink()
    assert read_tokenizer(tmp_path, {"eos_token_id": 5}, ChatFiles(tmp_path)).ends == {5}


def test_no_text_is_cut_short_or_filled_up() -> None:
    """As files for embeddings have it set."""
    rules = sentencepiece_like()
    rules.enable_truncation(3)
    rules.enable_padding(length=50)
    cutting, plain = Tokenizer(rules), Tokenizer(sentencepiece_like())
    tokens = cutting.encode("hello there", add_special=True, parse_special=True)
    assert tokens == plain.encode("hello there", add_special=True, parse_special=True)


def test_special_tokens_that_are_found_in_another_spelling() -> None:
    rules = Rules(models.WordPiece({"[UNK]": 0, "hi": 1, "s": 2}, unk_token="[UNK]"))
    rules.normalizer = normalizers.Lowercase()
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    rules.add_special_tokens([AddedToken("stop", special=True, normalized=True)])
    tokenizer = Tokenizer(rules)
    assert tokenizer.encode("hi STOP", add_special=False, parse_special=True) == [1, 3]
    assert tokenizer.encode("hi STOP", add_special=False, parse_special=False) == [1, 0]


def test_half_a_character_is_no_reason_to_fail(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path, {}, ChatFiles(tmp_path))
    assert tokenizer.encode("a\ud800b", add_special=False, parse_special=True)


def test_ends_from_all_that_name_them(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    config = {"eos_token_id": 3, "text_config": {"eos_token_id": 4}}
    assert ChatFiles(tmp_path).ends(config) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("chat_template.jinja", TEMPLATE),
        ("tokenizer_config.json", json.dumps({"chat_template": TEMPLATE})),
        ("chat_template.json", json.dumps({"chat_template": TEMPLATE})),
        (
            "tokenizer_config.json",
            json.dumps(
                {
                    "chat_template": [
                        {"name": "rag", "template": "no"},
                        {"name": "default", "template": TEMPLATE},
                    ]
                }
            ),
        ),
    ],
)
def test_chat_templates_wherever_they_are(tmp_path: Path, file: str, content: str) -> None:
    assert ChatFiles(tmp_path).template is None
    (tmp_path / file).write_text(content)
    assert ChatFiles(tmp_path).template == TEMPLATE


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({}, None),
    ],
)
def test_pooling(tmp_path: Path, content: dict[str, Any], pooling: str | None) -> None:
    assert read_pooling(tmp_path) is None
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(content))
    assert read_pooling(tmp_path) == pooling


def test_what_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path, {}, ChatFiles(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(EngineError, match=r"tokenizer\.json cannot be read"):
        read_tokenizer(tmp_path, {}, ChatFiles(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(EngineError, match=r"tokenizer_config\.json is not JSON"):
        ChatFiles(tmp_path)


GARBAGE = {
    "empty": b"",
    "cut off": b'{"a": ',
    "no object": b"[1]",
    "no text": bytes(range(256)),
    "of another encoding": '{"a": 1}'.encode("utf-16"),
    "nested without end": b'{"a":' * 5000,
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize(
    "file",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.json",
        "1_Pooling/config.json",
    ],
)
def test_garbage_is_refused_by_the_name_of_its_file(
    file: str, garbage: str, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / file).write_bytes(GARBAGE[garbage])
    with pytest.raises(EngineError) as caught:
        read_all(tmp_path)
    assert caught.value.kind == "bad_file"
    assert caught.value.reason.startswith(file)
    assert "\n" not in caught.value.reason


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("tokenizer_config.json", "chat_template", 3),
        ("tokenizer_config.json", "chat_template", {"default": TEMPLATE}),
        ("tokenizer_config.json", "chat_template", [{"name": "default", "template": 5}]),
        ("tokenizer_config.json", "chat_template", "half a pair: \ud800"),
        ("chat_template.json", "chat_template", True),
        ("generation_config.json", "eos_token_id", "2"),
        ("generation_config.json", "eos_token_id", [1, [2]]),
        ("generation_config.json", "eos_token_id", {"a": 1}),
        ("config.json", "eos_token_id", -1),
        ("config.json", "eos_token_id", True),
        ("config.json", "text_config", 1.5),
    ],
)
def test_values_of_another_type_are_refused_by_name(
    file: str, key: str, value: Any, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / file).write_text(json.dumps({key: value}))
    with pytest.raises(EngineError, match=f"{file}: {key} is"):
        read_all(tmp_path)


@pytest.mark.parametrize("value", [[[]], [None], 3, "\ud800", {"content": 3}])
def test_special_tokens_that_are_none_count_as_absent(value: Any, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": value}))
    assert ChatFiles(tmp_path).named == {}
    read_all(tmp_path)


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"caf\xe9")
    with pytest.raises(EngineError, match=r"chat_template\.jinja is not text in UTF-8: byte 3"):
        read_all(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "generation_config.json")
    with pytest.raises(EngineError, match=r"generation_config\.json is not a regular file"):
        ChatFiles(tmp_path)


def test_tokens_beyond_the_model_stand_as_they_are_written(tmp_path: Path) -> None:
    """Gemma's 1B has no row for the mark of an image that its vocabulary ends with."""
    size = write_tokenizer(tmp_path)
    rules = Rules.from_file(str(tmp_path / "tokenizer.json"))
    rules.add_special_tokens([AddedToken("<image>", special=True)])
    rules.save(str(tmp_path / "tokenizer.json"))
    text = "a<image><|im_end|>"
    for config in ({"vocab_size": size}, {"text_config": {"vocab_size": size}}):
        tokenizer = read_tokenizer(tmp_path, config, ChatFiles(tmp_path))
        tokens = tokenizer.encode(text, add_special=False, parse_special=True)
        assert max(tokens) < size
        assert b"".join(map(tokenizer.piece, tokens)) == b"a<image>"
        assert tokenizer.ends_answer(tokens[-1])
    tokenizer = read_tokenizer(tmp_path, {"vocab_size": size + 1}, ChatFiles(tmp_path))
    assert size in tokenizer.encode(text, add_special=False, parse_special=True)


def read_all(folder: Path) -> None:
    config = read_json_if_any(folder, "config.json")
    files = ChatFiles(folder)
    assert isinstance(files.template, str | None)
    if (folder / "tokenizer.json").exists():
        read_tokenizer(folder, config, files)
    read_pooling(folder)
