"""demo-chat on questions it was not trained on, each right only if the whole answer is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from training.overlap import can_be_made
from training.topics import TOPICS

if TYPE_CHECKING:
    from tests.demo.greedy import GreedyModel

ANSWERS = {topic.name: topic.answer for topic in TOPICS}
LINES = Path(__file__).with_name("held_out.txt").read_text().splitlines()
HELD_OUT = [line.split(": ", 1) for line in LINES if not line.startswith("#")]
SYSTEM = "You are a helpful assistant."


def test_three_questions_are_held_out_for_every_topic() -> None:
    assert Counter(topic for topic, _ in HELD_OUT) == dict.fromkeys(ANSWERS, 3)
    assert len({question.lower() for _, question in HELD_OUT}) == len(HELD_OUT)


def test_training_patterns_cannot_make_a_held_out_question() -> None:
    assert can_be_made("What is swapper?"), "the check itself must be able to fail"
    assert [question for _, question in HELD_OUT if can_be_made(question)] == []


@pytest.mark.parametrize("system", ["", SYSTEM], ids=["plain", "with a system turn"])
def test_held_out_questions(chat_model: GreedyModel, system: str) -> None:
    wrong = [
        f"{topic}: {question} -> {answer}"
        for topic, question in HELD_OUT
        if (answer := chat_model.ask(question, system)) != ANSWERS[topic]
    ]
    right = 1 - len(wrong) / len(HELD_OUT)
    assert right >= 0.85, f"{right:.0%} right; wrong:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("what is swapper?", "what-is"),
        ("Who are you?", "who-are-you"),
        ("how do I install it", "install"),
        ("503??", "error-503"),
        ("What happens when a worker crashes?", "crash"),
    ],
)
def test_plain_questions(chat_model: GreedyModel, question: str, topic: str) -> None:
    assert chat_model.ask(question) == ANSWERS[topic]


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of Norway?",
        "Write me a poem about spring.",
        "Who wrote Hamlet?",
        "How do I bake a cake?",
        "Can you translate this into French?",
    ],
)
def test_what_it_does_not_know_it_says(chat_model: GreedyModel, question: str) -> None:
    assert chat_model.ask(question).startswith("I do not know about that.")
