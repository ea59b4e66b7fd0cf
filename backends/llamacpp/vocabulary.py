"""The model's tokenizer."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from backends.llamacpp.binding import L, quick

INT32_MIN = -(2**31)


class Vocabulary:
    """Text to tokens and back. llama.cpp's tokenizer may be called from any thread."""

    def __init__(self, model: Any) -> None:
        self._vocab = L.llama_model_get_vocab(model)
        self.size: int = L.llama_vocab_n_tokens(self._vocab)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}

    @property
    def pointer(self) -> Any:
        return self._vocab

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of `text`, as the Tokenizer protocol says."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = L.llama_tokenize(
                self._vocab, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            if count == INT32_MIN:
                raise OverflowError("text is too long to tokenize")
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes of `token`, as the Tokenizer protocol says."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def ends_answer(self, token: int) -> bool:
        """Whether the model says by `token` that its answer is over."""
        ends = self._ends.get(token)
        if ends is None:
            ends = self._ends[token] = bool(quick.llama_vocab_is_eog(self._vocab, token))
        return ends

    def text(self, token: int) -> str:
        """How `token` is written in the vocabulary; empty for none (-1)."""
        if not 0 <= token < self.size:
            return ""
        return (quick.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    @property
    def named(self) -> dict[str, str]:
        """Special tokens by the names that chat templates use."""
        functions = {
            "bos_token": L.llama_vocab_bos,
            "eos_token": L.llama_vocab_eos,
            "pad_token": L.llama_vocab_pad,
            "sep_token": L.llama_vocab_sep,
            "eot_token": L.llama_vocab_eot,
            "mask_token": L.llama_vocab_mask,
            "fim_prefix": L.llama_vocab_fim_pre,
            "fim_suffix": L.llama_vocab_fim_suf,
            "fim_middle": L.llama_vocab_fim_mid,
        }
        texts = {name: self.text(function(self._vocab)) for name, function in functions.items()}
        return {name: text for name, text in texts.items() if text}

    def _read_piece(self, token: int) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = quick.llama_token_to_piece(self._vocab, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


def metadata(model: Any, key: str) -> str | None:
    """A scalar of the model's GGUF header, as text."""
    buffer = ctypes.create_string_buffer(512)
    count = L.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if count >= 0 else None


def display_name(model: Any, path: str) -> str:
    """What the model calls itself, or else its file's name."""
    return metadata(model, "general.name") or os.path.basename(path)
