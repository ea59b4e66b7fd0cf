"""A tokenizer with one token for each byte, and four special ones."""

from __future__ import annotations

import re

SPECIAL = ("<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")
BOS, EOS, IM_START, IM_END = range(256, 260)
VOCAB_SIZE = 260

_IDS = {text.encode(): 256 + index for index, text in enumerate(SPECIAL)}
_SPLIT = re.compile(b"(" + b"|".join(map(re.escape, _IDS)) + b")")
_PIECES = [bytes([byte]) for byte in range(256)] + [b""] * len(SPECIAL)


class ByteTokenizer:
    """Keeps `serving.engine.Tokenizer`."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The bytes of `text`, behind BOS where `add_special` asks for it."""
        tokens = [BOS] if add_special else []
        data = text.encode("utf-8", "replace")
        if not parse_special:
            return tokens + list(data)
        for part in _SPLIT.split(data):
            if part in _IDS:
                tokens.append(_IDS[part])
            else:
                tokens += part
        return tokens

    def piece(self, token: int) -> bytes:
        """The byte; nothing for a special token."""
        return _PIECES[token]

    def text(self, token: int) -> str:
        """A special token's name; a byte has none that could not be another character's too."""
        return SPECIAL[token - 256] if 256 <= token < VOCAB_SIZE else ""

    def ends_answer(self, token: int) -> bool:
        """Whether `token` is one of the two that end a message."""
        return token in (EOS, IM_END)
