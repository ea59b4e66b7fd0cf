"""Where a worker runs. `local` starts processes on this machine; another box is another Placement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from swapper.core.events import Failure
from swapper.runtime.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How a model's worker is brought up; the part of its configuration that the core never sees.

    `engine` is `llamacpp`, `paged`, `echo`, `command` or `url`. For in-tree engines `options` become the
    worker's options file. For `command`, `cmd`, `env`, `cwd`, `stop_cmd`, `url` and `ready` are as
    in the configuration, with `${port}`, `${model}` and `${pid}` (stop_cmd) still to be filled in.
    For `url`, `url` and `api_key` are the foreign server's.
    """

    model: str
    engine: str
    options: Mapping[str, object] = field(default_factory=dict)
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    stop_cmd: tuple[str, ...] = ()
    url: str | None = None
    ready: str | None = "/health"  # None: ready as soon as the port accepts
    api_key: str | None = None
    upstream_model: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a ready worker said of itself."""

    memory: Mapping[str, int] = field(default_factory=dict)
    context: int | None = None
    capabilities: tuple[str, ...] = ()


class WorkerHandle(Protocol):
    """One worker, from its start to its end. Made by `Placement.start`; used by the dispatcher only."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers; valid once it is ready."""
        ...

    @property
    def pid(self) -> int | None:
        """Its first process, None where there is none (engine `url`)."""
        ...

    def our_names(self, memory: Mapping[str, int]) -> Mapping[str, int]:
        """What the worker says of its devices, by our names of them."""
        ...

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and end it by force when the grace is over. Returns at once; calling it
        again with a shorter grace shortens the wait. `on_exit` follows, always."""
        ...


class Placement(Protocol):
    """Starts workers and tells how they fare.

    Callbacks are called on the event loop, never from within `start` or `stop`, in the order things
    happened: any number of
    `on_progress` (0 to 1), then at most one `on_ready`, then exactly one `on_exit`, which says that
    no process of the worker is left. `on_exit` carries a Failure unless `stop` was called first.
    """

    def start(
        self,
        worker_id: str,
        spec: LaunchSpec,
        settings: Mapping[str, object],
        load_timeout_s: float,
        *,
        on_progress: Callable[[float], None],
        on_ready: Callable[[WorkerFacts], None],
        on_exit: Callable[[Failure | None], None],
        on_output: Callable[[str], None],
    ) -> WorkerHandle:
        """Bring a worker up. Never raises for what the spec got wrong: that is an `on_exit`."""
        ...

    async def close(self) -> None:
        """End every worker at once and wait until no process is left."""
        ...
