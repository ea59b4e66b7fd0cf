"""What may be served: models, the names they go by, and what each of them takes.

Only what scheduling needs is here. How a worker is launched (paths, command lines) is the runtime's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from swapper.errors import UnknownModel

Bytes: TypeAlias = Mapping[
    str, int
]  # device name -> bytes; names with no unit of bytes are counters
Settings: TypeAlias = Mapping[str, object]

HOST = "host"
GROUP = "group:"  # names of counters start so


def is_gpu(name: str) -> bool:
    """Whether it is a device with memory of its own."""
    return name != HOST and not name.startswith(GROUP)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to lay a model out over the devices, and what it needs there.

    A model has several when it may use a GPU: `fitting` chooses. Of equal quality are those that
    serve as well as each other, on other devices.
    """

    needs: Bytes = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    quality: tuple[int, int] = (0, 0)  # layers on GPUs; and the fewer GPUs, the better: -number

    @property
    def key(self) -> str:
        """The same for the same settings: under it measurements are kept."""
        return ",".join(f"{name}={self.settings[name]}" for name in sorted(self.settings))


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One configured model, as the scheduler sees it. Times in seconds."""

    name: str
    engine: str
    variants: tuple[Variant, ...] = (Variant(),)
    aliases: tuple[str, ...] = ()
    parallel: int = 8  # requests in flight at once
    ttl_s: float = 600.0  # idle time before unload; 0: never
    max_wait_s: float | None = (
        None  # wait for others' turns at most so long; None: from the swap's cost
    )
    queue_timeout_s: float = 600.0
    queue_limit: int = 1000
    load_timeout_s: float = 300.0
    stop_grace_s: float = 10.0
    load_s: float | None = None  # a first guess, until it was measured; None: there is none
    pin: bool = False
    preload: bool = False
    priority: int = 0  # added to the request's own
    role: str = "chat"  # a chat model moves no `embedding` or `completion` model out
    shares_cores: bool = False  # computes on the CPU, with as many threads as it is told
    groups: tuple[str, ...] = ()  # counters of `Registry.limits` that this model takes one of


@dataclass(frozen=True, slots=True)
class Registry:
    """All models by name, all names by model, and the budgets they share.

    `budgets`: bytes by device. `limits`: how many models of a group may be loaded at once; the
    group `""` holds every model that has a process.
    """

    models: Mapping[str, ModelSpec]
    budgets: Bytes
    limits: Mapping[str, int] = field(default_factory=dict)
    cores: int = 0  # for all workers together; 0: nobody is told how many threads to use

    def resolve(self, name: str) -> str:
        """The configured name behind a name or alias; raises UnknownModel."""
        if name in self.models:
            return name
        for spec in self.models.values():
            if name in spec.aliases:
                return spec.name
        raise UnknownModel(name, nearest(name, self.names()))

    def names(self) -> Iterable[str]:
        """Every name a client may use."""
        for spec in self.models.values():
            yield spec.name
            yield from spec.aliases


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is like it at all."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None
