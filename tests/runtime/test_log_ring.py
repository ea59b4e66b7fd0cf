"""The last output of workers: bounded, by model and of all, with history first."""

import asyncio

from swapper.runtime.log_ring import LogLine, LogRing


def texts(lines) -> list[str]:
    return [line.text for line in lines]


async def collect(lines, number: int) -> list[LogLine]:
    return [await asyncio.wait_for(anext(lines), 20) for _ in range(number)]


async def test_lines_by_model_and_of_all():
    ring = LogRing()
    for number in range(4):
        ring.append("ab"[number % 2], str(number))
    assert texts(ring.last("a")) == ["0", "2"]
    assert ring.last() == [LogLine("ab"[n % 2], str(n)) for n in range(4)]
    assert texts(ring.last(limit=2)) == ["2", "3"]
    assert ring.last("nobody") == []


async def test_it_keeps_so_many_lines_and_bytes():
    by_lines, by_bytes = LogRing(max_lines=3), LogRing(max_bytes=10)
    for number in range(10):
        by_lines.append("a", str(number))
        by_bytes.append("a", f"{number}xxx")
    assert texts(by_lines.last("a")) == ["7", "8", "9"]
    assert texts(by_bytes.last()) == ["8xxx", "9xxx"]


async def test_a_tail_begins_with_history_and_goes_on():
    ring = LogRing()
    ring.append("a", "old")
    tail, fresh = ring.tail("a"), ring.tail("a", history=False)
    waiting = asyncio.ensure_future(anext(fresh))
    await asyncio.sleep(0)
    ring.append("b", "of another")
    ring.append("a", "new")
    assert texts(await collect(tail, 2)) == ["old", "new"]
    assert (await asyncio.wait_for(waiting, 20)).text == "new"
    await tail.aclose()
    await fresh.aclose()


async def test_a_slow_reader_is_told_what_it_missed():
    ring = LogRing(max_lines=2)
    tail = ring.tail()
    ring.append("a", "0")
    assert texts(await collect(tail, 1)) == ["0"]
    for number in range(1, 6):
        ring.append("a", str(number))
    assert texts(await collect(tail, 3)) == ["... 3 lines missed ...", "4", "5"]
    await tail.aclose()


async def test_a_reader_that_leaves_is_forgotten():
    ring = LogRing()
    tail = ring.tail()
    waiting = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    ring.append("a", "0")
    assert not ring._all._waiting
