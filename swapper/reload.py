"""Takes a configuration over that was read anew, or refuses it whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from swapper.config import Config, ConfiguredModel, cards_of, plan_registry
from swapper.core.registry import ModelSpec, Registry
from swapper.front.server import Front
from swapper.runtime.devices import cpu_count, survey
from swapper.runtime.dispatcher import Dispatcher
from swapper.runtime.notify import ServiceManager
from swapper.watching import WatchedFile

RESTART_FOR = (  # what is taken over by a restart only
    "listen",
    "key_in_path",
    "allowed_origins",
    "allowed_hosts",
    "keepalive_after_s",
    "loading_text",
)

log = structlog.get_logger("swapper")

WATCH_EVERY_S = 1.0


class Reloader:
    """Owner of the configuration in force. One reload at a time."""

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        dispatcher: Dispatcher,
        front: Front,
        service: ServiceManager,
    ) -> None:
        self._read = read
        self._dispatcher = dispatcher
        self._front = front
        self._service = service
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._put_in_force(config)

    async def reload(self) -> dict[str, list[str]]:
        """Read, check, take over; returns the names of models that are new, changed and removed.

        Raises ConfigError, and then everything stays as it was.
        """
        async with self._lock:
            now_us = time.monotonic_ns() // 1000
            self._service.tell("RELOADING=1", f"MONOTONIC_USEC={now_us}", "STATUS=reloading")
            try:
                config = await asyncio.to_thread(self._read)
                return await self._take_over(config)
            finally:
                self._service.tell("READY=1", f"STATUS=serving {len(self._config.models)} models")

    async def _take_over(self, config: Config) -> dict[str, list[str]]:
        readings = (await asyncio.to_thread(survey, {})).readings
        planned = plan_registry(config, readings, cpu_count())
        for note in (*config.problems, *config.warnings, *planned.notes):
            log.warning(str(note))
        for name in RESTART_FOR:
            if getattr(config, name) != getattr(self._config, name):
                key = name.removesuffix("_s")
                log.warning(f"a new `{key}` is taken over by a restart only")
        told = self._differences(config, planned.registry)
        self._put_in_force(config)
        self._dispatcher.replace(planned.registry, config.launches, frozenset(told["changed"]))
        self._dispatcher.preload(told["new"] + told["changed"])
        log.info("reloaded", **told)
        return told

    def _put_in_force(self, config: Config) -> None:
        """What the front does from its next request on."""
        self._config = config
        self._front.set_keys(config.api_keys)
        self._front.set_adjustments(config.adjustments)
        self._front.set_cards(cards_of(config))
        self._front.set_capture(config.capture)

    def _differences(self, config: Config, registry: Registry) -> dict[str, list[str]]:
        before, after = self._dispatcher.registry.models, registry.models
        old, new = self._config.models, config.models
        changed = [
            name
            for name in sorted(before.keys() & after.keys())
            if _is_another(before[name], after[name], old[name], new[name])
        ]
        return {
            "new": sorted(after.keys() - before.keys()),
            "changed": changed,
            "removed": sorted(before.keys() - after.keys()),
        }

    def on_signal(self) -> None:
        """HUP."""
        self._task = asyncio.get_running_loop().create_task(self.reload_or_say_why())

    async def watch(self, file: WatchedFile) -> None:
        """Reload whenever the file changes, until cancelled. One that is wrong is told of and left."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            if await asyncio.to_thread(file.has_changed):
                await self.reload_or_say_why()

    async def reload_or_say_why(self) -> None:
        """For those who cannot be answered: a signal, a file that changed."""
        try:
            await self.reload()
        except Exception as error:  # noqa: BLE001  # whatever is wrong with it, the old one stands
            log.error("the configuration was not taken over", reason=str(error))


def _is_another(
    old: ModelSpec, new: ModelSpec, old_model: ConfiguredModel, new_model: ConfiguredModel
) -> bool:
    """Whether the model is served in another way now, so that its worker cannot stay."""
    if old_model.launch != new_model.launch:
        return True
    return [v.settings for v in old.variants] != [v.settings for v in new.variants]
