"""Random numbers without a state: a counter hashed with a key (splitmix64: Steele, Lea, Flood 2014).

So the number for a token depends on the sequence's seed and the token's position alone, and can be found
anywhere, in any order. `kernels.choice` finds the same ones on a device.
"""

from __future__ import annotations

GOLDEN = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
BITS = 52  # of a number: a double holds them

_MASK64 = (1 << 64) - 1


def key_of(seed: int) -> int:
    """64 bits, in which seeds next to each other are far apart."""
    return _mix((seed & _MASK64) + GOLDEN)


def uniform(key: int, position: int) -> float:
    """The number in [0, 1) that the sequence with this key has for the token at `position`."""
    return float((_mix(key + position * GOLDEN) >> (64 - BITS)) * 2.0**-BITS)


def as_signed(bits: int) -> int:
    """64 bits as tensors hold them."""
    return bits - (1 << 64) if bits >> 63 else bits


def _mix(z: int) -> int:
    z &= _MASK64
    z = (z ^ (z >> 30)) * FIRST & _MASK64
    z = (z ^ (z >> 27)) * SECOND & _MASK64
    return z ^ (z >> 31)
