"""The shortest way from a GGUF file to its greedy answers: llama.cpp, one sequence, argmax."""

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import llama_cpp as L
import numpy as np

BATCH = 512


@L.llama_log_callback
def silent(level: int, text: bytes, user_data: Any) -> None:
    """Must outlive every call into llama.cpp, hence a module's own."""


L.llama_log_set(silent, None)


class GreedyModel:
    def __init__(self, path: Path, context: int = 2048) -> None:
        params = L.llama_model_default_params()
        # Some builds crash on AMX when they repack quantised weights.
        params.use_extra_bufts = False
        self.model = L.llama_model_load_from_file(str(path).encode(), params)
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab = L.llama_model_get_vocab(self.model)
        self.context = L.llama_init_from_model(self.model, context_params(context))
        self.memory = L.llama_get_memory(self.context)
        self.template = jinja2.Environment().from_string(self.metadata("tokenizer.chat_template"))
        self.template.environment.filters["tojson"] = json.dumps

    def close(self) -> None:
        L.llama_free(self.context)
        L.llama_model_free(self.model)

    def metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(16384)
        length = L.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        assert length >= 0, f"{key} is missing"
        return buffer.value.decode()

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        tokens = (L.llama_token * (len(data) + 1))()
        count = L.llama_tokenize(self.vocab, data, len(data), tokens, len(tokens), False, True)
        return list(tokens[:count])

    def chat(self, messages: list[dict[str, Any]], **extra: Any) -> str:
        text = self.template.render(messages=messages, add_generation_prompt=True, **extra)
        return self.complete(text)

    def ask(self, question: str, system: str = "") -> str:
        turns = [{"role": "system", "content": system}] if system else []
        return self.chat([*turns, {"role": "user", "content": question}])

    def complete(self, prompt: str, limit: int = 400) -> str:
        """The answer; an unfinished one is marked, so that it never equals what was wanted."""
        pieces = []
        for count, token in enumerate(self.tokens(self.tokenize(prompt))):
            pieces.append(self.piece(token))
            if count == limit:
                pieces.append(b"... and so on")
                break
        return b"".join(pieces).decode(errors="replace")

    def tokens(self, prompt: list[int]) -> Iterator[int]:
        L.llama_memory_clear(self.memory, False)
        token = self.next_token(prompt)
        while not L.llama_vocab_is_eog(self.vocab, token):
            yield token
            token = self.next_token([token])

    def next_token(self, tokens: list[int]) -> int:
        for start in range(0, len(tokens), BATCH):
            self.decode(tokens[start : start + BATCH])
        size = L.llama_vocab_n_tokens(self.vocab)
        logits = np.ctypeslib.as_array(L.llama_get_logits_ith(self.context, -1), (size,))
        return int(logits.argmax())

    def decode(self, tokens: list[int]) -> None:
        array = (L.llama_token * len(tokens))(*tokens)
        failed = L.llama_decode(self.context, L.llama_batch_get_one(array, len(tokens)))
        assert not failed, "llama.cpp could not decode"

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(128)
        length = L.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]


def context_params(context: int) -> Any:
    params = L.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = context, BATCH, BATCH
    # One thread: for so small a model a second one costs more in barriers than it computes.
    params.n_threads = params.n_threads_batch = 1
    return params
