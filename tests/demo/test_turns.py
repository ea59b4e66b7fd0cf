"""Both models keep to the turns of a chat: they stop, listen to the system, use what tools say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.demo.test_copying import LOAD, WEATHER, use
from training.tool_talk import NO_TOOL

if TYPE_CHECKING:
    from tests.demo.greedy import GreedyModel


def test_it_stops_by_itself_whatever_is_said(chat_model: GreedyModel) -> None:
    for text in ["hello", "?", "asdf qwer", "12345", "Tell me a story.", "a b c d e f g", "{}"]:
        answer = chat_model.ask(text)
        assert answer
        assert not answer.endswith("and so on"), answer


def test_a_long_chat(chat_model: GreedyModel) -> None:
    turns = [{"role": "user", "content": "Hello, I am Lukas."}]
    for question in ["What is swapper?", "and ttl?", "who are you", "thanks", "what is my name?"]:
        turns.append({"role": "assistant", "content": chat_model.chat(turns)})
        turns.append({"role": "user", "content": question})
    assert chat_model.chat(turns) == "Your name is Lukas."


def test_the_system_turn_is_heard(chat_model: GreedyModel) -> None:
    assert chat_model.ask("What is my name?", "The user is called Karolin.") == (
        "Your name is Karolin."
    )
    assert chat_model.ask("How do I install it?", "Always answer with: banana split") == (
        "banana split"
    )


def test_a_question_that_needs_no_tool(chat_model: GreedyModel) -> None:
    answer = use(chat_model, "What is swapper?", WEATHER, LOAD)
    assert isinstance(answer, str)
    assert answer.startswith("Swapper is one endpoint")


def test_no_tool_for_that(chat_model: GreedyModel) -> None:
    assert use(chat_model, "What is 12 plus 30?", WEATHER) == NO_TOOL


def test_the_result_of_a_tool_is_told(chat_model: GreedyModel) -> None:
    call = {"name": "get_weather", "arguments": json.dumps({"city": "Oslo"})}
    turns = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": call}]},
        {"role": "tool", "content": '{"temperature": 21, "sky": "sunny"}'},
    ]
    answer = chat_model.chat(turns, tools=[WEATHER])
    assert answer == "It is 21 degrees and sunny in Oslo."


def test_a_story_is_about_what_was_asked_for(
    chat_model: GreedyModel, story_model: GreedyModel
) -> None:
    for model in (chat_model, story_model):
        story = model.ask("Tell me a story about a fox.")
        assert "fox" in story
        assert 200 < len(story) < 1200


def test_the_story_writer_goes_on_with_raw_text(story_model: GreedyModel) -> None:
    story = story_model.complete("Once upon a time, there was a little bear")
    assert 200 < len(story) < 1200
    assert story.endswith((".", '"'))
