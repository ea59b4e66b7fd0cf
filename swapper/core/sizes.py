"""Memory and places in words, for reasons that people read."""

from __future__ import annotations

from swapper.core.registry import GROUP, Bytes


def sizes(needs: Bytes) -> str:
    """What is needed as a person reads it: "host 1.20 GiB, a place in max_loaded"."""
    return ", ".join(_size(name, need) for name, need in needs.items()) or "nothing"


def _size(name: str, need: int) -> str:
    if name.startswith(GROUP):
        return f"a place in {name.removeprefix(GROUP) or 'max_loaded'}"
    return f"{name} {need / 2**30:.2f} GiB" if need >= 2**30 else f"{name} {need / 2**20:.0f} MiB"
