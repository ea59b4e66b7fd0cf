"""Documents to rows of tokens. A row starts where a document starts; others follow back to back.

Nothing masks one document from the next: a row then doubles as a chat that changes its subject.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from training.documents import Document

Encoded = tuple[NDArray[np.int16], NDArray[np.float16]]
Writer = Callable[[Random], Document]
AT_ONCE = 2000


def encode(tokenizer: Tokenizer, documents: list[Document]) -> Iterator[Encoded]:
    texts = [segment.text for document in documents for segment in document]
    encodings = iter(tokenizer.encode_batch_fast(texts))
    for document in documents:
        parts = [next(encodings).ids for _ in document]
        weights = [segment.weight for segment in document]
        yield (
            np.concatenate([np.array(part, dtype=np.int16) for part in parts]),
            np.repeat(weights, [len(part) for part in parts]).astype(np.float16),
        )


def endless(write: Writer, rng: Random, tokenizer: Tokenizer) -> Iterator[Encoded]:
    while True:
        yield from encode(tokenizer, [write(rng) for _ in range(AT_ONCE)])


def row(source: Iterator[Encoded], length: int) -> Encoded:
    """One token more than `length`: the last one is only a target."""
    tokens, weights = np.zeros(length + 1, np.int16), np.zeros(length + 1, np.float16)
    filled = 0
    while filled <= length:
        ids, weight = next(source)
        end = min(length + 1, filled + len(ids))
        tokens[filled:end], weights[filled:end] = ids[: end - filled], weight[: end - filled]
        filled = end
    return tokens, weights


def batch(source: Iterator[Encoded], rows: int, length: int) -> tuple[Tensor, Tensor]:
    pairs = list(islice(iter(lambda: row(source, length), None), rows))
    tokens = torch.from_numpy(np.stack([pair[0] for pair in pairs])).long()
    weights = torch.from_numpy(np.stack([pair[1] for pair in pairs])).float()
    return tokens, weights
