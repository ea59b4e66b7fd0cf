"""Sentence patterns: `(a|b|c)` picks one, `[x|y]` picks one or none, `{name}` fills a slot.

Patterns nest. `@word` stands for one of the synonyms in SYNONYMS, so that a pattern written once is
heard in many wordings: a model this small knows no synonym it was not shown.
"""

import re
from collections.abc import Mapping
from random import Random

INNERMOST = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
SYNONYM = re.compile(r"@([a-z_]+)")
SPACES = re.compile(r" {2,}")
SPACE_BEFORE_MARK = re.compile(r" +([,.?!])")

SYNONYMS: dict[str, str] = {}


def expand(pattern: str, rng: Random, slots: Mapping[str, str] | None = None) -> str:
    """One random sentence of a pattern. Slots are filled last, so their text is never a pattern."""
    text = resolve(pattern, rng)
    for name, value in (slots or {}).items():
        text = text.replace("{" + name + "}", value)
    return text


def resolve(pattern: str, rng: Random) -> str:
    text = SYNONYM.sub(lambda match: f"({SYNONYMS[match[1]]})", pattern)
    found = INNERMOST.search(text)
    while found:
        text = text[: found.start()] + choose(found, rng) + text[found.end() :]
        found = INNERMOST.search(text)
    return SPACE_BEFORE_MARK.sub(r"\1", SPACES.sub(" ", text)).strip(" ")


def choose(found: re.Match[str], rng: Random) -> str:
    if found[1] is not None:
        return rng.choice(found[1].split("|"))
    return rng.choice(found[2].split("|")) if rng.random() < 0.5 else ""
