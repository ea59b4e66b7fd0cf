"""What a worker tells swapper: one JSON object a line on the descriptor that swapper gave it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping


class Report:
    """The descriptor, or nothing where there is none: then the worker runs by hand."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._progress = -1.0

    @classmethod
    def from_environment(cls) -> Report:
        """The descriptor named by SWAPPER_REPORT_FD; never passed on to a child."""
        try:
            descriptor = int(os.environ.pop("SWAPPER_REPORT_FD"))
            os.set_inheritable(descriptor, False)
        except (KeyError, ValueError, OSError):
            return cls(None)
        return cls(descriptor)

    def loading(self, progress: float) -> None:
        """How far the load is, from 0 to 1. What falls, or hardly rises, is not sent."""
        progress = min(1.0, progress)
        if progress < self._progress + 0.01 and not (progress == 1.0 > self._progress):
            return
        self._progress = progress
        self._send({"event": "loading", "progress": round(progress, 3)})

    def ready(self, memory: Mapping[str, int], context: int, capabilities: Iterable[str]) -> None:
        """The socket accepts requests."""
        self._send(
            {
                "event": "ready",
                "memory": dict(memory),
                "context": context,
                "capabilities": sorted(capabilities),
            }
        )

    def failed(self, kind: str, reason: str) -> None:
        """The worker is about to exit because it cannot serve."""
        self._send({"event": "failed", "kind": kind, "reason": reason})

    def _send(self, event: Mapping[str, object]) -> None:
        if self._descriptor is None:
            return
        line = memoryview(json.dumps(event).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self._descriptor = None
