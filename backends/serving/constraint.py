"""Answers that follow a grammar: llguidance's masks over this model's vocabulary.

A grammar is compiled once and kept; each answer follows a copy of its own. Compiling takes about a
millisecond; the vocabulary has to be read before the first, which is done ahead where there is time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Event

from backends.serving.engine import Constraint, EngineError, Grammar, Tokenizer
from backends.serving.masks import MaskError, Matcher, Trie, Words

MAX_KEPT = 64  # compiled grammars
_CONTROL = b"\xff"  # how llguidance tells a control token's name from text
# The text of JSON strings makes up most of an answer: masks for it are prepared.
_SLICES = [r'[^"\\\x00-\x1F\x7F]+']
_CHUNK = 256  # tokens read at a time
_PAUSE_S = 0.001  # between chunks, where nobody waits
_TRIED_TOKENS = 4
_DEAD_ENDS = ("NoExtension", "NoExtensionBias")


class GrammarError(Exception):
    """A grammar that cannot be used, in words that a client may read."""


class Compiler:
    """Makes grammars for one model. Its thread does the work, so nothing else waits for it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._vocabulary = Vocabulary(tokenizer, vocab_size)
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "grammar")
        self._is_wanted = Event()  # somebody waits for the thread
        self._is_closed = False

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    async def prepare(self) -> None:
        """Read the vocabulary before anybody needs it, with pauses for whoever computes."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare)

    def _prepare(self) -> None:
        try:
            self._vocabulary.prepare(self._pause)
        except GrammarError:
            pass  # whoever asks for a grammar is told

    def _pause(self) -> bool:
        """False: nobody will need what is being prepared."""
        self._is_wanted.wait(_PAUSE_S)
        return not self._is_closed

    async def compile(self, rules: str) -> Grammar:
        """The grammar that `rules` describe: Lark in llguidance's dialect, or its JSON.

        Raises GrammarError.
        """
        kept = self._kept.get(rules)
        if kept is not None:
            self._kept.move_to_end(rules)
            return kept
        self._is_wanted.set()
        loop = asyncio.get_running_loop()
        grammar = await loop.run_in_executor(self._thread, self._vocabulary.compile, rules)
        self._kept[rules] = grammar
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return grammar

    async def close(self) -> None:
        """Wait for the thread: it reads the vocabulary of a model that is about to be freed."""
        self._is_closed = True
        self._is_wanted.set()
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

    def prepare(self, pause: Callable[[], bool]) -> None:
        """Do what the first grammar would have to wait for, on the caller's thread. `pause` is called
        in between; where it is false, no more is done. Raises GrammarError."""
        for start in range(0, self._size, _CHUNK):
            for token in range(start, min(start + _CHUNK, self._size)):
                self._tokenizer.piece(token)  # it keeps what it has read
            if not pause():
                return
        _ = self._trie

    def compile(self, rules: str) -> Grammar:
        """As Compiler says, on the caller's thread."""
        try:
            matcher = self._trie.compile(rules)
        except MaskError as error:
            raise GrammarError(str(error)) from None
        _try_out(matcher.copy())
        return CompiledGrammar(matcher)

    @cached_property
    def _trie(self) -> Trie:
        words = self._words()
        if not words.ends:
            raise GrammarError("this model has no token that ends an answer")
        try:
            return Trie(words, self._spelled, _SLICES)
        except MaskError as error:
            raise GrammarError(str(error)) from None

    def _spelled(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=False)

    def _words(self) -> Words:
        words = Words()
        for token in range(self._size):
            piece = self._tokenizer.piece(token)
            if not piece or piece.startswith(b"<"):
                piece = self._marked(token, piece, words.ends)
            words.tokens.append(piece)
        return words

    def _marked(self, token: int, piece: bytes, ends: list[int]) -> bytes:
        """A piece of what may be a control token; one that ends answers is put among `ends`."""
        name = self._tokenizer.text(token)
        is_end = bool(name) and self._tokenizer.ends_answer(token)
        if is_end:
            ends.append(token)
        return _CONTROL + name.encode() if name and (is_end or not piece) else piece


def _try_out(matcher: Matcher) -> None:
    """What is too complex is often so from the beginning. Raises GrammarError."""
    for place in range(_TRIED_TOKENS):
        try:
            allowed = int.from_bytes(matcher.mask(), "little")
            if matcher.accept((allowed & -allowed).bit_length() - 1):
                return
        except MaskError as error:
            if str(error) not in _DEAD_ENDS:
                raise GrammarError(str(error)) from None
            if place == 0:
                raise GrammarError("no answer fits") from None
            return  # other ways may lead on


class CompiledGrammar:
    """Keeps `serving.engine.Grammar`."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def start(self) -> Constraint:
        """A constraint at the beginning of an answer."""
        return Matching(self._matcher.copy())


class Matching:
    """Keeps `serving.engine.Constraint`."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        """As the protocol says."""
        try:
            return self._matcher.mask()
        except MaskError as error:
            raise _lost(error) from None

    def accept(self, token: int) -> bool:
        """As the protocol says."""
        try:
            return self._matcher.accept(token)
        except MaskError as error:
            raise _lost(error) from None


def _lost(error: Exception) -> EngineError:
    reason = "nothing can follow" if str(error) in _DEAD_ENDS else str(error)
    return EngineError("bad_request", f"The grammar could not be followed: {reason}")
