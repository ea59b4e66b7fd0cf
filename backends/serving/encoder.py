"""Text to tokens, without making the running streams wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from backends.serving.engine import Tokenizer

Result = TypeVar("Result")

LONG_TEXT = 4096  # characters; below it, a thread costs more than it saves


class Encoder:
    """A tokenizer for the event loop: megabytes take seconds, so they take them on a thread.

    One thread: long texts wait for each other, and for nothing else.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._thread = ThreadPoolExecutor(1, "tokenize")

    async def encode(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """The tokens of `text`, as the Tokenizer protocol says."""
        encode = partial(
            self._tokenizer.encode, text, add_special=add_special, parse_special=parse_special
        )
        if len(text) < LONG_TEXT:
            return encode()
        return await self.on_thread(encode)

    async def on_thread(self, work: Callable[[], Result]) -> Result:
        """What `work`, which makes tokens of texts, comes to."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Wait for the thread. A client that leaves does not stop it, and it needs the model."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
