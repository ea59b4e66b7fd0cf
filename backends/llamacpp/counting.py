"""A GGUF's tokenizer and template, without its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from backends.llamacpp import gguf_file
from backends.llamacpp import vocabulary as llama
from backends.llamacpp.binding import L, log
from backends.serving.count import Vocabulary
from backends.serving.engine import EngineError, ModelInfo


def open_vocabulary(options: Mapping[str, Any]) -> Vocabulary:
    """What counting needs of the model; raises EngineError."""
    path = str(options["path"])
    gguf_file.check(path)
    log.install()
    L.llama_backend_init()
    params = L.llama_model_default_params()
    params.vocab_only = True
    model = L.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise EngineError("bad_file", "The model's vocabulary cannot be read.")
    vocabulary = llama.Vocabulary(model)
    template = L.llama_model_chat_template(model, None)
    named = vocabulary.named
    info = ModelInfo(
        name=str(options["model"]),
        context=0,
        trained_context=0,
        vocab_size=vocabulary.size,
        capabilities=frozenset({"chat", "vision"} if options.get("mmproj") else {"chat"}),
        chat_template=template.decode("utf-8", "replace") if template else None,
        bos_token=named.pop("bos_token", ""),
        eos_token=named.pop("eos_token", ""),
        special=named,
    )
    return Vocabulary(info, vocabulary, lambda: L.llama_model_free(model))
