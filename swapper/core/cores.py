"""How many CPU threads each worker computes with, as a pure function.

llama.cpp's threads wait for each other at every node of the graph, so two workers that both use all cores
do not take turns, they collapse to a tenth. Workers that are busy together therefore share the cores; one
that is busy alone has them all.
"""

from __future__ import annotations

from collections.abc import Sequence


def shares(busy: Sequence[str], cores: int) -> dict[str, int]:
    """Threads for each of the workers that are busy together: at least one each, the cores between them,
    what is left over to the first ones."""
    if not busy:
        return {}
    each, rest = divmod(cores, len(busy))
    return {worker: max(1, each + (index < rest)) for index, worker in enumerate(busy)}
