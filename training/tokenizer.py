"""Byte-level BPE tokenizers, and the check that keeps them readable for llama.cpp.

The pre-tokenizers are written so that llama.cpp's `smollm` and `qwen2` split alike. No normaliser:
llama.cpp has none.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.documents import END, END_OF_TEXT, START

SPECIAL = [END_OF_TEXT, START, END]
# Not special: skip_special_tokens must leave them in the answer for a tool parser to find.
MARKERS = ["<tool_call>", "</tool_call>"]

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def pre_tokenizer(kind: str) -> pre_tokenizers.PreTokenizer:
    """`kind` is the value of tokenizer.ggml.pre in the GGUF file."""
    if kind == "smollm":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    if kind == "qwen2":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    raise ValueError(f"unknown pre-tokenizer {kind!r}")


def train_tokenizer(texts: Iterable[str], kind: str, vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKERS),
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in MARKERS])
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"too little text for {vocab_size} tokens")
    return tokenizer
