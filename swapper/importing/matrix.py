"""llama-swap's expressions for models that may run together: `(a | b) & c`, `+name` for another set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product
from typing import TypeAlias

Sets: TypeAlias = list[frozenset[str]]

MOST_SETS = 4096
_TOKEN = re.compile(r"\s*(?:([&|()])|(\+?)([A-Za-z0-9._:/-]+))")


class BadExpression(ValueError):
    """An expression that cannot be read; the text says why."""


def allowed_sets(
    expressions: Mapping[str, str], resolve: Callable[[str], str | None]
) -> list[frozenset[str]]:
    """Every set of models that the expressions allow.

    `resolve` gives the model a word stands for, None for none. Raises BadExpression.
    """
    found: Sets = []
    for name in expressions:
        found += _Reader(expressions, resolve, (name,)).read()
    return list(dict.fromkeys(found))


class _Reader:
    """Recursive descent over one expression; `trail` are the sets being read."""

    def __init__(
        self,
        expressions: Mapping[str, str],
        resolve: Callable[[str], str | None],
        trail: tuple[str, ...],
    ) -> None:
        self._expressions = expressions
        self._resolve = resolve
        self._trail = trail
        self._tokens = _tokens(expressions[trail[-1]], trail[-1])

    def read(self) -> Sets:
        sets = self._either()
        if self._tokens:
            self._fail(f"'{self._tokens[0]}' is not expected")
        return sets

    def _either(self) -> Sets:
        sets = self._both()
        while self._took("|"):
            sets = [*sets, *self._both()]
        return sets

    def _both(self) -> Sets:
        sets = self._one()
        while self._took("&"):
            right = self._one()
            if len(sets) * len(right) > MOST_SETS:
                self._fail(f"stands for more than {MOST_SETS} sets")
            sets = [left | other for left, other in product(sets, right)]
        return sets

    def _one(self) -> Sets:
        if self._took("("):
            sets = self._either()
            if not self._took(")"):
                self._fail("a ) is missing")
            return sets
        if not self._tokens or self._tokens[0] in ("&", "|", ")"):
            self._fail("a model is missing")
        word = self._tokens.pop(0)
        if word.startswith("+"):
            return self._other(word[1:])
        model = self._resolve(word)
        if model is None:
            self._fail(f"'{word}' is no model")
        return [frozenset((str(model),))]

    def _other(self, name: str) -> Sets:
        if name not in self._expressions:
            self._fail(f"there is no set '{name}'")
        if name in self._trail:
            self._fail(f"'{name}' holds itself")
        return _Reader(self._expressions, self._resolve, (*self._trail, name)).read()

    def _took(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            self._tokens.pop(0)
            return True
        return False

    def _fail(self, text: str) -> None:
        raise BadExpression(f"the set '{self._trail[-1]}': {text}")


def _tokens(text: str, name: str) -> list[str]:
    tokens, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise BadExpression(f"the set '{name}': '{text[place:].strip()[:1]}' has no meaning")
        tokens.append(match[1] or match[2] + match[3])
        place = match.end()
    return tokens
