"""Workers as processes of this machine."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from swapper.core.events import Failure
from swapper.runtime import ports
from swapper.runtime.endpoint import Endpoint
from swapper.runtime.parent import Parent
from swapper.runtime.placement import LaunchSpec, WorkerFacts, WorkerHandle
from swapper.runtime.placement.own_engines import (
    QUICK_TO_START,
    environment,
    find_own_engine,
    find_parent,
)
from swapper.runtime.placement.processless import Processless
from swapper.runtime.placement.urls import BadUrl, endpoint_of
from swapper.runtime.placement.visible import visible_gpus
from swapper.runtime.private_folder import PrivateFolder
from swapper.runtime.process_group import LEFTOVERS_S, Program, sweep
from swapper.runtime.readiness import until_ready
from swapper.runtime.supervisor import Callbacks, Launch, Supervisor

READ_LATE = frozenset(
    ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
)  # when CUDA starts, by the worker
WHERE = "http://127.0.0.1:${port}"  # a command answers, unless its `url` says otherwise


class Refused(Exception):
    """The worker cannot even be started."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.failure = Failure(kind, reason)


class LocalPlacement:
    """A `Placement`. Use it on one event loop, on a thread that outlives all its workers.

    Sockets and option files are kept in a private folder under `runtime_dir`; what a proxy that
    was killed has left there is removed, its processes included. `find_engine` gives the command
    line that runs an engine of our own, None for one that does not exist; `find_parent` that of the
    process that forks the engine's workers, None for one that is not worth it. `gpus`: their UUIDs by
    name.
    """

    def __init__(
        self,
        runtime_dir: Path,
        *,
        find_engine: Callable[[str], tuple[str, ...] | None] = find_own_engine,
        find_parent: Callable[[str], tuple[str, ...] | None] = find_parent,
        gpus: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = PrivateFolder(
            runtime_dir, on_leftover=lambda left: sweep(f"{left}/", LEFTOVERS_S)
        )
        self._find_engine = find_engine
        self._find_parent = find_parent
        self._parents: dict[str, Parent] = {}  # by engine
        self._gpus = gpus or {}
        self._numbers = itertools.count(1)
        self._handles: set[Supervisor | Processless] = set()
        self._ports: dict[int, str] = {}  # of this machine, in use by the worker of that model

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
        """See `Placement`."""
        callbacks = Callbacks(on_progress, on_ready, on_exit, on_output)
        try:
            handle = self._start(worker_id, spec, settings, load_timeout_s, callbacks)
        except Refused as refused:
            handle = Processless(Endpoint(), callbacks, refused.failure)
        except BadUrl as error:
            handle = Processless(Endpoint(), callbacks, Failure("bad_options", str(error)))
        self._handles.add(handle)
        handle.gone.add_done_callback(lambda _: self._handles.discard(handle))
        return handle

    def foresee(self, specs: Iterable[LaunchSpec]) -> None:
        """These may be started some time: have that made by then which makes even the first one quick, where
        it costs little and nobody has to wait for it."""
        for spec in specs:
            parent = self._parent(spec) if spec.engine in QUICK_TO_START else None
            if parent is not None:
                parent.enter()
                parent.make()
                parent.leave()

    @property
    def parents(self) -> dict[str, int]:
        """The processes that fork workers, by engine, while they are there."""
        return {engine: p.pid for engine, p in self._parents.items() if p.pid is not None}

    async def close(self) -> None:
        """See `Placement`."""
        handles = list(self._handles)
        for handle in handles:
            handle.stop(0.0)
        await asyncio.gather(*(parent.close() for parent in self._parents.values()))
        if handles:
            await asyncio.wait([handle.gone for handle in handles])
        self._folder.close()

    def _start(
        self,
        worker_id: str,
        spec: LaunchSpec,
        settings: Mapping[str, object],
        load_timeout_s: float,
        callbacks: Callbacks,
    ) -> Supervisor | Processless:
        gpus = visible_gpus(settings, self._gpus)
        spec = replace(spec, env={**gpus.environment, **spec.env})
        match spec.engine:
            case "url":
                endpoint = endpoint_of(spec.url or "", spec.api_key, spec.upstream_model)
                return Processless(endpoint, callbacks)
            case "command":
                launch = self._command(worker_id, spec)
            case _:
                launch = self._own(worker_id, spec, gpus.settings(settings))
        on_ready = callbacks.on_ready
        callbacks = replace(callbacks, on_ready=lambda facts: on_ready(gpus.facts(facts)))
        launch = replace(launch, our_names=gpus.our_names)
        return Supervisor(launch, load_timeout_s, callbacks)

    def _own(self, worker_id: str, spec: LaunchSpec, settings: Mapping[str, object]) -> Launch:
        """A program of `backends`: it keeps the worker contract, and answers on a Unix socket."""
        argv = self._find_engine(spec.engine)
        if argv is None:
            raise Refused("unsupported", f"there is no engine '{spec.engine}'; correct `engine`")
        name = f"{next(self._numbers)}-{_file_name(worker_id)}"
        socket = self._folder.path / f"{name}.sock"
        options = self._write_options(name, {**spec.options, **settings, "model": spec.model})
        parent = self._parent(spec)
        if parent is not None:
            parent.enter()

        def loaded() -> None:
            options.unlink(missing_ok=True)
            if parent is not None:
                parent.make()

        def release() -> None:
            socket.unlink(missing_ok=True)
            if parent is not None:
                parent.leave()

        return Launch(
            model=spec.model,
            program=Program(
                argv=(*argv, "--listen", f"unix:{socket}", "--options", str(options)),
                mark=self._mark(worker_id),
                env={**environment(), **spec.env},
                parent=parent,
            ),
            endpoint=Endpoint(socket_path=str(socket), upstream_model=spec.upstream_model),
            loaded=loaded,
            release=release,
        )

    def _parent(self, spec: LaunchSpec) -> Parent | None:
        """Who forks this worker. Libraries that a parent has opened have read their environment."""
        argv = self._find_parent(spec.engine)
        if argv is None or not spec.env.keys() <= READ_LATE:
            return None
        if spec.engine not in self._parents:
            mark = self._mark(f"parent of {spec.engine}")  # no worker's: those have a number
            program = Program(argv=argv, mark=mark, env=environment())
            is_waited_for = spec.engine not in QUICK_TO_START
            self._parents[spec.engine] = Parent(program, is_waited_for=is_waited_for)
        return self._parents[spec.engine]

    def _write_options(self, name: str, options: Mapping[str, object]) -> Path:
        try:
            return self._folder.write(f"{name}.json", json.dumps(options))
        except (OSError, TypeError, ValueError) as error:
            raise Refused("bad_options", f"the options could not be written: {error}") from error

    def _command(self, worker_id: str, spec: LaunchSpec) -> Launch:
        """Somebody's command line: it runs under a guard, and answers on a TCP port."""
        if not spec.cmd:
            raise Refused("bad_options", "`cmd` is empty; name the program to run")
        endpoint, port = self._address(spec)
        fill = functools.partial(_fill, port=port, model=spec.model)
        ready = fill(spec.ready) if spec.ready is not None else None
        return Launch(
            model=spec.model,
            program=Program(
                argv=tuple(map(fill, spec.cmd)),
                mark=self._mark(worker_id),
                env={name: fill(value) for name, value in spec.env.items()},
                cwd=fill(spec.cwd) if spec.cwd else None,
                stop_cmd=tuple(map(fill, spec.stop_cmd)),
                is_foreign=True,
            ),
            endpoint=endpoint,
            check=lambda: _port_in_use(endpoint),
            probe=lambda pid: _until_ready(endpoint, ready, pid),
            release=lambda: self._release(endpoint),
        )

    def _address(self, spec: LaunchSpec) -> tuple[Endpoint, int]:
        """Where the command answers, and what `${port}` stands for: its own port, held for it."""
        url, port = spec.url or WHERE, 0
        if "${port}" in url:
            port = ports.free_port(self._ports)
        filled = _fill(url, port=port, model=spec.model)
        endpoint = endpoint_of(filled, spec.api_key, spec.upstream_model)
        if ports.is_loopback(endpoint.host):
            if holder := self._ports.get(endpoint.port):
                raise Refused("port_taken", _taken(endpoint.port, f"the worker of '{holder}'"))
            self._ports[endpoint.port] = spec.model
        return endpoint, port or endpoint.port

    def _release(self, endpoint: Endpoint) -> None:
        if ports.is_loopback(endpoint.host):
            del self._ports[endpoint.port]

    def _mark(self, worker_id: str) -> str:
        return f"{self._folder.path}/{worker_id}/"


async def _port_in_use(endpoint: Endpoint) -> Failure | None:
    """Who answers before the worker is started would be taken for the worker."""
    if not ports.is_loopback(endpoint.host) or not await ports.accepts(*_host_port(endpoint)):
        return None
    holder = await asyncio.to_thread(ports.listener, endpoint.port)
    return Failure("port_taken", _taken(endpoint.port, holder))


async def _until_ready(endpoint: Endpoint, path: str | None, pid: int) -> Failure | None:
    if ports.is_loopback(endpoint.host):
        # Most servers listen before they are ready: so the look at all processes delays nobody.
        await until_ready(endpoint, None)
        if holder := await asyncio.to_thread(ports.listener, endpoint.port, pid):
            return Failure("port_taken", _taken(endpoint.port, holder))
    await until_ready(endpoint, path)
    return None


def _taken(port: int, holder: str | None) -> str:
    by = holder or "another program"
    return f"port {port} is taken by {by}; end that, or let swapper choose a port with ${{port}}"


def _host_port(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.host or "", endpoint.port


def _fill(text: str, *, port: int, model: str) -> str:
    return text.replace("${port}", str(port)).replace("${model}", model)


def _file_name(worker_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", worker_id)[:16].strip(".-")
