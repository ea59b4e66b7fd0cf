"""On which devices to load a model: the choice among its layouts, as a pure function.

Only layouts that could be had at all count, and of these only the best: one with all layers on a GPU
is worth an eviction, and is preferred to a lesser one that fits without. Among equals

  1. one for which there is room now; of several the tightest, so that large models keep finding room;
  2. else the one for which room is made most cheaply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from swapper.core.registry import Bytes, Variant, is_gpu

Amount: TypeAlias = Callable[[str], int]  # of a device or group, by name
Price: TypeAlias = tuple[float, ...]  # the smaller, the cheaper


@dataclass(frozen=True, slots=True)
class Layout:
    """A variant, and what a start with it takes as far as is known now."""

    variant: Variant
    needs: Bytes


def choose(
    layouts: Iterable[Layout], most: Amount, room: Amount, price: Callable[[Bytes], Price]
) -> Layout | None:
    """The layout to load, or to make room for; None when none of them could ever be had.

    `most`: what could be had if everything movable were moved. `room`: what there is now. `price`:
    what it costs to make room for such needs; asked only where there is something to choose.
    """
    equals = _best(layouts, most)
    if fitting := [layout for layout in equals if fits(layout.needs, room)]:
        return min(fitting, key=lambda layout: left_over(layout.needs, room))
    if len(equals) > 1:
        return min(equals, key=lambda layout: price(layout.needs))
    return equals[0] if equals else None


def fits(needs: Bytes, room: Amount) -> bool:
    """Whether there is so much of everything."""
    return all(need <= room(name) for name, need in needs.items())


def left_over(needs: Bytes, room: Amount) -> int:
    """Bytes that would be left on the GPUs in question."""
    return sum(room(name) - need for name, need in needs.items() if is_gpu(name))


def _best(layouts: Iterable[Layout], most: Amount) -> Sequence[Layout]:
    """Those of the best quality that can be had, in the order given."""
    possible = [layout for layout in layouts if fits(layout.needs, most)]
    best = max((layout.variant.quality for layout in possible), default=None)
    return [layout for layout in possible if layout.variant.quality == best]
