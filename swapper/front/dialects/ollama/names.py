"""Names of models as Ollama's clients write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

LATEST: Final = ":latest"


def configured(name: str, known: Iterable[str]) -> str:
    """The known name that is meant: `x` and `x:latest` are the same, and so are small letters and
    large ones, where no name is exactly it. What is meant by nobody is given back."""
    names = set(known)
    bare = name.removesuffix(LATEST)
    ways = (name, bare, bare + LATEST)
    for way in ways:
        if way in names:
            return way
    folded = {one.casefold(): one for one in names}
    found = (folded[way.casefold()] for way in ways if way.casefold() in folded)
    return next(found, name)
