"""The checkpoint's own tokenizer, and what its files say of special tokens and of chat."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Rules

from backends.paged.files import read_json_if_any, read_text
from backends.serving.engine import EngineError

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Tokenizer:
    """Text to tokens and back, as the Tokenizer protocol says; from any thread."""

    def __init__(
        self, rules: Rules, ends: frozenset[int] = frozenset(), rows: int | None = None
    ) -> None:
        """`rows`: tokens that the model knows, where the vocabulary may have more."""
        rules.no_truncation()
        rules.no_padding()
        self.ends = ends
        added = rules.get_added_tokens_decoder()
        size = max(rules.get_vocab_size(with_added_tokens=False), 1 + max(added, default=0))
        self._rows = rows or size
        self._knows_all = size <= self._rows
        self._rules = rules
        # The same, blind to special tokens that are written out. Of a large vocabulary it takes 100 MB and
        # a second, so only for a text that has some.
        self._plain: Rules | None = None
        self._lock = Lock()
        self._pieces: dict[int, bytes] = {}
        special = [token for token in added.values() if token.special]
        self._special = [token.content for token in special]
        self._finds_verbatim = not any(token.normalized for token in special)
        self._read = _PieceReader(added, frozenset(_kinds(_decoder(rules))))

    @property
    def size(self) -> int:
        """Tokens it knows; a model may have more rows."""
        return self._rules.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of `text`, as the Tokenizer protocol says."""
        rules = self._rules if parse_special or not self._may_name_special(text) else self._blind()
        clean = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        # `encode` would hold the interpreter's lock for all of a megabyte's half a second.
        tokens: list[int] = rules.encode_batch_fast([clean], add_special_tokens=add_special)[0].ids
        return tokens if self._knows_all else list(self._known(tokens))

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

    def _known(self, tokens: Iterable[int]) -> Iterator[int]:
        """Those of `tokens` that the model has a row for. The others are added ones, put in for a model that
        sees or by whoever tuned this one; they stand as they are written."""
        for token in tokens:
            if token < self._rows:
                yield token
            else:
                written = self._blind().encode(self.text(token), add_special_tokens=False).ids
                yield from (part for part in written if part < self._rows)

    def _may_name_special(self, text: str) -> bool:
        return not self._finds_verbatim or any(name in text for name in self._special)

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
    ends = files.ends(config) | (frozenset() if named is None else {named})
    return Tokenizer(rules, ends, _vocab_size(config))


def _vocab_size(config: Mapping[str, Any]) -> int | None:
    size = (_text_config(config) or config).get("vocab_size")
    return size if type(size) is int and size > 0 else None


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's own settings, where it is a part of one that also sees."""
    inner = config.get("text_config") or {}
    if not isinstance(inner, dict):
        raise EngineError("bad_file", "config.json: text_config is no object")
    return inner


# -- tokens as bytes -------------------------------------------------------------------------------


class _PieceReader:
    """A vocabulary's spelling undone, by what the tokenizer's decoder says of it."""

    def __init__(self, added: Mapping[int, AddedToken], kinds: frozenset[str]) -> None:
        self._added = added
        self._alphabet = _byte_alphabet() if "ByteLevel" in kinds else {}
        self._has_bytes = "ByteFallback" in kinds
        self._has_words = "WordPiece" in kinds

    def __call__(self, token: int, text: str) -> bytes:
        added = self._added.get(token)
        if added is not None:
            return b"" if added.special else added.content.encode()
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


def _decoder(rules: Rules) -> Any:
    """As in tokenizer.json. Of all of `rules` as JSON, a large vocabulary would take a second."""
    return rules.decoder and json.loads(rules.decoder.__getstate__())


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
    """`tokenizer_config.json`, `generation_config.json` and the chat template of a checkpoint.

    Raises EngineError `bad_file`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tokenizer = read_json_if_any(folder, "tokenizer_config.json")
        self._generation = read_json_if_any(folder, "generation_config.json")

    @property
    def template(self) -> str | None:
        """The chat template, from whichever of its three places holds it."""
        file = read_text(self._folder, "chat_template.jinja")
        if file is not None:
            return file
        old = read_json_if_any(self._folder, "chat_template.json")
        return _template(self._tokenizer, "tokenizer_config.json") or _template(
            old, "chat_template.json"
        )

    @property
    def named(self) -> dict[str, str]:
        """Special tokens by the names that chat templates use."""
        texts = {name: _token_text(self._tokenizer.get(name)) for name in NAMED}
        return {name: text for name, text in texts.items() if text}

    def ends(self, config: Mapping[str, Any]) -> frozenset[int]:
        """Tokens by which the model says that its answer is over, as far as numbers are named."""
        ends: set[int] = set()
        ends.update(_token_ids(self._generation, "generation_config.json"))
        for part in (config, _text_config(config)):
            ends.update(_token_ids(part, "config.json"))
        return frozenset(ends)


def read_pooling(folder: Path) -> str | None:
    """How a checkpoint for embeddings pools, None for one that is not made for them."""
    config = read_json_if_any(folder, "1_Pooling/config.json")
    modes = {
        "pooling_mode_lasttoken": "last",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
    }
    return next((pooling for mode, pooling in modes.items() if config.get(mode)), None)


def _token_text(value: Any) -> str:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) and _is_text(text) else ""


def _token_ids(values: Mapping[str, Any], file: str) -> list[int]:
    given = values.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise EngineError(
            "bad_file", f"{file}: eos_token_id is {repr(given)[:60]}, not a token's number"
        )
    return ids


def _template(values: Mapping[str, Any], file: str) -> str | None:
    value = values.get("chat_template")
    if isinstance(value, list):  # several by name
        named = {str(one.get("name")): one for one in value if isinstance(one, dict)}
        value = named["default"].get("template") if "default" in named else None
    if value is not None and not (isinstance(value, str) and _is_text(value)):
        raise EngineError(
            "bad_file", f"{file}: chat_template is {repr(value)[:60]}, not a template"
        )
    return value


def _is_text(value: str) -> bool:
    """Whether no half of a surrogate pair is in it, which JSON may have."""
    return value.isascii() or value.encode("utf-8", "ignore").decode() == value
