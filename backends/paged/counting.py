"""A checkpoint's tokenizer and template, without its weights, and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.paged.files import read_json
from backends.paged.tokenizer import ChatFiles, read_tokenizer
from backends.serving.count import Vocabulary
from backends.serving.engine import ModelInfo


def open_vocabulary(options: Mapping[str, Any]) -> Vocabulary:
    """What counting needs of the model; raises EngineError."""
    folder = Path(options["path"])
    files = ChatFiles(folder)
    tokenizer = read_tokenizer(folder, read_json(folder, "config.json"), files)
    named = files.named
    info = ModelInfo(
        name=str(options["model"]),
        context=0,
        trained_context=0,
        vocab_size=tokenizer.size,
        capabilities=frozenset({"chat"}),
        chat_template=files.template,
        bos_token=named.pop("bos_token", ""),
        eos_token=named.pop("eos_token", ""),
        special=named,
    )
    return Vocabulary(info, tokenizer)
