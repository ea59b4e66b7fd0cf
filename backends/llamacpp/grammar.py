"""A GBNF grammar that an answer must follow."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from backends.llamacpp.binding import L, log
from backends.serving.engine import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUM_LIKELY = 512  # candidates tried before the whole vocabulary, which takes tens of milliseconds


class Grammar:
    """Where an answer stands in its grammar. Raises EngineError `bad_request` on one that is none."""

    def __init__(self, vocab: Any, text: str) -> None:
        lines = log.record()
        self._sampler = L.llama_sampler_init_grammar(vocab, text.encode(), b"root")
        log.stop()
        if not self._sampler:
            detail = " ".join(" ".join(lines).split())[:200]
            raise EngineError(
                "bad_request", f"The grammar cannot be used: {detail or 'it is wrong'}"
            )

    def __del__(self) -> None:
        if getattr(self, "_sampler", None):
            L.llama_sampler_free(self._sampler)
            self._sampler = None

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        one = L.llama_token_data(token, 1.0, 0.0)
        array = L.llama_token_data_array(ctypes.pointer(one), 1, -1, False)
        L.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return bool(one.logit != float("-inf"))

    def filter(self, logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """`logits` with every token that may not come next at minus infinity; None when none may.

        As long as any of the likeliest tokens fits, the others are not looked at and do not count.
        """
        import numpy as np

        size = len(logits)
        if size > NUM_LIKELY:
            likely = np.argpartition(logits, size - NUM_LIKELY)[size - NUM_LIKELY :]
            filtered = self._filter(logits, likely.astype(np.int32))
            if filtered is not None:
                return filtered
        return self._filter(logits, np.arange(size, dtype=np.int32))

    def accept(self, token: int) -> None:
        """`token`, which is allowed, has come."""
        L.llama_sampler_accept(self._sampler, token)

    def _filter(
        self, logits: NDArray[np.float32], ids: NDArray[np.int32]
    ) -> NDArray[np.float32] | None:
        import numpy as np

        table = np.zeros(len(ids), dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        table["id"], table["logit"] = ids, logits[ids]
        data = table.ctypes.data_as(ctypes.POINTER(L.llama_token_data))
        array = L.llama_token_data_array(data, len(ids), -1, False)
        L.llama_sampler_apply(self._sampler, ctypes.byref(array))
        allowed = ids[np.isfinite(table["logit"])]
        if not len(allowed):
            return None
        filtered = np.full_like(logits, -np.inf)
        filtered[allowed] = logits[allowed]
        return filtered
