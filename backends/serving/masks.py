"""llguidance by its C interface, which its package for Python has in it.

Its own classes for Python keep the interpreter's lock while they read a vocabulary, for a second with a
large one, and every stream stands still. Calls through ctypes need not.

Layouts and names are those of llguidance.h; structures there grow at their ends only.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_ERROR_BYTES = 4096
_Tokenize = ctypes.CFUNCTYPE(
    c_size_t, c_void_p, POINTER(c_uint8), c_size_t, POINTER(c_uint32), c_size_t
)


class MaskError(Exception):
    """What llguidance says went wrong."""


class _TokenizerInit(ctypes.Structure):
    """LlgTokenizerInitV2."""

    _fields_ = (
        ("struct_size", c_size_t),
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_char_p),
        ("tokenizer_json", c_char_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", _Tokenize),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", POINTER(c_char_p)),
        ("tok_eos_extra", POINTER(c_uint32)),
        ("tok_eos_extra_count", c_uint32),
    )


class _MatcherInit(ctypes.Structure):
    """LlgConstraintInit up to what is set here, and more room than the rest of it takes."""

    _fields_ = (
        ("tokenizer", c_void_p),
        ("log_buffer_level", c_uint32),
        ("log_stderr_level", c_uint32),
        ("rest", c_uint8 * 496),
    )


@cache
def _library() -> Any:
    """Raises MaskError where the package has no C interface."""
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "llg_new_tokenizer_v2": (c_void_p, (POINTER(_TokenizerInit), c_char_p, c_size_t)),
        "llg_free_tokenizer": (None, (c_void_p,)),
        "llg_constraint_init_set_defaults": (None, (POINTER(_MatcherInit), c_void_p)),
        "llg_new_matcher": (c_void_p, (POINTER(_MatcherInit), c_char_p, c_char_p)),
        "llg_clone_matcher": (c_void_p, (c_void_p,)),
        "llg_free_matcher": (None, (c_void_p,)),
        "llg_matcher_compute_mask_into": (c_int32, (c_void_p, c_void_p, c_size_t)),
    }
    return _with(ctypes.CDLL, signatures)


@cache
def _quick() -> Any:
    """What takes microseconds, with the lock held: to get it back may take longer. Raises MaskError."""
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "llg_matcher_consume_token": (c_int32, (c_void_p, c_uint32)),
        "llg_matcher_is_stopped": (c_bool, (c_void_p,)),
        "llg_matcher_get_error": (c_char_p, (c_void_p,)),
    }
    return _with(ctypes.PyDLL, signatures)


def _with(kind: type[ctypes.CDLL], signatures: dict[str, tuple[Any, tuple[Any, ...]]]) -> Any:
    from llguidance import _lib

    library = kind(_lib.__file__)
    try:
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise MaskError(f"this version of llguidance cannot be used: {error}") from None
    return library


@dataclass(slots=True)
class Words:
    """A vocabulary as llguidance wants it."""

    tokens: list[bytes] = field(default_factory=list)  # those of control tokens begin with 0xff
    ends: list[int] = field(default_factory=list)  # tokens that end an answer, at least one


class Trie:
    """A vocabulary that llguidance has read. It may be used from any thread."""

    def __init__(
        self, words: Words, encode: Callable[[str], Sequence[int]], slices: Sequence[str]
    ) -> None:
        """`encode` tells how the model itself spells what a grammar leaves no choice about; `slices`
        are regular expressions for which masks are prepared. Raises MaskError."""
        library = _library()
        self.size = len(words.tokens)
        self._tokenize = _Tokenize(_tokenizing(encode))  # it must live as long as this does
        lengths = (c_uint32 * self.size)(*map(len, words.tokens))
        extra = (c_uint32 * len(words.ends))(*words.ends[1:])
        init = _TokenizerInit(
            struct_size=ctypes.sizeof(_TokenizerInit),
            vocab_size=self.size,
            tok_eos=words.ends[0],
            token_lens=ctypes.addressof(lengths),
            token_bytes=b"".join(words.tokens),
            tokenize_assumes_string=True,
            tokenize_fn=self._tokenize,
            slices=(c_char_p * (len(slices) + 1))(*(one.encode() for one in slices)),
            tok_eos_extra=extra,
            tok_eos_extra_count=len(words.ends) - 1,
        )
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        self.pointer = library.llg_new_tokenizer_v2(ctypes.byref(init), error, _ERROR_BYTES)
        if not self.pointer:
            raise MaskError(error.value.decode("utf-8", "replace"))
        _freed_with(self, library.llg_free_tokenizer, self.pointer)

    def compile(self, rules: str) -> Matcher:
        """A matcher at the beginning of an answer by a grammar, Lark or llguidance's JSON. Raises
        MaskError."""
        library = _library()
        try:
            data = rules.encode()
        except UnicodeEncodeError:
            raise MaskError("half a surrogate pair is no text") from None
        if b"\0" in data:
            raise MaskError("a grammar cannot hold NUL characters")
        init = _MatcherInit()
        library.llg_constraint_init_set_defaults(ctypes.byref(init), self.pointer)
        init.log_stderr_level = 0
        kind = b"llguidance" if data.startswith(b"{") else b"lark"
        matcher = Matcher(library.llg_new_matcher(ctypes.byref(init), kind, data), self)
        matcher.check()
        return matcher


def _freed_with(owner: object, free: Callable[[int], None], pointer: int) -> None:
    """Not when the interpreter ends: other threads may be in the middle of a mask then."""
    weakref.finalize(owner, free, pointer).atexit = False


def _tokenizing(encode: Callable[[str], Sequence[int]]) -> Callable[..., int]:
    def tokenize(_: Any, data: Any, size: int, tokens: Any, room: int) -> int:
        found = encode(ctypes.string_at(data, size).decode("utf-8", "replace"))
        for place, token in enumerate(found[:room]):
            tokens[place] = token
        return len(found)

    return tokenize


class Matcher:
    """Where one answer stands in its grammar. One thread at a time."""

    def __init__(self, pointer: int, trie: Trie) -> None:
        self._library, self._quick = _library(), _quick()
        self._pointer = pointer
        self._trie = trie
        self._mask = (c_uint32 * ((trie.size + 31) // 32))()
        _freed_with(self, self._library.llg_free_matcher, pointer)

    def copy(self) -> Matcher:
        """Another at the same place."""
        return Matcher(self._library.llg_clone_matcher(self._pointer), self._trie)

    def mask(self) -> bytes:
        """Which tokens may come next, a bit for each. Raises MaskError."""
        size = ctypes.sizeof(self._mask)
        if self._library.llg_matcher_compute_mask_into(self._pointer, self._mask, size):
            self.check()
        return bytes(self._mask)

    def accept(self, token: int) -> bool:
        """`token` has come; whether nothing but the end may follow. Raises MaskError."""
        if self._quick.llg_matcher_consume_token(self._pointer, token):
            self.check()
        is_over: bool = self._quick.llg_matcher_is_stopped(self._pointer)
        return is_over

    def check(self) -> None:
        """Raises MaskError if something has gone wrong."""
        error = self._quick.llg_matcher_get_error(self._pointer)
        if error is not None:
            # What follows shows llguidance's own state, and the grammar once more.
            text = error.decode("utf-8", "replace").partition("<state>")[0]
            raise MaskError(" ".join(text.split()))
