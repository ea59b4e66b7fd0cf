"""The echo engine's tokenizer: there is nothing to load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backends.echo.tokenizer import SPECIAL, VOCAB_SIZE, ByteTokenizer
from backends.serving.count import Vocabulary
from backends.serving.engine import ModelInfo


def open_vocabulary(options: Mapping[str, Any]) -> Vocabulary:
    """What counting needs of the model."""
    info = ModelInfo(
        name=str(options["model"]),
        context=0,
        trained_context=0,
        vocab_size=VOCAB_SIZE,
        capabilities=frozenset({"chat"}),
        chat_template=None,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
    )
    return Vocabulary(info, ByteTokenizer())
