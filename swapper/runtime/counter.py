"""Counts the tokens of chats by the models' own tokenizers, in one light process for all of them.

It is started when first asked, rests between questions, and ends when nobody has asked for a while,
with swapper, or when it does not answer in time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from swapper.errors import BadRequest, Unavailable
from swapper.runtime.placement import LaunchSpec
from swapper.runtime.placement.own_engines import environment

COMMAND: Final = (sys.executable, "-P", "-m", "backends.serving.count")
ANSWER_S: Final = 60.0  # a long text, after a large vocabulary was read
IDLE_S: Final = 600.0
END_S: Final = 5.0


class TokenCounter:
    """Owner of the counting process. One question at a time."""

    def __init__(
        self,
        command: tuple[str, ...] = COMMAND,
        *,
        answer_s: float = ANSWER_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._command = command
        self._answer_s = answer_s
        self._idle_s = idle_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[int]] = set()

    async def count(self, launch: LaunchSpec, chat: Mapping[str, Any]) -> int:
        """The tokens of the prompt that a chat completion's body makes.

        Raises BadRequest for what is wrong with the body, Unavailable for a model that cannot be read.
        """
        options = {**launch.options, "model": launch.model}
        question = {"engine": launch.engine, "options": options, "chat": dict(chat)}
        line = json.dumps(question).encode() + b"\n"
        async with self._lock:
            answer = await self._ask(line)
        if "tokens" in answer:
            return int(answer["tokens"])
        if answer["kind"] == "bad_request":
            raise BadRequest(answer["error"], param=answer["param"])
        reason = f"the tokens of {launch.model} cannot be counted: {answer['error']}"
        raise Unavailable("load_failed", reason, retry_after_s=5.0, cause=answer["kind"])

    async def close(self) -> None:
        """End the process at once, and wait for it."""
        if self._rest is not None:
            self._rest.cancel()
        if self._process is not None:
            self._drop(self._process)
        if self._ending:
            await asyncio.wait(self._ending, timeout=END_S)

    async def _ask(self, line: bytes) -> dict[str, Any]:
        process = await self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._answer_s):
                process.stdin.write(line)
                await process.stdin.drain()
                answer = await process.stdout.readline()
            found: dict[str, Any] = json.loads(answer)
        except (TimeoutError, OSError, ValueError):
            self._drop(process)
            raise Unavailable(
                "timeout",
                "the tokens could not be counted; swapper's log says why",
                retry_after_s=1.0,
            ) from None
        except asyncio.CancelledError:  # its answer would be taken for the next one's
            self._drop(process)
            raise
        self._rest = asyncio.get_running_loop().call_later(self._idle_s, self._drop, process)
        return found

    async def _running(self) -> asyncio.subprocess.Process:
        if self._rest is not None:
            self._rest.cancel()
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
            )
        return self._process

    def _drop(self, process: asyncio.subprocess.Process) -> None:
        if self._process is process:
            self._process = None
        try:
            process.kill()  # it keeps nothing that could be lost
        except ProcessLookupError:
            pass
        task = asyncio.get_running_loop().create_task(process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _environment() -> dict[str, str]:
    """No GPU is looked at for a vocabulary."""
    return {**os.environ, **environment(), "CUDA_VISIBLE_DEVICES": ""}
