"""A server that speaks OpenAI's chat completions and knows what it will say: a foreign engine that
reasons, calls tools and keeps to schemas, so that clients' whole conversations can be played."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import web

Json = dict[str, Any]

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 7,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 8},
}


SHELLS = {  # of coding agents, and how they are asked for the same
    "Bash": {"command": "echo rainy", "description": "Say rainy"},
    "exec_command": {"cmd": "echo rainy"},
}
CITY = {"city": "Oslo"}


def answer(body: Json) -> Json:
    """The message it answers with."""
    last = body["messages"][-1]
    if body.get("response_format"):
        return {"role": "assistant", "content": '{"answer": 42}'}
    if last["role"] == "tool":
        return {"role": "assistant", "content": f"It is {last['content']} in Oslo."}
    if body.get("tools") and body.get("tool_choice") != "none":
        names = [tool["function"]["name"] for tool in body["tools"]]
        name = next((name for name in names if name in SHELLS), names[0])
        function = {"name": name, "arguments": json.dumps(SHELLS.get(name, CITY))}
        call = {"id": "call_1", "type": "function", "function": function}
        return {
            "role": "assistant",
            "content": None,
            "reasoning_content": "The tool knows.",
            "tool_calls": [call],
        }
    return {"role": "assistant", "content": "Hello, wörld."}


def finish(body: Json, message: Json) -> str:
    if message.get("tool_calls"):
        return "tool_calls"
    return "length" if body.get("max_tokens", 99) < 4 else "stop"


def chunks(body: Json) -> Iterator[Json]:
    """The same, three characters at a time."""
    message = answer(body)
    yield choice({"role": "assistant", "content": ""})
    for key in ("reasoning_content", "content"):
        for piece in pieces(message.get(key) or ""):
            yield choice({key: piece})
    for index, call in enumerate(message.get("tool_calls", ())):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield choice({"tool_calls": [{**call, "index": index, "function": function}]})
        for piece in pieces(call["function"]["arguments"]):
            yield choice({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield choice({}, finish(body, message))
    yield {"id": "chatcmpl-1", "choices": [], "usage": USAGE}


def pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), 3):
        yield text[start : start + 3]


def choice(delta: Json, reason: str | None = None) -> Json:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }


class ScriptedServer:
    """Runs on a thread of its own; `seen` are the bodies it was asked with."""

    def __init__(self) -> None:
        self.seen: list[Json] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._is_up.wait(30)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._start())
        self._is_up.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append(body)
        if body["messages"][-1].get("content") == "too long":
            text = "This model's maximum context length is 100 tokens. However, you requested 200 tokens."  # fmt: skip
            return web.json_response({"error": {"message": text}}, status=400)
        if not body.get("stream"):
            message = answer(body)
            told = {"index": 0, "message": message, "finish_reason": finish(body, message)}
            return web.json_response({"choices": [told], "usage": USAGE})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks(body):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response
