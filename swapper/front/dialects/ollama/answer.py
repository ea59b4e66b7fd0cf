"""A worker's answers as Ollama's, whole or line by line."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import msgspec

from swapper.front.dialects.dialect import (
    Asked,
    Granted,
    Json,
    StreamTranslation,
    Translation,
)
from swapper.front.dialects.ollama.errors import error_of
from swapper.front.dialects.ollama.keep_alive import seconds
from swapper.front.dialects.ollama.logprobs import logprobs
from swapper.front.dialects.ollama.memory import remembered
from swapper.front.dialects.ollama.names import configured
from swapper.front.dialects.ollama.options import hides_thinking
from swapper.front.dialects.ollama.request import (
    ChatRequest,
    GenerateRequest,
    Generation,
    Question,
    Wish,
    chat_question,
    generate_question,
)
from swapper.front.dialects.ollama.statistics import Statistics
from swapper.front.dialects.reading import arguments_object, first_choice
from swapper.front.dialects.steps import Argued, Called, Said, Step, StepReader, Thought
from swapper.front.refusal import Refusal

DONE_REASONS: Final = {"length": "length"}  # every other end is `stop`, tool calls included


class OllamaTranslation(Translation):
    """What all of Ollama's requests have in common."""

    def __init__(self, wish: Wish, question: Question, asked: Asked) -> None:
        self.model = wish.model
        self.path = question.path
        self.body = question.body
        self.stays_s = seconds(wish.keep_alive)
        self.statistics = Statistics(asked.elapsed)

    def known_as(self, names: Iterable[str]) -> str:
        return configured(self.model, names)

    def granted(self, granted: Granted) -> None:
        self.statistics.granted(granted)


class TextTranslation(OllamaTranslation, StreamTranslation):
    """An answer in words. Tool calls come whole, so they are held until they are."""

    def __init__(self, request: Generation, question: Question, asked: Asked) -> None:
        super().__init__(request, question, asked)
        self.stream = request.stream is not False
        self._asked = asked
        self._num_top = request.top_logprobs or 0
        self._hides_thinking = hides_thinking(request.think)
        self._steps = StepReader()
        self._call: Called | None = None  # that is being told
        self._arguments = ""
        self._reason = "stop"
        if question.path is None:
            self._reason = "unload" if self.stays_s == 0 else "load"

    @abstractmethod
    def part(self, content: str = "", thinking: str = "", calls: Iterable[Json] = ()) -> Json:
        """Something of the answer, where this route has it."""

    def last(self) -> Json:
        """What the end tells beside the figures."""
        return {}

    # ------------------------------------------------------------ in a stream

    def waiting(self) -> bytes:
        """Every line must be JSON that is part of an answer: one that adds nothing."""
        return self._line(self.part(), done=False)

    def chunk(self, chunk: Json) -> bytes:
        self.statistics.saw(chunk)
        choice = first_choice(chunk)
        if choice is None:
            return b""
        parts = [part for step in self._steps.read(_delta(choice)) for part in self._told(step)]
        if choice.get("finish_reason"):
            self._finish(choice)
            parts += self._called()
        if scored := logprobs(choice, self._num_top):
            parts = parts or [self.part()]
            parts[-1]["logprobs"] = scored
        return b"".join(self._line(part, done=False) for part in parts)

    def end(self) -> bytes:
        called = b"".join(self._line(part, done=False) for part in self._called())
        return called + self._line(self.part(), **self._ending())

    def broken(self, refusal: Refusal, request_id: str) -> bytes:
        return msgspec.json.encode(error_of(refusal)) + b"\n"

    def _told(self, step: Step) -> Iterable[Json]:
        match step:
            case Thought(text):
                return () if self._hides_thinking else [self.part(thinking=text)]
            case Said(text):
                return [self.part(text)]
            case Called():
                finished = self._called()
                self._call, self._arguments = step, ""
                return finished
            case Argued(text):
                self._arguments += text
                return ()

    def _called(self) -> list[Json]:
        """The call that is being told, now that it is whole."""
        call, self._call = self._call, None
        if call is None:
            return []
        return [self.part(calls=[self._tool_call(call, self._arguments)])]

    def _line(self, part: Json, **more: object) -> bytes:
        return msgspec.json.encode({**self._about(), **part, **more}) + b"\n"

    # ------------------------------------------------------------ whole

    def whole(self, answer: Json) -> object:
        self.statistics.saw(answer)
        if self.path is None:
            return {**self._about(), **self.part(), **self._ending()}
        choice = answer["choices"][0]
        content, thoughts = "", ""
        calls: list[Json] = []
        for step in self._steps.read(_delta(choice)):
            match step:
                case Said(text):
                    content += text
                case Thought(text) if not self._hides_thinking:
                    thoughts += text
        for index, call in enumerate((choice.get("message") or {}).get("tool_calls") or ()):
            function = call["function"]
            called = Called(index, call.get("id") or "", function["name"])
            calls.append(self._tool_call(called, function.get("arguments") or ""))
        self._finish(choice)
        told = {**self._about(), **self.part(content, thoughts, calls)}
        if scored := logprobs(choice, self._num_top):
            told["logprobs"] = scored
        return {**told, **self._ending()}

    # ------------------------------------------------------------ both

    def _about(self) -> Json:
        return {"model": self.model, "created_at": moment(self._asked.clock())}

    def _finish(self, choice: Json) -> None:
        self._reason = DONE_REASONS.get(choice["finish_reason"], "stop")

    def _ending(self) -> Json:
        told = {"done": True, "done_reason": self._reason}
        return {**told, **self.last(), **self.statistics.told()}

    def _tool_call(self, call: Called, arguments: str) -> Json:
        id = call.id or f"call_{self._asked.unique}_{call.index}"
        told = {"index": call.index, "name": call.name, "arguments": arguments_object(arguments)}
        return {"id": id, "function": told}


class ChatTranslation(TextTranslation):
    """One `POST /api/chat`."""

    def __init__(self, request: ChatRequest, asked: Asked) -> None:
        super().__init__(request, chat_question(request), asked)

    def part(self, content: str = "", thinking: str = "", calls: Iterable[Json] = ()) -> Json:
        message: Json = {"role": "assistant", "content": content}
        if thinking:
            message["thinking"] = thinking
        if calls := list(calls):
            message["tool_calls"] = calls
        return {"message": message}


class GenerateTranslation(TextTranslation):
    """One `POST /api/generate`. What was said is kept for the `context` at its end."""

    def __init__(self, request: GenerateRequest, asked: Asked) -> None:
        super().__init__(request, generate_question(request), asked)
        self._said: list[str] = []

    def part(self, content: str = "", thinking: str = "", calls: Iterable[Json] = ()) -> Json:
        self._said.append(content)
        told: Json = {"response": content}
        if thinking:
            told["thinking"] = thinking
        if calls := list(calls):
            told["tool_calls"] = calls
        return told

    def last(self) -> Json:
        if "messages" not in self.body:
            return {}
        answer = {"role": "assistant", "content": "".join(self._said)}
        return {"context": remembered([*self.body["messages"], answer])}


def moment(at: float) -> str:
    """A time since 1970 as Ollama writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def _delta(choice: Json) -> Json:
    """What a choice adds: of a chat, streamed or whole, or of a plain completion."""
    delta: Json | None = choice.get("delta") or choice.get("message")
    return {"content": choice.get("text")} if delta is None else delta
