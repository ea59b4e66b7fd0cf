"""The thread on which an engine computes, and the streams that bring its answers to the event loop.

Only that thread touches the model. What is asked of it goes through an inbox that it looks into between
two steps; what a step brought goes back in one call on the loop, for all sequences together, so that the
loop wakes once a step.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Generic, Protocol, TypeVar, cast

from backends.serving.engine import EngineError, Progress

Result = TypeVar("Result")
Answer = TypeVar("Answer")
Taken = TypeVar("Taken", contravariant=True)


class Work(Protocol):
    """What an engine does on its thread."""

    def step(self) -> bool:
        """Compute whatever there is to compute; False when there is nothing."""
        ...

    def recover(self, error: Exception) -> None:
        """A step or a message failed, in a way nobody foresaw."""
        ...

    def end(self) -> None:
        """Nothing is asked any more: end what is under way and free the model."""
        ...


class Stream:
    """What a sequence brought and its reader has not yet taken. The loop's side only."""

    def __init__(self) -> None:
        self._items: deque[Progress | EngineError] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.is_over = False  # the reader has had the last item

    def put(self, item: Progress | EngineError) -> None:
        self._items.append(item)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Progress:
        """The next item, when there is one; raises it if it is an error."""
        if self.is_over:
            raise StopAsyncIteration
        while not self._items:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._items.popleft()
        self.is_over = isinstance(item, EngineError) or item.finish_reason is not None
        if isinstance(item, EngineError):
            raise item
        return item


def give_up() -> None:
    """End the process, as requests of a thread that is gone would wait for ever. Whoever watches it starts another."""
    os._exit(os.EX_SOFTWARE)


class ComputeThread:
    """Runs an engine's work. It starts when it is made; should it die of itself, `give_up` is called."""

    def __init__(self, name: str, work: Work, give_up: Callable[[], None] = give_up) -> None:
        self._work = work
        self._give_up = give_up
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # The loop's side

    def tell(self, message: Callable[[], None]) -> None:
        """Have `message` run on the thread before its next step. May come from any thread."""
        self._inbox.append(message)
        self._wake.set()

    async def ask(self, work: Callable[[], Result]) -> Result:
        """The same, and what came of it."""
        self.attach()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def settle(result: Result | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(cast(Result, result))
            else:
                future.set_exception(error)

        def message() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                self.reply(partial(settle, None, error))
            else:
                self.reply(partial(settle, result, None))

        self.tell(message)
        return await future

    def attach(self) -> None:
        """Replies go to the loop that calls this."""
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """End the thread, and wait until it has."""
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    # The thread's side

    def reply(self, callback: Callable[[], object]) -> None:
        """Run `callback` on the event loop, if it still runs."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            self._closing = True

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            self._give_up()
            raise
        self._work.end()

    def _turn(self) -> None:
        try:
            while self._inbox:
                self._inbox.popleft()()
            if not self._work.step():
                self._wake.wait()
                self._wake.clear()
        except Exception as error:  # noqa: BLE001 - one bad step must not end all requests to come
            traceback.print_exc(file=sys.stderr)
            self._work.recover(error)


class Takes(Protocol[Taken]):
    """What computes answers on the thread."""

    def submit(self, answer: Taken, /) -> None:
        """Take `answer` on; raises EngineError."""
        ...

    def cancel(self, answer: Taken, /) -> None:
        """Stop `answer` if it is still under way."""
        ...


class Streams(Generic[Answer]):
    """Every answer under way, and the stream that its reader follows. The loop's side."""

    def __init__(self, thread: ComputeThread) -> None:
        self._thread = thread
        self._streams: dict[Answer, Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def follow(self, answer: Answer, stepper: Takes[Answer]) -> Iterator[Stream]:
        """Have `answer` computed; whoever leaves the context before its end stops it at once."""
        stream = self._streams[answer] = Stream()
        self._thread.attach()
        self._thread.tell(partial(self._submit, answer, stepper))
        try:
            yield stream
        finally:
            del self._streams[answer]
            if not stream.is_over:
                self._thread.tell(partial(stepper.cancel, answer))

    def put(self, answer: Answer, item: Progress | EngineError) -> None:
        """Bring `item` to the reader of `answer`, if it is still there."""
        stream = self._streams.get(answer)
        if stream is not None:
            stream.put(item)

    def _submit(self, answer: Answer, stepper: Takes[Answer]) -> None:
        """On the thread."""
        try:
            stepper.submit(answer)
        except EngineError as error:
            self._thread.reply(partial(self.put, answer, error))
