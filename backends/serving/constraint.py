"""Answers that follow a grammar: llguidance's masks over this model's vocabulary.

A grammar is compiled once and kept; each answer follows a copy of its own. Compiling takes about a
millisecond, the first grammar of a model up to half a second more, for the vocabulary has to be read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

from backends.serving.engine import Constraint, EngineError, Grammar, Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_KEPT = 64  # compiled grammars
_CONTROL = b"\xff"  # how llguidance tells a control token's name from text
# The text of JSON strings makes up most of an answer: masks for it are prepared.
_SLICES = [r'[^"\\\x00-\x1F\x7F]+']


class GrammarError(Exception):
    """A grammar that cannot be used, in words that a client may read."""


class Compiler:
    """Makes grammars for one model. Its thread does the work, so nothing else waits for it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._vocabulary = Vocabulary(tokenizer, vocab_size)
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "grammar")

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    async def compile(self, rules: str) -> Grammar:
        """The grammar that `rules` describe: Lark in llguidance's dialect, or its JSON.

        Raises GrammarError.
        """
        kept = self._kept.get(rules)
        if kept is not None:
            self._kept.move_to_end(rules)
            return kept
        loop = asyncio.get_running_loop()
        grammar = await loop.run_in_executor(self._thread, self._vocabulary.compile, rules)
        self._kept[rules] = grammar
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return grammar

    async def close(self) -> None:
        """Wait for the thread: it reads the vocabulary of a model that is about to be freed."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)


class Vocabulary:
    """A model's tokens as llguidance wants them."""

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self._size = size  # of a row of logits, which may be longer than the tokenizer's vocabulary

    def control_token(self, text: str) -> int | None:
        """The control token that is written `text`; None where that is ordinary text."""
        ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        if len(ids) == 1 and not self._tokenizer.piece(ids[0]):
            return ids[0]
        return None

    def compile(self, rules: str) -> Grammar:
        """As Compiler says, on the caller's thread."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._trie, rules, log_level=0)
        if matcher.is_error():
            raise GrammarError(" ".join(matcher.get_error().split()))
        return CompiledGrammar(matcher)

    @cached_property
    def _trie(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        words = _Words(self._tokenizer, self._size)
        if not words.ends:
            raise GrammarError("this model has no token that ends an answer")
        return LLTokenizer(
            TokenizerWrapper(words), n_vocab=self._size, eos_token=words.ends, slices=_SLICES
        )


class _Words:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer = tokenizer
        self.tokens: list[bytes] = []
        self.special_token_ids: list[int] = []
        self.ends: list[int] = []
        for token in range(size):
            self._add(token, tokenizer.piece(token))
        self.eos_token_id = self.ends[0] if self.ends else 0

    def _add(self, token: int, piece: bytes) -> None:
        may_be_control = not piece or piece.startswith(b"<")
        if may_be_control and (name := self._tokenizer.text(token)):
            ends = self._tokenizer.ends_answer(token)
            if ends or not piece:
                piece = _CONTROL + name.encode()
                self.special_token_ids.append(token)
            if ends:
                self.ends.append(token)
        self.tokens.append(piece)

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text if isinstance(text, str) else text.decode("utf-8", "replace")
        return self._tokenizer.encode(plain, add_special=False, parse_special=False)


class CompiledGrammar:
    """Keeps `serving.engine.Grammar`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def start(self) -> Constraint:
        """A constraint at the beginning of an answer."""
        return Matching(self._matcher.deep_copy())


class Matching:
    """Keeps `serving.engine.Constraint`."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """As the protocol says."""
        mask: bytes = self._matcher.compute_bitmask()
        self._check()
        return mask

    def accept(self, token: int) -> bool:
        """As the protocol says."""
        self._matcher.consume_token(token)
        self._check()
        is_over: bool = self._matcher.is_stopped()
        return is_over

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = " ".join(self._matcher.get_error().split())
            raise EngineError("bad_request", f"The grammar could not be followed: {reason}")
