"""What a person who waits for a model may read meanwhile: chunks of reasoning, which chat UIs show apart."""

from __future__ import annotations

import time

import msgspec

from swapper.front.call import Call
from swapper.front.openai import HEARTBEAT
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.views import Snapshot


class LoadingText:
    """One call's beats: a sentence whenever there is something new to say, a comment otherwise."""

    def __init__(self, dispatcher: Dispatcher, call: Call, model: str) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._model = model
        self._last = ""

    def __call__(self) -> bytes:
        sentence = tell(self._dispatcher.snapshot(), self._model)
        if sentence == self._last:
            return HEARTBEAT
        role = {} if self._last else {"role": "assistant", "content": ""}
        self._last = sentence
        delta = {**role, "reasoning_content": f"{sentence}\n"}
        chunk = {
            "id": f"chatcmpl-{self._call.request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": self._model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def tell(snapshot: Snapshot, model: str) -> str:
    """What a request for `model` waits for, in one sentence."""
    own = next((worker for worker in snapshot.workers if worker.model == model), None)
    if own is not None and own.state == "starting":
        return f"Loading {model}: {own.progress:.0%}"
    if own is not None and own.state == "waking":
        return f"Waking {model}"
    if own is not None and own.state == "ready":
        return (
            f"{model} is busy with {own.in_flight} requests; {snapshot.waiting.get(model, 0)} wait"
        )
    busy = sorted(worker.model for worker in snapshot.workers if worker.in_flight)
    return (
        f"Waiting for room: {', '.join(busy)} has to finish" if busy else f"Making room for {model}"
    )
