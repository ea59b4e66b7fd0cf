"""Which questions the training patterns can make, exactly: patterns read backwards, as regexes.

Drawing a million samples would only suggest that a held-out question never occurs; this decides it
(for bare questions: dressing adds typos and openers, never another wording).
"""

import re
from functools import cache
from itertools import chain

from training.spintax import SYNONYM, SYNONYMS
from training.topics import NOUN_FRAMES, SYSTEM_FRAMES, TOPICS, VERB_FRAMES

MARKS = {"(": "(?:", "[": "(?:", ")": ")", "]": ")?", "|": "|", " ": " *"}
END_MARKS = re.compile(r"[?.!\s]+$")


def as_regex(pattern: str) -> str:
    expanded = SYNONYM.sub(lambda match: f"({SYNONYMS[match[1]]})", pattern)
    return "".join(MARKS.get(character) or re.escape(character) for character in expanded)


def framed(frames: list[str], phrases: list[str]) -> list[str]:
    phrase = "(?:" + "|".join(as_regex(each) for each in phrases) + ")"
    return [as_regex(frame).replace(r"\{\}", phrase) for frame in frames] if phrases else []


@cache
def makeable() -> list[re.Pattern[str]]:
    sources = chain.from_iterable(
        [
            *(as_regex(question) for question in topic.questions),
            *framed(NOUN_FRAMES, topic.nouns),
            *framed(VERB_FRAMES, topic.verbs),
            *framed(SYSTEM_FRAMES, topic.deeds),
        ]
        for topic in TOPICS
    )
    return [re.compile(rf" *(?:{source}) *") for source in sources]


def can_be_made(question: str) -> bool:
    bare = END_MARKS.sub("", question.lower())
    return any(pattern.fullmatch(bare) for pattern in makeable())
