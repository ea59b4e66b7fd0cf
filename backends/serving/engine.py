"""What an engine offers the serving layer, and the values that pass between them.

An engine turns prompt tokens into answer tokens. Text, chat templates, stop strings, JSON and HTTP are
the serving layer's. Engines compute on a thread of their own; every method here is called on the
event loop's thread and returns at once unless it is a coroutine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

FinishReason = Literal["stop", "length"]


class EngineError(Exception):
    """A request or a load that cannot be served, in one sentence that a client may read.

    `kind` is one of the contract's failure kinds for loads, or one of `bad_request`,
    `context_length_exceeded`, `unavailable` for requests. A request that fails with `crashed` says that
    the engine can serve nothing any more: the worker reports it and ends.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Constraint(Protocol):
    """Where one answer stands in its grammar. It belongs to one sequence; calls take microseconds,
    and come from one thread at a time. Both methods raise EngineError where the grammar has become
    too complex to follow."""

    def mask(self) -> bytes:
        """Which tokens may come next: one bit for each, token 0 in the lowest bit of the first byte,
        ceil(vocab_size / 32) little-endian int32 words in all. Tokens that end the answer are set
        where the grammar is satisfied. Valid until `accept`."""
        ...

    def accept(self, token: int) -> bool:
        """`token`, which the mask allowed, has come; whether the answer is complete by it, so that
        nothing but its end could follow."""
        ...


class Grammar(Protocol):
    """What an answer may say, compiled once; any number of sequences may follow it at a time."""

    def start(self) -> Constraint:
        """The constraint of one answer, at its beginning."""
        ...


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen, for one sequence. The defaults change nothing (temperature 1)."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = -1  # tokens the penalties look back over; -1: the whole sequence
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None: fresh for each request
    logprobs: int | None = None  # None: off; n: the chosen token's and the n best alternatives'
    ignore_eos: bool = False
    grammar: Grammar | None = None  # what the answer may say


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. `len(prompt) + max_tokens` never exceeds the context (serving clamps)."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: SamplingParams
    cache_scope: str = ""  # prompt prefixes are shared only within one scope (one API key)
    prompt_logprobs: bool = False  # also score the prompt (completions with echo and logprobs)
    images: Sequence[object] = ()  # of a prompt with images: what `see` gave


@dataclass(frozen=True, slots=True)
class SeenPrompt:
    """A prompt, perhaps with images. Where one stands, `tokens` has as many stand-ins as the model makes of it:
    negative numbers, the same for the same image and for no other."""

    tokens: Sequence[int]
    images: Sequence[object] = ()  # the engine's own, for `GenerateRequest.images`


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token. `logprob` and `top` are filled when logprobs were asked for."""

    id: int
    logprob: float = 0.0
    top: tuple[tuple[int, float], ...] = ()  # (token id, logprob), best first


@dataclass(frozen=True, slots=True)
class Progress:
    """What one engine step brought one sequence.

    The end-of-answer token is not among `tokens`. The last progress of a sequence has a
    `finish_reason`. `num_cached_tokens` says how much of the prompt was not computed anew.
    """

    tokens: tuple[Token, ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[Token | None, ...] | None = None  # once, in the first progress


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of a loaded model."""

    name: str
    context: int  # longest prompt plus answer of one request, tokens
    trained_context: int
    vocab_size: int
    capabilities: frozenset[str]  # chat, completions, embeddings, rerank, infill, vision, tools
    chat_template: str | None
    bos_token: str
    eos_token: str
    special: Mapping[str, str] = field(
        default_factory=dict
    )  # others by name: those of the template, and fim_prefix, fim_suffix, fim_middle for infill
    embedding_length: int = 0

    @property
    def sees(self) -> bool:
        """Whether its prompts may have images."""
        return "vision" in self.capabilities


class Tokenizer(Protocol):
    """Text to tokens and back. Pure; `piece` is quick enough for the event loop, and `encode` may be
    called from any thread (for long texts it is)."""

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of `text`; `add_special` puts BOS/EOS as the model wants them, `parse_special` reads
        special tokens written out in the text."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that `token` adds to the text; empty for control tokens."""
        ...

    def text(self, token: int) -> str:
        """How `token` is written in the vocabulary; empty for one that it does not have."""
        ...

    def ends_answer(self, token: int) -> bool:
        """Whether the model says by `token` that its answer is over."""
        ...


class Engine(Protocol):
    """A loaded model."""

    info: ModelInfo
    tokenizer: Tokenizer

    def generate(self, request: GenerateRequest) -> AsyncIterator[Progress]:
        """Generate one sequence. Closing the iterator, or cancelling whoever reads it, stops the
        sequence within one step and gives its place back.

        Raises EngineError on the first `anext` for a request that can never be served.
        """
        ...

    async def embed(
        self, inputs: Sequence[Sequence[int]], *, cache_scope: str = ""
    ) -> list[list[float]]:
        """One pooled vector for each token sequence, as the model pools; raises EngineError."""
        ...

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from the next step on."""
        ...

    def metrics(self) -> str:
        """Prometheus text."""
        ...

    def memory(self) -> dict[str, int]:
        """Measured bytes by device; `host` as proportional set size."""
        ...

    async def close(self) -> None:
        """Stop computing and free the model. Sequences still running end with EngineError."""
        ...


@runtime_checkable
class CanSee(Protocol):
    """An engine that may take images. Whether its model does, the capability `vision` says."""

    async def see(self, parts: Sequence[str | bytes], *, add_special: bool) -> SeenPrompt:
        """A prompt of texts and of images between them, each a PNG, JPEG, GIF or BMP file; `add_special`
        as the Tokenizer has it. Raises EngineError `bad_request` for an image that cannot be read."""
        ...


@runtime_checkable
class CanRank(Protocol):
    """An engine that may tell how well a document fits a query. Whether its model does, the capability
    `rerank` says."""

    info: ModelInfo

    def pair(self, query: str, document: str) -> list[int]:
        """Tokens of the two, as the model was trained to read them together. May be called from any thread."""
        ...

    async def rank(self, pairs: Sequence[Sequence[int]], *, cache_scope: str = "") -> list[float]:
        """How well the document of each pair fits its query, from 0 to 1; raises EngineError."""
        ...


@runtime_checkable
class CanSleep(Protocol):
    """An engine that can give its device memory back and take it again. It need not be able to."""

    async def sleep(self) -> None:
        """Give device memory back. Nothing is in flight; requests raise `unavailable` until `wake`."""
        ...

    async def wake(self) -> None:
        """Take the memory again, with the model as it was."""
        ...
