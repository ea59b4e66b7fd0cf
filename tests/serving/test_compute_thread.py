"""The thread that computes, and the streams that it fills: nothing is lost, nothing is done for who has left."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from backends.serving.compute_thread import ComputeThread, Stream, Streams
from backends.serving.engine import EngineError, Progress, Token

LONG = "a" * 100_000


class Counting:
    """Work that counts: each step brings every answer one token more, up to its last."""

    def __init__(self) -> None:
        self.steps = 0
        self.answers: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.errors: list[str] = []
        self.has_recovered = threading.Event()
        self.is_over = False
        self.fault: Exception | None = None
        self.deliver: Callable[[str, Progress], None] = lambda answer, progress: None

    def step(self) -> bool:
        self.steps += 1
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        for answer, left in list(self.answers.items()):
            self.answers[answer] -= 1
            if left == 1:
                del self.answers[answer]
            self.deliver(answer, Progress((Token(left),), "length" if left == 1 else None, 0))
        return bool(self.answers)

    def recover(self, error: Exception) -> None:
        self.errors.append(str(error))
        self.has_recovered.set()

    def end(self) -> None:
        self.is_over = True

    def submit(self, answer: str) -> None:
        if answer == "":
            raise EngineError("bad_request", "nothing is asked")
        self.answers[answer] = len(answer)

    def cancel(self, answer: str) -> None:
        self.cancelled.append(answer)
        self.answers.pop(answer, None)


Opened = tuple[Counting, ComputeThread, "Streams[str]"]


@asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    work = Counting()
    thread = ComputeThread("counting", work)
    streams: Streams[str] = Streams(thread)
    work.deliver = lambda answer, progress: thread.reply(lambda: streams.put(answer, progress))
    yield work, thread, streams
    await thread.close()
    assert work.is_over


async def test_whoever_asks_gets_what_came_of_it() -> None:
    async with opened() as (_, thread, _streams):
        names = [await thread.ask(lambda: threading.current_thread().name) for _ in range(2)]
        assert names == ["counting", "counting"]
        with pytest.raises(ZeroDivisionError):
            await thread.ask(lambda: 1 // 0)
        order: list[int] = []
        for number in range(5):
            thread.tell(lambda number=number: order.append(number))
        assert await thread.ask(lambda: list(order)) == [0, 1, 2, 3, 4]


async def test_who_asks_and_leaves_is_not_answered() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    async with opened() as (_, thread, _streams):
        held = threading.Event()
        for work in (held.wait, lambda: 1 // 0):
            asked = asyncio.create_task(thread.ask(work))
            await asyncio.sleep(0)
            asked.cancel()
        held.set()
        assert await thread.ask(lambda: 1) == 1
    assert not faults


async def test_where_there_is_nothing_to_do_nothing_is_done() -> None:
    async with opened() as (work, thread, _):
        before = [await thread.ask(lambda: work.steps) for _ in range(3)]
        assert before[2] - before[0] <= 4
        assert not work.errors


async def test_a_step_or_a_message_that_fails_is_not_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with opened() as (work, thread, _):
        for fault in (lambda: [][0], lambda: setattr(work, "fault", ValueError("planted"))):
            work.has_recovered.clear()
            thread.tell(fault)
            assert await asyncio.to_thread(work.has_recovered.wait, 10)
        assert await thread.ask(lambda: list(work.errors)) == ["list index out of range", "planted"]
    assert "planted" in capsys.readouterr().err


async def test_streams_bring_all_in_order_and_end() -> None:
    async with opened() as (work, _, streams):

        async def ask(answer: str) -> list[int]:
            with streams.follow(answer, work) as stream:
                return [token.id async for progress in stream for token in progress.tokens]

        assert await asyncio.gather(*map(ask, ["aaa", "b", "cc"])) == [[3, 2, 1], [1], [2, 1]]
        assert not streams
        assert not work.cancelled


async def test_who_leaves_early_stops_its_answer_and_no_other() -> None:
    async with opened() as (work, thread, streams):
        with streams.follow(LONG, work) as left:
            assert len(streams) == 1
            with streams.follow("bbb", work) as stayed:
                await anext(left)
                assert [p.finish_reason async for p in stayed] == [None, None, "length"]
        assert await thread.ask(lambda: work.cancelled) == [LONG]
        assert await thread.ask(lambda: work.answers) == {}
        streams.put(LONG, Progress((), None, 0))  # on its way when the reader left


async def test_what_is_refused_is_raised_where_it_is_read() -> None:
    async with opened() as (work, _, streams):
        with streams.follow("", work) as stream:
            with pytest.raises(EngineError, match="nothing is asked"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert not work.cancelled
        assert not work.errors


async def test_items_wait_for_their_reader() -> None:
    stream = Stream()
    for number in range(3):
        stream.put(Progress((Token(number),), "stop" if number == 2 else None, 0))
    assert [p.tokens[0].id async for p in stream] == [0, 1, 2]


def test_work_ends_with_the_loop_that_it_is_done_for() -> None:
    work = Counting()
    thread = ComputeThread("counting", work)
    work.deliver = lambda answer, progress: thread.reply(lambda: None)

    async def ask() -> None:
        await thread.ask(lambda: None)

    asyncio.run(ask())
    thread.tell(lambda: work.submit(LONG))
    thread._thread.join(10)
    assert work.is_over
    assert work.answers[LONG] == len(LONG) - 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_cannot_go_on_takes_the_process_with_it() -> None:
    """Or its requests would wait for ever."""

    class Hopeless(Counting):
        def recover(self, error: Exception) -> None:
            raise RuntimeError("nor can it recover") from error

    work, given_up = Hopeless(), threading.Event()
    thread = ComputeThread("hopeless", work, given_up.set)
    work.fault = ValueError("it cannot compute")
    thread.tell(lambda: None)
    assert given_up.wait(10)
    thread._thread.join(10)
    assert not thread._thread.is_alive()


def test_giving_up_ends_a_process_at_once() -> None:
    script = "from backends.serving.compute_thread import give_up; give_up(); print('still there')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (os.EX_SOFTWARE, b"")
