"""Tells the scheduler how full the devices are and what the workers really take."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from swapper.core import events as ev
from swapper.core.registry import Bytes
from swapper.runtime.devices import Devices
from swapper.runtime.dispatcher import Dispatcher

EVERY_S = 5.0
WORTH_TELLING = 1.02  # growth of a worker since it was last told


class Monitor:
    """Surveys while there are workers, or while somebody waits for room; otherwise it rests."""

    def __init__(self, dispatcher: Dispatcher, devices: Devices) -> None:
        self._dispatcher = dispatcher
        self._devices = devices
        self._told: dict[ev.WorkerId, dict[str, int]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._dispatcher.busy()
            survey = await self._devices.survey()
            self._dispatcher.post(ev.DevicesRead(survey.readings))
            self._tell_growth(survey.footprints)
            await asyncio.sleep(EVERY_S)

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
