"""Models that tell how well a document fits a query: what they read, and what their outputs mean.

As llama.cpp's own server has it, whose conversion of such models writes the header accordingly; but that a BERT's
document ends with its separator, as such models are trained, and there it does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backends.llamacpp.binding import L
from backends.llamacpp.vocabulary import Vocabulary, metadata
from backends.serving.engine import EngineError

YES_AND_NO = ("qwen3", "qwen3vl")  # architectures whose two outputs are probabilities of yes and no


def check(model: Any) -> None:
    """Raise EngineError for a model that sorts texts into classes of its own."""
    num_outputs: int = L.llama_model_n_cls_out(model)
    expected = 2 if metadata(model, "general.architecture") in YES_AND_NO else 1
    if num_outputs != expected:
        reason = f"Models that sort texts into {num_outputs} classes are not supported"
        raise EngineError("unsupported", reason)


def score(outputs: Sequence[float]) -> float:
    """From 0 to 1: the probability of yes, or the logistic function of the one output there is."""
    if len(outputs) > 1:
        return outputs[0]
    return 0.5 * (1.0 + math.tanh(0.5 * outputs[0]))  # never overflows


class Pairs:
    """Query and document as one input."""

    def __init__(self, model: Any, vocabulary: Vocabulary) -> None:
        template = L.llama_model_chat_template(model, b"rerank")
        self._template = template.decode("utf-8", "replace") if template else None
        self._vocabulary = vocabulary
        vocab = vocabulary.pointer
        end: int = L.llama_vocab_eos(vocab)
        separator: int = L.llama_vocab_sep(vocab)
        ends = [separator if end < 0 else end] if L.llama_vocab_get_add_eos(vocab) else []
        self._begin = [L.llama_vocab_bos(vocab)] if L.llama_vocab_get_add_bos(vocab) else []
        separators = [separator] if L.llama_vocab_get_add_sep(vocab) else []
        self._between = ends + separators
        self._end = ends or separators

    def __call__(self, query: str, document: str) -> list[int]:
        """The tokens. May be called from any thread."""
        encode = self._vocabulary.encode
        if self._template is not None:
            before, _, after = self._template.partition("{document}")
            text = before.replace("{query}", query) + document + after.replace("{query}", query)
            return encode(text, add_special=False, parse_special=True)
        first = encode(query, add_special=False, parse_special=False)
        second = encode(document, add_special=False, parse_special=False)
        return [*self._begin, *first, *self._between, *second, *self._end]
