"""The checkpoint's own tokenizer, and what its files say of special tokens and of chat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from tokenizers import Tokenizer as Rules

from backends.serving.engine import EngineError

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Text to tokens and back, as the Tokenizer protocol says; from any thread."""

    def __init__(self, rules: Rules, ends: frozenset[int] = frozenset()) -> None:
        rules.no_truncation()
        rules.no_padding()
        self.ends = ends
        self._rules = rules
        self._plain: Rules | None = None  # the same, blind to special tokens that are written out
        self._lock = Lock()
        self._pieces: dict[int, bytes] = {}
        self._read = _piece_reader(json.loads(rules.to_str()))

    @property
    def size(self) -> int:
        """Tokens it knows; a model may have more rows."""
        return self._rules.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of `text`, as the Tokenizer protocol says."""
        rules = self._rules if parse_special else self._blind()
        clean = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        # `encode` would hold the interpreter's lock for all of a megabyte's half a second.
        return rules.encode_batch_fast([clean], add_special_tokens=add_special)[0].ids

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, as the Tokenizer protocol says."""
        piece = self._pieces.get(token)
        if piece is None:
            text = self._rules.id_to_token(token)
            piece = self._pieces[token] = b"" if text is None else self._read(token, text)
        return piece

    def text(self, token: int) -> str:
        """How `token` is written in the vocabulary; empty for one that it does not have."""
        return self._rules.id_to_token(token) or ""

    def ends_answer(self, token: int) -> bool:
        """Whether the model says by `token` that its answer is over."""
        return token in self.ends

    def _blind(self) -> Rules:
        with self._lock:
            if self._plain is None:
                self._plain = Rules.from_str(self._rules.to_str())
                self._plain.encode_special_tokens = True
            return self._plain


def read_tokenizer(folder: Path, config: Mapping[str, Any], files: ChatFiles) -> Tokenizer:
    """The tokenizer of a checkpoint, with its config.json; raises EngineError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise EngineError("missing_file", f"{path.name} is missing in {folder.name}")
    try:
        rules = Rules.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception for what it cannot read
        raise EngineError("bad_file", f"{path.name} cannot be read: {error}") from None
    named = rules.token_to_id(files.named.get("eos_token", ""))
    return Tokenizer(rules, files.ends(config) | (frozenset() if named is None else {named}))


# -- tokens as bytes -------------------------------------------------------------------------------


class _PieceReader:
    """A vocabulary's spelling undone, by what the tokenizer's decoder says of it."""

    def __init__(self, added: Mapping[int, Mapping[str, Any]], kinds: frozenset[str]) -> None:
        self._added = added
        self._alphabet = _byte_alphabet() if "ByteLevel" in kinds else {}
        self._has_bytes = "ByteFallback" in kinds
        self._has_words = "WordPiece" in kinds

    def __call__(self, token: int, text: str) -> bytes:
        added = self._added.get(token)
        if added is not None:
            return b"" if added.get("special") else str(added["content"]).encode()
        if self._alphabet:
            return b"".join(self._byte(char) for char in text)
        if self._has_bytes and (byte := _BYTE.fullmatch(text)):
            return bytes([int(byte[1], 16)])
        if self._has_words:
            text = text[2:] if text.startswith("##") else " " + text
        return text.replace("\u2581", " ").encode()

    def _byte(self, char: str) -> bytes:
        byte = self._alphabet.get(char)
        return char.encode() if byte is None else bytes([byte])


def _piece_reader(rules: Mapping[str, Any]) -> _PieceReader:
    added = {int(token["id"]): token for token in rules.get("added_tokens") or ()}
    return _PieceReader(added, frozenset(_kinds(rules.get("decoder"))))


def _kinds(decoder: Any) -> Iterator[str]:
    if isinstance(decoder, dict):
        yield str(decoder.get("type"))
        for inner in decoder.get("decoders") or ():
            yield from _kinds(inner)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, undone."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    stand_ins = {chr(256 + index): byte for index, byte in enumerate(others)}
    return stand_ins | {chr(byte): byte for byte in printable}


# -- what the files beside it say ------------------------------------------------------------------


class ChatFiles:
    """`tokenizer_config.json`, `generation_config.json` and the chat template of a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = _read_json(folder / "tokenizer_config.json")
        self._generation = _read_json(folder / "generation_config.json")

    @property
    def template(self) -> str | None:
        """The chat template, from whichever of its three places holds it."""
        file = self._folder / "chat_template.jinja"
        if file.is_file():
            return file.read_text("utf-8")
        old = _read_json(self._folder / "chat_template.json").get("chat_template")
        return _default_template(self._tokenizer.get("chat_template")) or _default_template(old)

    @property
    def named(self) -> dict[str, str]:
        """Special tokens by the names that chat templates use."""
        texts = {name: _token_text(self._tokenizer.get(name)) for name in NAMED}
        return {name: text for name, text in texts.items() if text}

    def ends(self, config: Mapping[str, Any]) -> frozenset[int]:
        """Tokens by which the model says that its answer is over, as far as numbers are named."""
        ends: set[int] = set()
        for source in (self._generation, config, config.get("text_config") or {}):
            given = source.get("eos_token_id")
            ends.update(given if isinstance(given, list) else [] if given is None else [given])
        return frozenset(ends)


def read_pooling(folder: Path) -> str | None:
    """How a checkpoint for embeddings pools, None for one that is not made for them."""
    config = _read_json(folder / "1_Pooling" / "config.json")
    modes = {
        "pooling_mode_lasttoken": "last",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
    }
    return next((pooling for mode, pooling in modes.items() if config.get(mode)), None)


def _token_text(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _default_template(value: Any) -> str | None:
    if isinstance(value, list):  # several by name
        named = {str(item.get("name")): item.get("template") for item in value}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in the file; nothing where there is no file. Raises EngineError."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineError("bad_file", f"{path.name} cannot be read: {error}") from None
    return value if isinstance(value, dict) else {}
