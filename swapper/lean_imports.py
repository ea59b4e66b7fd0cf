"""aiohttp and structlog without what they do at import for others: a quarter of a start otherwise.

aiohttp reads the system's certificates, twice, for its client, and structlog builds on rich for tracebacks;
`swapper serve` uses neither. Both packages do without where Python has no `ssl` and nobody has installed
`rich`, so that is what they are shown, and only while they are imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def import_lean() -> None:
    """Import both, for a process that is to serve. What was imported before stays as it is."""
    with _hidden("rich"):
        import_module("structlog")
    for name in ("asyncio", "urllib.request"):  # aiohttp imports them too, and they need TLS
        import_module(name)
    with _hidden("ssl"):
        import_module("aiohttp")


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Importing the module fails inside, as if it were not installed."""
    was_there, module = name in sys.modules, sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # what the import system takes for "not found"
    try:
        yield
    finally:
        del sys.modules[name]
        if was_there:
            sys.modules[name] = module  # type: ignore[assignment]
