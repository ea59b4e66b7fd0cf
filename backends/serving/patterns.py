"""Regular expressions and formats of JSON Schema, in the words of the engine that follows them.

JSON Schema writes ECMAScript's regular expressions, validators read them as their own language does, and
llguidance follows those of Rust. What these understand differently (`\\d` and digits of other scripts, `.`
and line ends, brackets inside brackets) is narrowed to what all of them allow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


class PatternError(Exception):
    """A regular expression that cannot be followed, in words that a client may read."""


@dataclass(frozen=True, slots=True)
class _Group:
    opening: str  # with what makes it a capturing one or not
    choices: Sequence[Sequence[_Item]]


_Item = str | _Group

_TOKEN = re.compile(
    r"""\\[ux]\{[0-9A-Fa-f]+\} | \\u[0-9A-Fa-f]{4} | \\x[0-9A-Fa-f]{2} | \\c[A-Za-z]
    | \\[pP]\{[^}]*\} | \\k<[^>]*> | \\. | \[\^? | \((?:\?[^:=!<]*[:=!)]|\?<[^>=!]*[>=!])? | \)
    | \{\d+(?:,\d*)?\}\?? | [*+?]\?? | . """,
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIER = re.compile(r"[*+?]\??|\{\d+(?:,\d*)?\}\??")
_OPENING = re.compile(r"\((?:\?(?:P?<\w+>|[is]*(?:-[is]+)?[:)]))?")
# Properties by name: llguidance reads \w in a schema's pattern as ASCII, elsewhere as Unicode.
_SPACES = r"\t\n\x0B\f\r "
_ANY_SPACES = r"\p{White_Space}\x1c-\x1f\x{FEFF}"
_WORD, _ANY_WORD = "A-Za-z0-9_", r"\p{L}\p{N}_"
_OUTSIDE = {
    r"\d": "[0-9]",
    r"\D": r"\P{Nd}",
    r"\w": f"[{_WORD}]",
    r"\W": f"[^{_ANY_WORD}]",
    r"\s": f"[{_SPACES}]",
    r"\S": f"[^{_ANY_SPACES}]",
    ".": r"[^\n\r\x{2028}\x{2029}]",
}
_INSIDE = {
    r"\d": "0-9",
    r"\D": r"\P{Nd}",
    r"\w": _WORD,
    r"\W": f"[^{_ANY_WORD}]",
    r"\s": _SPACES,
    r"\S": f"[^{_ANY_SPACES}]",
    r"\b": r"\x08",
}
# In [^...] what is named is forbidden: there the wider meaning is the safe one.
_INSIDE_NOT = {
    r"\d": r"\p{Nd}",
    r"\D": "[^0-9]",
    r"\w": _ANY_WORD,
    r"\W": f"[^{_WORD}]",
    r"\s": _ANY_SPACES,
    r"\S": f"[^{_SPACES}]",
    r"\b": r"\x08",
}
_SETS = frozenset({r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"})
_LETTERS = frozenset("ntrfvdDsSwWbB0AzZkaGQE123456789")


def translated(pattern: str) -> str:
    """The same regular expression as Rust has it. Raises PatternError."""
    return _choices(_read(_Reader(_TOKEN.findall(pattern))))


def whole(expression: str) -> str:
    """What `translated` gave, for whole texts in which it is found: its anchors are gone. Raises
    PatternError for anchors that stand anywhere but around the whole or one of its choices."""
    return _whole(_read(_RustReader(_TOKEN.findall(expression))))


# -- reading ---------------------------------------------------------------------------------------


def _read(reader: _Reader) -> list[list[_Item]]:
    try:
        choices = reader.choices()
    except RecursionError:
        raise PatternError("the regular expression is nested too deeply") from None
    if not reader.is_over:
        raise PatternError("the regular expression closes a group that is not open")
    return choices


class _Reader:
    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def is_over(self) -> bool:
        return self._at == len(self._tokens)

    def _take(self) -> str:
        if self.is_over:
            raise PatternError("the regular expression leaves a bracket open")
        self._at += 1
        return self._tokens[self._at - 1]

    def choices(self) -> list[list[_Item]]:
        choices: list[list[_Item]] = [[]]
        while not self.is_over and self._tokens[self._at] != ")":
            token = self._take()
            if token == "|":
                choices.append([])
            elif token.startswith("("):
                choices[-1].append(self._group(token))
            elif token.startswith("["):
                choices[-1].append(self._set(token))
            else:
                choices[-1].append(self._single(token))
        return choices

    def _single(self, token: str) -> str:
        return _outside(token)

    def _group(self, opening: str) -> _Item:
        if opening.endswith(("=", "!")):
            raise PatternError("look-around in regular expressions is not supported")
        if not _OPENING.fullmatch(opening):
            raise PatternError(f"the regular expression has {opening}, which is not supported")
        if opening.endswith(")"):
            return opening
        inside = self.choices()
        self._take()
        return _Group(opening, inside)

    def _set(self, opening: str) -> str:
        meaning = _INSIDE if opening == "[" else _INSIDE_NOT
        atoms: list[str] = []
        while (token := self._take()) != "]":
            atoms += token if token[0] in "[({*+?" and len(token) > 1 else [token]
        if not atoms:
            raise PatternError("a regular expression with empty brackets is not supported")
        parts, at = [], 0
        while at < len(atoms):
            first, dash, last = (*atoms[at : at + 3], "", "")[:3]
            if dash == "-" and last and not _SETS & {first, last}:
                parts.append(f"{_inside(first, meaning)}-{_inside(last, meaning)}")
                at += 3
            else:
                parts.append(_inside(first, meaning))
                at += 1
        return f"{opening}{''.join(parts)}]"


class _RustReader(_Reader):
    def _single(self, token: str) -> str:
        return token

    def _set(self, opening: str) -> str:
        parts, depth = [opening], 1
        while depth:
            token = self._take()
            depth += token.startswith("[")
            depth -= token == "]"
            parts.append(token)
        return "".join(parts)


def _outside(token: str) -> str:
    if token in _OUTSIDE:
        return _OUTSIDE[token]
    if token in "{}]":
        return "\\" + token
    return _escape(token) if token.startswith("\\") else token


def _inside(token: str, meaning: dict[str, str]) -> str:
    if token in meaning:
        return meaning[token]
    if token in ("[", "&", "~", "-", "^"):  # Rust has sets of sets
        return "\\" + token
    return _escape(token) if token.startswith("\\") else token


def _escape(token: str) -> str:
    if token == "\\":
        raise PatternError("the regular expression ends in the middle")
    char = token[1]
    if len(token) > 2:
        if char == "c":
            return f"\\x{ord(token[2]) % 32:02x}"
        return f"\\x{{{token[2:].strip('{}')}}}" if char in "ux" else token
    if char == "0":
        return r"\x00"
    if char == "v":
        return r"\x0B"
    if char in _LETTERS:
        return token
    if char.isascii() and char.isalpha():
        raise PatternError(f"the regular expression has {token}, which means nothing")
    return re.escape(char) if char.isascii() and char not in "<>" else char


# -- writing ---------------------------------------------------------------------------------------


def _choices(choices: Sequence[Sequence[_Item]]) -> str:
    return "|".join("".join(map(_item, items)) for items in choices)


def _item(item: _Item) -> str:
    return item if isinstance(item, str) else f"{item.opening}{_choices(item.choices)})"


def _whole(choices: Sequence[Sequence[_Item]]) -> str:
    return "|".join(map(_whole_choice, choices))


def _whole_choice(items: Sequence[_Item]) -> str:
    flags = items[0] if items and isinstance(items[0], str) and items[0].startswith("(?") else ""
    items = items[1:] if flags else items
    if len(items) == 1 and isinstance(items[0], _Group):
        return f"{flags}{items[0].opening}{_whole(items[0].choices)})"
    is_left, is_right = items[:1] == ["^"], items[-1:] == ["$"]
    items = items[is_left : len(items) - is_right]
    if any(map(_has_anchor, items)) or (is_left and items and _is_repeat(items[0])):
        raise PatternError("an anchor in the middle of a regular expression is not supported here")
    before, after = "" if is_left else "(?s:.*)", "" if is_right else "(?s:.*)"
    return f"{flags}{before}{''.join(map(_item, items))}{after}"


def _has_anchor(item: _Item) -> bool:
    if isinstance(item, str):
        return item in ("^", "$")
    return any(_has_anchor(inner) for items in item.choices for inner in items)


def _is_repeat(item: _Item) -> bool:
    return isinstance(item, str) and _QUANTIFIER.fullmatch(item) is not None


# -- formats ---------------------------------------------------------------------------------------

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = (
    "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"  # not 0000
)
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR}:[0-5][0-9](?:\.[0-9]{{1,9}})?(?:Z|[+\-]{_HOUR})"
_N = "[0-9]{1,9}"
_DAYS = f"(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)"
_HOURS = f"T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S)"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?\^_`{|}~\-]{1,64}"
_HEX = "[0-9A-Fa-f]"
_GROUP = f"{_HEX}{{1,4}}"
_IPV6 = "|".join(
    [
        f"(?:{_GROUP}:){{7}}{_GROUP}",
        f"::(?:{_GROUP}(?::{_GROUP}){{0,6}})?",
        f"(?:{_GROUP}:){{1,7}}:",
    ]
    + [f"(?:{_GROUP}:){{{left}}}(?::{_GROUP}){{1,{7 - left}}}" for left in range(1, 7)]
)
_URI_CHAR = rf"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%{_HEX}{{2}})"
_URI_TAIL = rf"(?:/{_URI_CHAR}*)*(?:\?(?:{_URI_CHAR}|[/?])*)?(?:#(?:{_URI_CHAR}|[/?])*)?"

# By name, an expression for whole texts. Never more than the format allows, for uncommon forms less.
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P(?:{_N}W|{_DAYS}(?:{_HOURS})?|{_HOURS})",
    "email": rf"{_ATOM}(?:\.{_ATOM})*@{_HOST}",
    "hostname": _HOST,
    "ipv4": rf"(?:{_BYTE}\.){{3}}{_BYTE}",
    "ipv6": _IPV6,
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    "uri": rf"[A-Za-z][A-Za-z0-9+.\-]*:(?://{_HOST}(?::[0-9]{{1,5}})?{_URI_TAIL}|{_URI_CHAR}+{_URI_TAIL})",
}
