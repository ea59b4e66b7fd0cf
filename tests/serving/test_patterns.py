"""Regular expressions of schemas: what is followed is found by other readers of them too."""

from __future__ import annotations

import ipaddress
import json
import random
import re
import uuid
from calendar import isleap
from collections.abc import Callable
from datetime import date, datetime

import pytest

from backends.serving.constraint import Vocabulary
from backends.serving.engine import Grammar
from backends.serving.patterns import FORMATS, PatternError, translated, whole
from tests.serving.test_forced_calls import END, Tokens

VOCABULARY = Vocabulary(Tokens(), END + 1)
CHARS = [*map(chr, range(0x20, 0x180)), *"\t\n\x1c\x85٣㞺₂\u2003\u2028\ufeff"]


def bare(expression: str) -> Grammar:
    return VOCABULARY.compile("start: /{}/".format(expression.replace("/", "\\/")))


def quoted(pattern: str) -> Grammar:
    schema = json.dumps({"type": "string", "pattern": pattern})
    return VOCABULARY.compile(f"start: %json {schema}")


def allows(grammar: Grammar, text: str) -> bool:
    constraint, is_over = grammar.start(), False
    for byte in text.encode():
        if is_over or not int.from_bytes(constraint.mask(), "little") >> byte & 1:
            return False
        is_over = constraint.accept(byte)
    return is_over or bool(int.from_bytes(constraint.mask(), "little") >> END & 1)


@pytest.mark.parametrize("inside", [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "."])
@pytest.mark.parametrize("form", ["^{}$", "^[{}]$", "^[^{}]$"])
def test_classes_mean_no_more_than_to_others(inside: str, form: str) -> None:
    if inside == "." and form != "^{}$":
        return
    pattern = form.format(inside)
    followed = translated(pattern)
    for grammar, around in ((bare(whole(followed)), ""), (quoted(followed), '"')):
        found = [char for char in CHARS if allows(grammar, f"{around}{char}{around}")]
        assert found
        for char in found:
            assert re.search(pattern, char), (char, around)


@pytest.mark.parametrize(
    ("pattern", "texts", "others"),
    [
        ("^{x}$", ["{x}"], ["x"]),
        ("^a{2}$", ["aa"], ["a{2}"]),
        ("^[a&&b]$", ["a", "&"], ["c"]),
        ("^[[a]$", ["[", "a"], ["[a"]),
        ("^[+--]$", ["+", ",", "-"], ["."]),
        ("^[a-]$", ["a", "-"], ["b"]),
        (r"^\/\-\u00e9\x41$", ["/-éA"], ["/-eA"]),
        (r"^[\]\[]$", ["]", "["], ["\\"]),
        ("a|b$", ["xay", "xb"], ["by"]),
        ("(^a$|^b$)", ["a", "b"], ["ab"]),
        ("^$", [""], ["a"]),
        ("(?i:^ab$)", ["aB"], ["b"]),
        (r"\0", ["a\0"], ["0"]),
        (r"[\cA-\cC]", ["\x02"], ["A"]),
    ],
)
def test_forms_that_others_read_otherwise(
    pattern: str, texts: list[str], others: list[str]
) -> None:
    grammar = bare(whole(translated(pattern)))
    assert all(allows(grammar, text) for text in texts)
    assert not any(allows(grammar, text) for text in others)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?=a)", "look-around"),
        ("(?<!a)b", "look-around"),
        ("(a", "open"),
        ("[a", "open"),
        ("a)", "not open"),
        ("\\", "middle"),
        ("[]a]", "empty brackets"),
        (r"\y", "means nothing"),
        ("(?x) a", "not supported"),
        ("(" * 5000, "deeply"),
    ],
)
def test_what_cannot_be_followed_is_said(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason):
        translated(pattern)


@pytest.mark.parametrize("pattern", ["a^", "x($|a)", "(^a)*", "^*"])
def test_anchors_in_the_middle_are_refused_where_texts_are_whole(pattern: str) -> None:
    with pytest.raises(PatternError, match="anchor"):
        whole(translated(pattern))


READERS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uuid": uuid.UUID,
}


@pytest.mark.parametrize("name", READERS)
def test_formats_are_read_by_who_knows_them(name: str) -> None:
    grammar = bare(FORMATS[name])
    for seed in range(40):
        chance, text, constraint = random.Random(seed), "", grammar.start()
        while True:
            bits = int.from_bytes(constraint.mask(), "little")
            token = chance.choice([token for token in range(END + 1) if bits >> token & 1])
            if token == END:
                break
            text += chr(token)
            if constraint.accept(token):
                break
        READERS[name](re.sub(r"(\.\d{1,6})\d*", r"\1", text) if name == "date-time" else text)


@pytest.mark.parametrize(
    ("name", "text", "is_one"),
    [
        ("date", "2024-02-29", True),
        ("date", "2000-02-29", True),
        ("date", "1900-02-29", False),
        ("date", "2023-02-29", False),
        ("date", "0000-01-01", False),
        ("date-time", "2024-02-29T23:59:59.5+02:00", True),
        ("time", "24:00:00Z", False),
        ("duration", "P1Y2M3DT4H5M6S", True),
        ("duration", "P", False),
        ("duration", "PT", False),
        ("email", "a.b+c@example.org", True),
        ("email", ".a@example.org", False),
        ("hostname", "a-b.example", True),
        ("hostname", "-a", False),
        ("ipv4", "256.1.1.1", False),
        ("ipv6", "::1", True),
        ("ipv6", "1:2:3:4:5:6:7:8:9", False),
        ("uri", "https://example.org:80/a?b=c#d", True),
        ("uri", "urn:x:y", True),
        ("uri", "no uri", False),
    ],
)
def test_formats(name: str, text: str, is_one: bool) -> None:
    assert allows(bare(FORMATS[name]), text) is is_one


def test_leap_days_are_in_leap_years() -> None:
    for year in range(10_000):
        is_one = year > 0 and isleap(year)
        assert (re.fullmatch(FORMATS["date"], f"{year:04}-02-29") is not None) is is_one
