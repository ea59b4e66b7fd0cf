"""One choice of an answer: what the engine brings, step by step, into what the client gets.

Tokens become text, text is cut at stop strings and split into content, reasoning and tool calls, and each
token's logprob waits until the token's text goes out, so a stream says the same as a whole answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from backends.serving.engine import GenerateRequest, Progress, Token, Tokenizer
from backends.serving.text import TextStream
from backends.serving.tools import AnswerReader, CallPart


@dataclass(slots=True)
class Delta:
    """What one step adds to one choice. The last delta of a choice has the `finish_reason`."""

    text: str = ""
    reasoning: str = ""
    calls: Sequence[CallPart] = ()
    tokens: Sequence[tuple[Token, int]] = ()  # scored tokens, and where their text begins
    finish_reason: str | None = None
    prompt_tokens: Sequence[Token | None] | None = None

    def __bool__(self) -> bool:
        return bool(
            self.text
            or self.reasoning
            or self.calls
            or self.tokens
            or self.finish_reason
            or self.prompt_tokens is not None
        )


@dataclass(slots=True)
class Choice:
    """One sequence of the engine's, seen from the client's side."""

    index: int
    request: GenerateRequest
    tokenizer: Tokenizer
    stops: Sequence[str] = ()
    reader: AnswerReader | None = None
    shown: Mapping[int, bytes] = field(default_factory=dict)  # control tokens the reader must see
    stop_tokens: frozenset[int] = frozenset()  # end the answer, and are not a part of it
    min_tokens: int = 0  # so many may not hold what ends the answer
    generates: bool = True  # false: only the prompt is wanted (max_tokens 0)
    num_tokens: int = 0
    num_cached_tokens: int = 0
    num_reasoning_tokens: int = 0
    finish_reason: str | None = None
    _text: TextStream = field(init=False)
    _piece: Callable[[int], bytes] = field(init=False)
    _met_stop_token: bool = False
    _unsent: list[tuple[Token, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text = TextStream(() if self.min_tokens else self.stops)
        piece, shown = self.tokenizer.piece, self.shown
        self._piece = (lambda token: shown.get(token) or piece(token)) if shown else piece

    @property
    def stopped_by(self) -> str | None:
        """The stop string that ended the answer, if one did."""
        return self._text.stopped_by

    def take(self, progress: Progress) -> Delta:
        """One step of the engine, as it changes the answer."""
        self.num_cached_tokens = max(self.num_cached_tokens, progress.num_cached_tokens)
        text = self._take_tokens(progress.tokens) if self.generates else ""
        reason: str | None = "stop" if self._met_stop_token else progress.finish_reason
        if not self.generates:
            reason = "length"
        elif reason is not None and not self._text.is_stopped:
            text += self._text.finish()
        if self._text.is_stopped:
            reason = "stop"
        delta = Delta(text, prompt_tokens=progress.prompt_logprobs)
        if self.reader is not None:
            reason = self._read(self.reader, delta, reason)
            if delta.reasoning and not delta.text:
                self.num_reasoning_tokens += len(progress.tokens)
        if self.request.sampling.logprobs is not None:
            delta.tokens = self._certain_tokens(is_last=reason is not None)
        delta.finish_reason = self.finish_reason = reason
        return delta

    def _take_tokens(self, tokens: Sequence[Token]) -> str:
        piece, stream = self._piece, self._text
        is_scored = self.request.sampling.logprobs is not None
        text = ""
        for token in tokens:
            if stream.is_stopped:
                break
            if self.num_tokens == self.min_tokens > 0:
                stream.watch_for(self.stops)
            if token.id in self.stop_tokens and self.num_tokens >= self.min_tokens:
                self._met_stop_token = True
                break
            if is_scored:
                self._unsent.append((token, stream.position))
            text += stream.push(piece(token.id))
            self.num_tokens += 1
        return text

    def _read(self, reader: AnswerReader, delta: Delta, reason: str | None) -> str | None:
        """Split the delta's text; why the answer ends, calls considered."""
        heard = reader.push(delta.text)
        delta.text, delta.reasoning, delta.calls = heard.content, heard.reasoning, heard.calls
        if reason is not None:
            last = reader.finish()
            delta.text += last.content
            delta.reasoning += last.reasoning
            delta.calls = [*delta.calls, *last.calls]
        if reader.is_done or (reason == "stop" and reader.num_calls):
            return "tool_calls"
        return reason

    def _certain_tokens(self, *, is_last: bool) -> list[tuple[Token, int]]:
        """Scored tokens whose text has gone out, or that had none to the end."""
        sent = self._text.num_sent
        if is_last and not self._text.is_stopped:
            certain = self._unsent
        else:
            certain = [(token, start) for token, start in self._unsent if start < sent]
        self._unsent = self._unsent[len(certain) :]
        return certain
