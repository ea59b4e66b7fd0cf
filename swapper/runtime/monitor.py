"""Tells the scheduler how full the devices are and what the workers really take.

A reading is taken every few seconds while there are workers, at once when a worker that held memory
of a GPU has gone, and from then on in quick succession until that memory is back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

from swapper.core import events as ev
from swapper.core.registry import Bytes
from swapper.runtime.devices import Devices, survey_gpus
from swapper.runtime.dispatcher import Dispatcher

EVERY_S = 5.0
RETURNING_EVERY_S = 0.1
GLANCE_AGE_S = 1.0
WORTH_TELLING = 1.02  # growth of a worker since it was last told


class Monitor:
    """Surveys while there are workers, or while somebody waits for room; otherwise it rests."""

    def __init__(self, dispatcher: Dispatcher, devices: Devices) -> None:
        self._dispatcher = dispatcher
        self._devices = devices
        self._told: dict[ev.WorkerId, dict[str, int]] = {}
        self._glanced_at = -math.inf
        self._glancing = asyncio.Lock()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._dispatcher.busy()
            survey = await self._devices.survey()
            self._dispatcher.post(ev.DevicesRead(survey.readings, survey.began_at))
            self._tell_growth(survey.footprints)
            await self._rest()

    async def glance(self) -> None:
        """A look at the GPUs before the first load after a rest: others may have filled them."""
        async with self._glancing:
            if self._dispatcher.clock() - self._glanced_at > GLANCE_AGE_S:
                await self._read_gpus()

    async def _rest(self) -> None:
        """Until the next survey, unless a GPU is giving memory back."""
        deadline = self._dispatcher.clock() + EVERY_S
        while (left := deadline - self._dispatcher.clock()) > 0:
            if not self._dispatcher.memory_returns:
                await self._dispatcher.changed(left)
                continue
            await self._read_gpus()
            if self._dispatcher.memory_returns:
                await asyncio.sleep(RETURNING_EVERY_S)

    async def _read_gpus(self) -> None:
        began_at = self._dispatcher.clock()
        readings = await asyncio.to_thread(survey_gpus, self._dispatcher.pids())
        self._glanced_at = began_at
        self._dispatcher.post(ev.DevicesRead(readings, began_at))

    def _tell_growth(self, footprints: Mapping[ev.WorkerId, Bytes]) -> None:
        """Each worker's fullest so far; only once it has answered something, for what it has not
        touched yet does not count in a measure."""
        self._told = {w: told for w, told in self._told.items() if w in footprints}
        for worker_id, footprint in footprints.items():
            told = self._told.get(worker_id, {})
            grown = {d: n for d, n in footprint.items() if n > WORTH_TELLING * told.get(d, 0)}
            if grown and self._dispatcher.has_served(worker_id):
                self._told[worker_id] = {**told, **grown}
                self._dispatcher.post(ev.WorkerMeasured(worker_id, self._told[worker_id]))
