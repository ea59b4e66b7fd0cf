"""A chat completion's answer as a response, event by event; a whole one is made of the same steps."""

from __future__ import annotations

import msgspec

from swapper.errors import BadRequest
from swapper.front.dialects.dialect import Asked, Json, Translation
from swapper.front.dialects.events import event
from swapper.front.dialects.reading import as_chunks, first_choice
from swapper.front.dialects.responses.request import (
    ResponsesRequest,
    chat_body,
    check,
    read_input,
)
from swapper.front.dialects.responses.store import Store
from swapper.front.dialects.responses.tools import read_tools
from swapper.front.dialects.steps import Argued, Called, Said, Step, StepReader, Thought
from swapper.front.refusal import Refusal

CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesTranslation(Translation):
    """One `POST /v1/responses`. One item of the output is open at a time: the last."""

    def __init__(self, request: ResponsesRequest, asked: Asked, store: Store) -> None:
        check(request)
        self._request = request
        self._asked = asked
        self._store = store
        self._tools = read_tools(request.tools or [])
        self._messages = self._conversation()
        self.model = request.model
        self.stream = request.stream is True
        self.body = chat_body(request, self._messages, self._tools)
        self._created_at = int(asked.clock())
        self._num_events = 0
        self._has_begun = False
        self._steps = StepReader()
        self._output: list[Json] = []
        self._is_open = False
        self._pieces: list[str] = []  # of the open item's text, or of its call's arguments
        self._finish = "stop"
        self._usage: Json | None = None
        self._said: Json = {"role": "assistant", "content": None}  # as the next request shows it

    def _conversation(self) -> list[Json]:
        given = read_input(self._request.input, self._tools)
        before = self._request.previous_response_id
        if before is None:
            return given
        kept = self._store.get(self._asked.key, before)
        if kept is None:
            raise BadRequest(
                f"previous_response_id: there is no response '{before}' (any more); send the "
                "whole conversation as input",
                param="previous_response_id",
            )
        return [*msgspec.json.decode(kept.messages), *given]

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
            messages = [*self._messages, self._said] if self._output else self._messages
            self._store.put(self._asked.key, response, messages)
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
            "truncation": request.truncation or "disabled",
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
                return self._open_text("reasoning") + self._add_text(text)
            case Said(text):
                return self._open_text("message") + self._add_text(text)
            case Called():
                return self._call(step)
            case Argued(text):
                return self._argued(text)

    def _open_text(self, kind: str) -> bytes:
        if self._is_open and self._output[-1]["type"] == kind:
            return b""
        closed = self._close()
        item: Json = {"type": kind, "id": self._id(kind), "status": "in_progress", "content": []}
        if kind == "message":
            item["role"] = "assistant"
        else:
            item["summary"] = []
        added = self._open(item)
        part = _PARTS[kind]
        item["content"] = [{**part}]
        return closed + added + self._of_part("response.content_part.added", part=part)

    def _add_text(self, text: str) -> bytes:
        item = self._output[-1]
        self._pieces.append(text)
        scores: Json = {"logprobs": []} if item["type"] == "message" else {}
        return self._of_part(f"response.{_NAMES[item['type']]}.delta", delta=text, **scores)

    def _call(self, step: Called) -> bytes:
        closed = self._close()
        tool = self._tools.tool(step.name)
        kind = "custom_tool_call" if tool.is_custom else "function_call"
        call_id = step.id or f"call_{self._asked.unique}_{step.index}"
        item: Json = {"type": kind, "id": self._id(kind), "call_id": call_id, "name": tool.name}
        if tool.namespace is not None:
            item["namespace"] = tool.namespace
        item |= {"status": "in_progress", "input" if tool.is_custom else "arguments": ""}
        function = {"name": step.name, "arguments": ""}
        call = {"id": call_id, "type": "function", "function": function}
        self._said.setdefault("tool_calls", []).append(call)
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
        self._is_open = False
        item = self._output[-1]
        done = self._done(item)
        item["status"] = "incomplete" if self._finish in CUT_SHORT else "completed"
        return done + self._event("response.output_item.done", output_index=self._index, item=item)

    def _gather(self) -> None:
        """Put the pieces into the open item, and into what the next request shows."""
        if not self._is_open:
            return
        item, text = self._output[-1], "".join(self._pieces)
        match item["type"]:
            case "message" | "reasoning" as kind:
                item["content"][0]["text"] = text
                said = "content" if kind == "message" else "reasoning_content"
                self._said[said] = (self._said.get(said) or "") + text
            case "function_call":
                item["arguments"] = self._said["tool_calls"][-1]["function"]["arguments"] = text
            case _:
                item["input"] = _free_text(text)
                self._said["tool_calls"][-1]["function"]["arguments"] = text

    def _done(self, item: Json) -> bytes:
        match item["type"]:
            case "function_call":
                fields = {"name": item["name"], "arguments": item["arguments"]}
                return self._of_item("response.function_call_arguments.done", **fields)
            case "custom_tool_call":
                kind, text = "response.custom_tool_call_input", item["input"]
                delta = self._of_item(f"{kind}.delta", delta=text)
                return delta + self._of_item(f"{kind}.done", input=text)
        part, kind = item["content"][0], item["type"]
        scores: Json = {"logprobs": []} if kind == "message" else {}
        done = self._of_part(f"response.{_NAMES[kind]}.done", text=part["text"], **scores)
        return done + self._of_part("response.content_part.done", part=part)

    def _of_part(self, kind: str, **fields: object) -> bytes:
        return self._of_item(kind, content_index=0, **fields)

    def _of_item(self, kind: str, **fields: object) -> bytes:
        id = self._output[-1]["id"]
        return self._event(kind, item_id=id, output_index=self._index, **fields)

    @property
    def _index(self) -> int:
        return len(self._output) - 1

    def _id(self, kind: str) -> str:
        return f"{_PREFIXES[kind]}_{self._asked.unique}_{len(self._output)}"


_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}
_NAMES = {"message": "output_text", "reasoning": "reasoning_text"}
_PARTS: dict[str, Json] = {
    "message": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
    "reasoning": {"type": "reasoning_text", "text": ""},
}


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
