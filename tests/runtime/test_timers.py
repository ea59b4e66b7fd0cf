"""Timers that are due at once. uvloop gives them handles that do not know their time."""

from __future__ import annotations

import asyncio

import pytest

from swapper.core import events as ev
from swapper.core.registry import Registry
from swapper.core.scheduler import Scheduler
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.log_ring import LogRing
from swapper.runtime.placement import LaunchSpec
from swapper.runtime.placement.local import LocalPlacement

from .conftest import Recorder, eventually, find_engine

uvloop = pytest.importorskip("uvloop")


def on_uvloop(main):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def test_a_deadline_of_this_moment_may_be_followed_by_any_other():
    deadlines = iter([0.0, 0.0, 5.0, 1.0])
    events = []

    class Told(Scheduler):
        def handle(self, event, now):
            events.append(event)
            return []

        def next_deadline(self):
            now = asyncio.get_running_loop().time()
            return now + next(deadlines, float("inf"))

    async def main():
        clock = asyncio.get_running_loop().time
        dispatcher = Dispatcher(Told(Registry({}, {})), None, {}, None, LogRing(), clock)
        for _ in range(4):
            dispatcher.post(ev.TimePassed())
        await eventually(lambda: len(events) == 5)

    on_uvloop(main)


def test_a_worker_may_be_ended_by_force_twice(run_dir):
    async def main():
        placement = LocalPlacement(run_dir, find_engine=find_engine)
        worker = Recorder()
        worker.handle = placement.start(
            "model#1", LaunchSpec(model="model", engine="contract"), {}, 30.0,
            on_progress=worker.on_progress, on_ready=worker.on_ready, on_exit=worker.on_exit,
            on_output=worker.lines.append,
        )  # fmt: skip
        await worker.ready()
        worker.handle.stop(0.0)
        worker.handle.stop(0.0)
        assert await worker.gone() is None
        await placement.close()

    on_uvloop(main)
