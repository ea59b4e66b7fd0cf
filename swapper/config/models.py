"""One model's section to what the core and the runtime need of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from swapper.checkpoint import CheckpointHeader, read_checkpoint
from swapper.config.document import Document
from swapper.config.problems import Problem
from swapper.config.schema import (
    CommandModel,
    DefaultsSection,
    EchoModel,
    LlamaCppModel,
    ModelSection,
    PagedModel,
    UrlModel,
)
from swapper.config.values import ConfiguredModel
from swapper.core.registry import ModelSpec, Variant
from swapper.errors import ConfigError
from swapper.gguf import GgufHeader, read_header
from swapper.runtime.placement import LaunchSpec

_MOST_SEQUENCES = 256  # llama.cpp's own limit
_QUANTISED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_PASSED_ON = (
    "parallel",
    "kv_tokens",
    "cache_type_k",
    "cache_type_v",
    "batch",
    "ubatch",
    "mmap",
    "mlock",
    "image_tokens",
)


class ModelReader:
    """Reads sections one by one; what is wrong piles up in three heaps.

    `errors` make the configuration useless, `problems` one model, `warnings` nothing.
    """

    def __init__(self, document: Document, defaults: DefaultsSection, folder: Path) -> None:
        self.errors: list[Problem] = []
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._document = document
        self._defaults = defaults
        self._folder = folder

    def read(self, name: str, section: ModelSection) -> ConfiguredModel:
        """The model, with a plain variant that `planning` replaces."""
        if not name.strip() or any(not char.isprintable() for char in name):
            self._error(name, "", "is not a name for a model")
        spec = _spec(name, section, self._defaults)
        line = self._document.line_of(("models", name))
        match section:
            case LlamaCppModel():
                return self._llamacpp(spec, section, line)
            case PagedModel():
                return self._paged(spec, section, line)
            case EchoModel():
                options = {"model": name, "parallel": section.parallel, **section.options}
                if section.context:
                    options["context"] = section.context
                launch = LaunchSpec(name, "echo", options=options)
            case CommandModel():
                launch = self._command(name, section)
            case UrlModel():
                launch = self._url(name, section)
            case _:
                assert_never(section)
        return ConfiguredModel(spec, launch, section, line)

    # ------------------------------------------------------------ engines

    def _llamacpp(
        self, spec: ModelSpec, section: LlamaCppModel, line: int | None
    ) -> ConfiguredModel:
        self.errors += self._contradictions(spec.name, section)
        path = self._resolved(section.path)
        header = self._header(spec.name, section, path)
        options: dict[str, object] = {"model": spec.name, "path": str(path)}
        options |= {key: v for key in _PASSED_ON if (v := getattr(section, key)) is not None}
        autos = ("context", "threads", "flash_attention")
        options |= {key: v for key in autos if (v := getattr(section, key)) != "auto"}
        if section.lora:
            options["lora"] = [self._lora(spec.name, section, i) for i in range(len(section.lora))]
        projector = None
        if section.mmproj is not None:
            file = self._resolved(section.mmproj)
            projector = self._projector(spec.name, file)
            options["mmproj"] = str(file)
        launch = LaunchSpec(spec.name, "llamacpp", options=options)
        return ConfiguredModel(spec, launch, section, line, header, projector=projector)

    def _header(self, name: str, section: LlamaCppModel, path: Path) -> GgufHeader | None:
        try:
            header = read_header(path)
        except ConfigError as error:
            self._problem(name, "path", f"{error} ({path})")
            return None
        trained = header.metadata.get(f"{header.architecture}.context_length")
        if (
            isinstance(section.context, int)
            and isinstance(trained, int)
            and section.context > trained
        ):
            text = f"{section.context} is more than the {trained} tokens the model was trained for"
            self._warning(name, "context", text)
        return header

    def _projector(self, name: str, path: Path) -> GgufHeader | None:
        try:
            header = read_header(path)
        except ConfigError as error:
            self._problem(name, "mmproj", f"{error} ({path})")
            return None
        if header.architecture != "clip":
            self._problem(name, "mmproj", f"{path.name} encodes no images, it is a model ({path})")
            return None
        return header

    def _paged(self, spec: ModelSpec, section: PagedModel, line: int | None) -> ConfiguredModel:
        self.errors += self._pool_contradiction(spec.name, section)
        path = self._resolved(section.path)
        checkpoint = self._checkpoint(spec.name, path)
        options: dict[str, object] = {"model": spec.name, "path": str(path)}
        passed_on = ("parallel", "kv_tokens", "dtype", "batch", "pooling")
        options |= {key: v for key in passed_on if (v := getattr(section, key)) is not None}
        options |= {
            key: v for key in ("context", "threads") if (v := getattr(section, key)) != "auto"
        }
        launch = LaunchSpec(spec.name, "paged", options=options)
        return ConfiguredModel(spec, launch, section, line, checkpoint=checkpoint)

    def _checkpoint(self, name: str, path: Path) -> CheckpointHeader | None:
        try:
            return read_checkpoint(path)
        except ConfigError as error:
            self._problem(name, "path", f"{error} ({path})")
            return None

    def _lora(self, name: str, section: LlamaCppModel, index: int) -> dict[str, object]:
        lora = section.lora[index]
        path = self._resolved(lora.path)
        if not path.is_file():
            self._problem(name, "lora", f"there is no file {path}")
        return {"path": str(path), "scale": lora.scale}

    def _contradictions(self, name: str, section: LlamaCppModel) -> Iterator[Problem]:
        def problem(key: str, text: str) -> Problem:
            return self._document.problem(("models", name, key), text)

        if section.parallel > _MOST_SEQUENCES:
            yield problem("parallel", f"llama.cpp takes {_MOST_SEQUENCES} at most")
        if section.flash_attention is False and section.cache_type_v in _QUANTISED:
            yield problem("cache_type_v", f"{section.cache_type_v} needs flash_attention")
        yield from self._pool_contradiction(name, section)

    def _pool_contradiction(
        self, name: str, section: LlamaCppModel | PagedModel
    ) -> Iterator[Problem]:
        context, pool = section.context, section.kv_tokens
        if isinstance(context, int) and pool is not None and pool < context:
            text = f"is less than context ({context}), so no request could use that"
            yield self._document.problem(("models", name, "kv_tokens"), text)

    def _command(self, name: str, section: CommandModel) -> LaunchSpec:
        cwd = None if section.cwd is None else self._resolved(section.cwd)
        if cwd is not None and not cwd.is_dir():
            self._problem(name, "cwd", f"there is no folder {cwd}")
        else:
            self._find_program(name, section, cwd)
        if section.url is not None:
            self._check_url(name, section.url.replace("${port}", "1"))
        if section.ready is not None and not section.ready.startswith("/"):
            self._error(name, "ready", "must be a path such as /health, or null")
        return LaunchSpec(
            name,
            "command",
            cmd=tuple(section.cmd),
            env=section.env,
            cwd=None if cwd is None else str(cwd),
            stop_cmd=tuple(section.stop_cmd or ()),
            url=section.url,
            ready=section.ready,
            api_key=section.api_key,
            upstream_model=section.upstream_model,
        )

    def _find_program(self, name: str, section: CommandModel, cwd: Path | None) -> None:
        program = section.cmd[0]
        if "${" in program:
            return
        if "/" in program:
            found = (cwd or Path.cwd()).joinpath(program).is_file()
        else:
            found = shutil.which(program, path=section.env.get("PATH")) is not None
        if not found:
            self._problem(name, "cmd", f"there is no program {program}")

    def _url(self, name: str, section: UrlModel) -> LaunchSpec:
        self._check_url(name, section.url)
        return LaunchSpec(
            name,
            "url",
            url=section.url,
            api_key=section.api_key,
            upstream_model=section.upstream_model,
        )

    def _check_url(self, name: str, url: str) -> None:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
            valid = valid and (parts.port is None or parts.port > 0)
        except ValueError:
            valid = False
        if not valid:
            self._error(name, "url", f"'{url}' is not an address such as http://127.0.0.1:9000")

    # ------------------------------------------------------------ small things

    def _resolved(self, text: str) -> Path:
        """A path as written: `~` is the home, relative ones start at the configuration's folder."""
        return self._folder / Path(text).expanduser()

    def _error(self, name: str, key: str, text: str) -> None:
        path = ("models", name, key) if key else ("models", name)
        self.errors.append(self._document.problem(path, text))

    def _problem(self, name: str, key: str, text: str) -> None:
        self.problems.append(self._document.problem(("models", name, key), text, name))

    def _warning(self, name: str, key: str, text: str) -> None:
        self.warnings.append(self._document.problem(("models", name, key), text, name))


def _spec(name: str, section: ModelSection, defaults: DefaultsSection) -> ModelSpec:
    """The core's part. What runs elsewhere costs nothing here: it has no ttl unless it says so."""

    def chosen(key: str) -> float:
        value = getattr(section, key)
        return getattr(defaults, key) if value is None else value  # type: ignore[no-any-return]

    max_wait = defaults.max_wait if section.max_wait is None else section.max_wait
    ttl = 0.0 if isinstance(section, UrlModel) and section.ttl is None else chosen("ttl")
    memory = getattr(section, "memory", None) or {}
    return ModelSpec(
        name=name,
        engine=section.engine,
        variants=(Variant(needs=memory),),
        aliases=tuple(alias.name for alias in section.aliases),
        parallel=section.parallel,
        ttl_s=ttl,
        max_wait_s=None if max_wait == "auto" else max_wait,
        queue_timeout_s=chosen("queue_timeout"),
        queue_limit=int(chosen("queue_limit")),
        load_timeout_s=chosen("load_timeout"),
        stop_grace_s=chosen("stop_grace"),
        pin=section.pin,
        preload=section.preload,
        priority=section.priority,
        role=section.role,
    )
