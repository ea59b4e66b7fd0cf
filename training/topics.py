"""Loads topics.txt and asks about a topic in one of many wordings."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from training.spintax import SYNONYMS, expand

FILE = Path(__file__).with_name("topics.txt")

NOUN_FRAMES = [
    "what (is|are) {}|what's {}|what about {}|{}|how about {}|and {}",
    "(tell me|say something|talk) about {}|tell me (more|something|a bit more) about {}",
    "(explain|describe|show me) {}[ to me]|(can|could) you (explain|describe) {}",
    "what (does|do) {} (do|mean|stand for)|how (does|do) {} work|how (is|are) {} (done|handled)",
    "what do you (know|have to say) about {}|what (should|must) i know about {}",
    "(i want|i'd like|i need) to (know|learn|hear) (more |something |)about {}",
    "(i have a|one|another|next) question about {}|my question is about {}",
    "(help|help me) with {}|i need help with {}|i do not (understand|get) {}",
    "(any|some) (information|info|details|news) (on|about) {}|{}[, how does that work|, how|, please]",
    "is there (anything|something) (to know |)about {}|what is the (story|deal|situation) with {}",
    "(information|details|documentation|docs) (on|about|for) {}|where can i read about {}",
    "(i heard of|someone mentioned|i read about|they talked about) {}[, what is that|, what is it]",
    "what (exactly is|is meant by|do you mean by|is the point of) {}|what role (does|do) {} play",
    "(does|do) (it|swapper|you) (have|support|know|offer) {}|is {} supported|are {} supported",
    "(can|could|may) i (use|get|have|see) {}|how (do|can) i use {}|where do i find {}",
    "(please |)(give|write|show) me (a summary|an explanation|the basics) of {}|{} for beginners",
]
VERB_FRAMES = [
    "how (do|can|could|would|should|may) (i|we|you|one) {}|how to {}",
    "(can|could|may) (i|we|you|one) {}|am i able to {}",
    "is (it possible|there a way|there any way|there some way) to {}|any way to {}",
    "(i want|i need|i'd like|i would like|i wish|i am trying|i'm trying|i have|we want|we need) to {}",
    "what (do|must|should|can) i do to {}|what is needed to {}|what does it take to {}",
    "(what is|what's) the (best|easiest|right|correct|usual|quickest|proper) way to {}",
    "(show|tell|teach) me how to {}|(please |)explain how to {}|help me {}|help me to {}",
    "(do you know|any idea|i wonder|i'd like to know|could you tell me) how to {}",
    "which (command|setting|option) (do i need|is needed|should i use|do i use) to {}",
    "what if i (want|need|have) to {}|where do i (begin|start) to {}|i have no idea how to {}",
    "{}|{}[, how|, how do i do that|, please]|(is it|is that) (hard|easy|allowed) to {}",
    "what are the steps to {}|how does one {}|how would (i|one) go about it if i want to {}",
    "is there (a|some) (command|setting|option|trick|switch) to {}|what do i (type|write) to {}",
    "(my plan is|my goal is|my task is|i have been asked|i was told) to {}[, how|, what now]",
    "(i cannot|i can't) (figure|find) out how to {}|(must|should) i do something special to {}",
    "what do i have to do in order to {}|(can|could) swapper help me to {}|let me {}",
    "where (can|do|would) i {}|how exactly (do|would) (i|we) {}|what is the procedure to {}",
    "(it would be nice|i would be happy if i could|i hope i can|would be great) to {}",
    "suppose i want to {}|say i want to {}[, what then|, what do i do]|so how do you {}",
]
SYSTEM_FRAMES = [
    "(how|when|why) does (it|swapper|the server|this) {}",
    "(does|will|would) (it|swapper|the server|this|the proxy|this thing) {}",
    "(can|could) (it|swapper|the server|this|the proxy|this thing) {}",
    "is (it|swapper|the server|this) able to {}|is swapper (going|supposed) to {}",
    "(i want|i'd like|i would like|we need) (it|swapper|the server) to {}",
    "(tell me|explain|i wonder|do you know) (how|whether|if|when) (it|swapper|the server) can {}",
    "in (what|which) way does (it|swapper) {}|how is it that swapper can {}",
    "what (makes|lets) (it|swapper) {}|what happens when swapper has to {}",
    "(is it true|i read|i heard|someone told me) that (it|swapper) can {}",
    "(what must i do|how do i arrange it) so that (it|swapper) will {}|i hope it can {}",
    "(is there a|which) setting (that makes|lets) (it|swapper) {}|under what conditions does it {}",
    "how (well|often|exactly|much) does (it|swapper) {}|(would|might) it ever {}",
]


@dataclass(slots=True)
class Topic:
    name: str
    share: int
    answer: str = ""
    questions: list[str] = field(default_factory=list)
    nouns: list[str] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    deeds: list[str] = field(default_factory=list)

    def ask(self, rng: Random) -> str:
        """A question in lower case and without an end mark."""
        kind = rng.random()
        if kind < 0.17 and self.nouns:
            return framed(NOUN_FRAMES, self.nouns, rng)
        if kind < 0.34 and self.verbs:
            return framed(VERB_FRAMES, self.verbs, rng)
        if kind < 0.42 and self.deeds:
            return framed(SYSTEM_FRAMES, self.deeds, rng)
        return expand(f"({rng.choice(self.questions)})", rng)


def framed(frames: list[str], phrases: list[str], rng: Random) -> str:
    phrase = expand(f"({rng.choice(phrases)})", rng)
    return expand(f"({rng.choice(frames)})", rng, {"": phrase})


def load() -> list[Topic]:
    topics: list[Topic] = []
    for line in FILE.read_text().splitlines():
        if line.startswith("@"):
            name, _, words = line[1:].partition(" = ")
            SYNONYMS[name] = words
        elif line.startswith("=="):
            name, share = ([*line.split()[1:], "1"])[:2]
            topics.append(Topic(name, int(share)))
        elif line and not line.startswith("#"):
            add_line(topics[-1], line)
    return topics


def add_line(topic: Topic, line: str) -> None:
    kind, _, text = line.partition(": ")
    if kind == "A":
        topic.answer = text
    elif kind == "Q":
        topic.questions.append(text)
    else:
        # A topic's phrases are alternatives at the outermost level: keep each a pattern of its own.
        {"N": topic.nouns, "V": topic.verbs, "S": topic.deeds}[kind].extend(alternatives(text))


def alternatives(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for character in text:
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(character, 0)
        if character == "|" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


TOPICS = load()
SHARES = [topic.share + 2 for topic in TOPICS]


def draw(rng: Random) -> Topic:
    return rng.choices(TOPICS, SHARES)[0]
