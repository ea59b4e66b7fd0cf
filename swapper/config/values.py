"""A configuration, read and checked: frozen values for those who build swapper from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swapper.checkpoint import CheckpointHeader
from swapper.config.fields import Rate
from swapper.config.listen import Listen
from swapper.config.problems import Problem
from swapper.config.schema import AliasEntry, CaptureSection, MemorySection, ModelSection
from swapper.core.registry import ModelSpec
from swapper.errors import ConfigError
from swapper.gguf import GgufHeader
from swapper.runtime.placement import LaunchSpec


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's key; `name` is what logs and workers see."""

    name: str
    key: str = field(repr=False)
    priority: int = 0
    scopes: frozenset[str] = frozenset({"inference", "admin"})
    models: frozenset[str] = frozenset()  # configured names; empty: all
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What is done to request fields: see `swapper.front.adjusting`."""

    drop: frozenset[str] = frozenset()
    default: Mapping[str, object] = field(default_factory=dict)
    set: Mapping[str, object] = field(default_factory=dict)
    system: str | None = None

    def __bool__(self) -> bool:
        return bool(self.drop or self.default or self.set or self.system)


@dataclass(frozen=True, slots=True)
class ConfiguredModel:
    """One model: for the core (`spec`, its variants still to be planned) and for the runtime."""

    spec: ModelSpec
    launch: LaunchSpec
    section: ModelSection  # as written in the file
    line: int | None = None
    header: GgufHeader | None = None  # of a GGUF that is there and whole
    checkpoint: CheckpointHeader | None = None  # of safetensors that are there and whole
    projector: GgufHeader | None = None  # of what lets a GGUF see


@dataclass(frozen=True, slots=True)
class Config:
    """All that was configured.

    `problems` concern single models (a missing file): these answer with an error, the others serve.
    `warnings` are for people.
    """

    file: str
    listen: tuple[Listen, ...]
    models: Mapping[str, ConfiguredModel]
    api_keys: tuple[ApiKey, ...] = ()
    key_in_path: bool = False
    insecure: bool = False
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    keepalive_after_s: float = 2.0
    loading_text: bool = False
    capture: CaptureSection | None = None
    memory: MemorySection = field(default_factory=MemorySection)
    limits: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def adjustments(self) -> dict[str, Adjustment]:
        """By the name that a request gives, where there is something to do."""
        found: dict[str, Adjustment] = {}
        for name, model in self.models.items():
            section = model.section
            found[name] = _adjustment(section)
            found |= {alias.name: _adjustment(section, alias) for alias in section.aliases}
        return {name: adjustment for name, adjustment in found.items() if adjustment}

    @property
    def launches(self) -> dict[str, LaunchSpec]:
        """How every model's worker is brought up."""
        return {name: model.launch for name, model in self.models.items()}

    def problem_of(self, model: str) -> Problem | None:
        """Why the model cannot be served, if it cannot."""
        return next((problem for problem in self.problems if problem.model == model), None)

    def listening_on(self, listen: tuple[Listen, ...]) -> Config:
        """The same with other addresses; raises ConfigError where they would be open to all."""
        text = exposure(listen, bool(self.api_keys), self.insecure)
        if text:
            raise ConfigError(text)
        return replace(self, listen=listen)


def _adjustment(section: ModelSection, alias: AliasEntry | None = None) -> Adjustment:
    """The model's, under what its alias says of the same fields."""
    if alias is None:
        drop = frozenset(section.drop)
        return Adjustment(drop, section.default, section.set, section.system)
    return Adjustment(
        drop=frozenset([*section.drop, *alias.drop]),
        default={**section.default, **alias.default},
        set={**section.set, **alias.set},
        system=alias.system or section.system,
    )


def exposure(listen: tuple[Listen, ...], has_keys: bool, insecure: bool) -> str | None:
    """What is wrong with listening there, if everybody could come in."""
    open_to_all = [str(address) for address in listen if not address.is_local]
    if not open_to_all or has_keys or insecure:
        return None
    return (
        f"{', '.join(open_to_all)} can be reached from other machines, and no api_keys are set; "
        "add api_keys, listen on 127.0.0.1, or say `insecure: true`"
    )
