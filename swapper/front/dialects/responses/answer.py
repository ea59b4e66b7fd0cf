"""A chat completion's answer as a response, event by event; a whole one is made of the same steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Asked, Json, StreamTranslation
from swapper.front.dialects.events import event
from swapper.front.dialects.reading import as_chunks, first_choice
from swapper.front.dialects.responses.items import listed, resolved
from swapper.front.dialects.responses.request import (
    ResponsesRequest,
    chat_body,
    check,
    read_input,
    wants_summary,
)
from swapper.front.dialects.responses.store import Kept, Store
from swapper.front.dialects.responses.tools import read_tools
from swapper.front.dialects.steps import Argued, Called, Said, Step, StepReader, Thought
from swapper.front.refusal import Refusal

CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(frozen=True, slots=True)
class TextKind:
    """How a text is told: the item that it is in, and the names of its part and its events."""

    item: str
    field: str  # of the item, in which the part is
    empty: Json  # the item's other fields
    part: Json
    event: str
    part_event: str
    index: str
    is_scored: bool = False  # its tokens may have logprobs


MESSAGE: Final = TextKind(
    "message",
    "content",
    {"content": [], "role": "assistant"},
    {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "output_text",
    "content_part",
    "content_index",
    is_scored=True,
)
REASONING: Final = TextKind(
    "reasoning",
    "content",
    {"content": [], "summary": []},
    {"type": "reasoning_text", "text": ""},
    "reasoning_text",
    "content_part",
    "content_index",
)
SUMMARY: Final = TextKind(
    "reasoning",
    "summary",
    {"summary": []},
    {"type": "summary_text", "text": ""},
    "reasoning_summary_text",
    "reasoning_summary_part",
    "summary_index",
)


class ResponsesTranslation(StreamTranslation):
    """One `POST /v1/responses`. One item of the output is open at a time: the last."""

    def __init__(self, request: ResponsesRequest, asked: Asked, store: Store) -> None:
        check(request)
        self._request = request
        self._asked = asked
        self._store = store
        self._tools = read_tools(request.tools or [])
        given, self._before = self._given(), self._found_before()
        before = [] if self._before is None else self._before.conversation()
        messages = [*read_input(before, self._tools), *read_input(given, self._tools)]
        self._items = listed(given, asked.unique)
        self.model = request.model
        self.stream = request.stream is True
        self.body = chat_body(request, messages, self._tools)
        self._thoughts = SUMMARY if wants_summary(request) else REASONING
        self._created_at = int(asked.clock())
        self._num_events = 0
        self._has_begun = False
        self._steps = StepReader()
        self._output: list[Json] = []
        self._is_open = False
        self._text: TextKind | None = None  # of the open item, if it is a text
        self._scores: list[Json] = []  # of its tokens
        self._unsent_scores: list[Json] = []
        self._pieces: list[str] = []  # of the open item's text, or of its call's arguments
        self._finish = "stop"
        self._usage: Json | None = None

    def _given(self) -> list[Json]:
        key = self._asked.key
        return resolved(self._request.input, lambda id: self._store.item(key, id))

    def _found_before(self) -> Kept | None:
        """What this request goes on with."""
        before = self._request.previous_response_id
        if before is None:
            return None
        kept = self._store.get(self._asked.key, before)
        if kept is None:
            raise BadRequest(
                f"previous_response_id: there is no response '{before}' (any more); send the "
                "whole conversation as input",
                param="previous_response_id",
            )
        return kept

    # ------------------------------------------------------------ for the handler

    def waiting(self) -> bytes:
        if not self._has_begun:
            return self._begin()
        return self._state("in_progress", "in_progress")

    def whole(self, answer: Json) -> object:
        for chunk in as_chunks(answer):
            self.chunk(chunk)
        self._close()
        return self._completed()

    def chunk(self, chunk: Json) -> bytes:
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        begun = self._begin()
        choice = first_choice(chunk)
        if choice is None:
            return begun
        self._unsent_scores += (choice.get("logprobs") or {}).get("content") or []
        told = b"".join(map(self._told, self._steps.read(choice.get("delta") or {})))
        self._finish = choice.get("finish_reason") or self._finish
        return begun + told

    def end(self) -> bytes:
        said = self._begin() + self._close()
        response = self._completed()
        return said + self._event(f"response.{response['status']}", response=response)

    def broken(self, refusal: Refusal, request_id: str) -> bytes:
        error = {"code": refusal.code or "server_error", "message": refusal.message}
        self._gather()
        return self._begin() + self._event(
            "response.failed", response={**self._response("failed"), "error": error}
        )

    # ------------------------------------------------------------ the response

    def _begin(self) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        return self._state("created", "in_progress") + self._state("in_progress", "in_progress")

    def _state(self, name: str, status: str) -> bytes:
        return self._event(f"response.{name}", response=self._response(status))

    def _completed(self) -> Json:
        """The response as it stays."""
        cut = CUT_SHORT.get(self._finish)
        response = self._response("incomplete" if cut else "completed")
        response["incomplete_details"] = {"reason": cut} if cut else None
        response["completed_at"] = None if cut else int(self._asked.clock())
        if self._request.store is not False:
            self._store.put(self._asked.key, response, self._items, self._before)
        return response

    def _response(self, status: str) -> Json:
        request = self._request
        return {
            "id": f"resp_{self._asked.unique}",
            "object": "response",
            "created_at": self._created_at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "metadata": request.metadata or {},
            "model": request.model,
            "output": list(self._output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": request.reasoning or {"effort": None, "summary": None},
            "store": request.store is not False,
            "temperature": request.temperature,
            "text": request.text or {"format": {"type": "text"}},
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools or [],
            "top_p": request.top_p,
            "truncation": "disabled",  # what is too long is refused
            "usage": self._usage,
            "user": request.user,
        }

    def _event(self, kind: str, **fields: object) -> bytes:
        number = self._num_events
        self._num_events += 1
        return event({"type": kind, "sequence_number": number, **fields})

    # ------------------------------------------------------------ its items

    def _told(self, step: Step) -> bytes:
        match step:
            case Thought(text):
                return self._open_text(self._thoughts) + self._add_text(text)
            case Said(text):
                return self._open_text(MESSAGE) + self._add_text(text)
            case Called():
                return self._call(step)
            case Argued(text):
                return self._argued(text)

    def _open_text(self, kind: TextKind) -> bytes:
        if self._text is kind:
            return b""
        closed = self._close()
        item = {"type": kind.item, "id": self._id(kind.item), "status": "in_progress", **kind.empty}
        added = self._open(item)
        self._text = kind
        part = {**kind.part}
        item[kind.field] = [part]
        return closed + added + self._of_part(f"response.{kind.part_event}.added", part=part)

    def _add_text(self, text: str) -> bytes:
        assert self._text is not None
        self._pieces.append(text)
        scores, self._unsent_scores = self._unsent_scores, []
        self._scores += scores
        fields = {"logprobs": scores} if self._text.is_scored else {}
        return self._of_part(f"response.{self._text.event}.delta", delta=text, **fields)

    def _call(self, step: Called) -> bytes:
        closed = self._close()
        tool = self._tools.tool(step.name)
        kind = "custom_tool_call" if tool.is_custom else "function_call"
        call_id = step.id or f"call_{self._asked.unique}_{step.index}"
        item: Json = {"type": kind, "id": self._id(kind), "call_id": call_id, "name": tool.name}
        if tool.namespace is not None:
            item["namespace"] = tool.namespace
        item |= {"status": "in_progress", "input" if tool.is_custom else "arguments": ""}
        return closed + self._open(item)

    def _argued(self, text: str) -> bytes:
        self._pieces.append(text)
        if self._output[-1]["type"] == "custom_tool_call":  # its text is within the arguments' JSON
            return b""
        return self._of_item("response.function_call_arguments.delta", delta=text)

    def _open(self, item: Json) -> bytes:
        self._is_open = True
        self._pieces = []
        self._output.append(item)
        return self._event("response.output_item.added", output_index=self._index, item=item)

    def _close(self) -> bytes:
        if not self._is_open:
            return b""
        self._gather()
        done = self._done()
        self._is_open, self._text = False, None
        item = self._output[-1]
        item["status"] = "incomplete" if self._finish in CUT_SHORT else "completed"
        return done + self._event("response.output_item.done", output_index=self._index, item=item)

    def _gather(self) -> None:
        """Put the pieces into the open item."""
        if not self._is_open:
            return
        item, text = self._output[-1], "".join(self._pieces)
        if self._text is not None:
            part = item[self._text.field][0]
            part["text"] = text
            if self._text.is_scored:
                part["logprobs"] = [*self._scores, *self._unsent_scores]
                self._scores, self._unsent_scores = [], []
        elif item["type"] == "function_call":
            item["arguments"] = text
        else:
            item["input"] = _free_text(text)

    def _done(self) -> bytes:
        item = self._output[-1]
        match item["type"]:
            case "function_call":
                fields = {"name": item["name"], "arguments": item["arguments"]}
                return self._of_item("response.function_call_arguments.done", **fields)
            case "custom_tool_call":
                kind, text = "response.custom_tool_call_input", item["input"]
                delta = self._of_item(f"{kind}.delta", delta=text)
                return delta + self._of_item(f"{kind}.done", input=text)
        text = self._text
        assert text is not None
        part = item[text.field][0]
        fields = {key: part[key] for key in ("text", "logprobs") if key in part}
        done = self._of_part(f"response.{text.event}.done", **fields)
        return done + self._of_part(f"response.{text.part_event}.done", part=part)

    def _of_part(self, kind: str, **fields: object) -> bytes:
        assert self._text is not None
        return self._of_item(kind, **{self._text.index: 0}, **fields)

    def _of_item(self, kind: str, **fields: object) -> bytes:
        id = self._output[-1]["id"]
        return self._event(kind, item_id=id, output_index=self._index, **fields)

    @property
    def _index(self) -> int:
        return len(self._output) - 1

    def _id(self, kind: str) -> str:
        return f"{_PREFIXES[kind]}_{self._asked.unique}_{len(self._output)}"


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


def _free_text(arguments: str) -> str:
    """The one string that a call's arguments hold; all of them where they are something else."""
    try:
        return str(msgspec.json.decode(arguments, type=dict[str, str])["input"])
    except (msgspec.DecodeError, KeyError, RecursionError):
        return arguments


def _usage(usage: Json) -> Json:
    given = usage.get("prompt_tokens_details") or {}
    taken = usage.get("completion_tokens_details") or {}
    num_input, num_output = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": num_input,
        "input_tokens_details": {
            "cached_tokens": given.get("cached_tokens") or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": num_output,
        "output_tokens_details": {"reasoning_tokens": taken.get("reasoning_tokens") or 0},
        "total_tokens": num_input + num_output,
    }
