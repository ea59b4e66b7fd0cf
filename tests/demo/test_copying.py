"""demo-chat copies what it was told: names, words, arguments of tools.

None of these strings stands in a list of the training generator.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from training import words
from training.words import listed

if TYPE_CHECKING:
    from tests.demo.greedy import GreedyModel

NAMES = listed("""Karolin Lukas Stefania Thorvald Bartholomew Ximena Gwendolyn Siddharth Anneliese
Oluwaseun Quincy Zbigniew Hildegard Kwame Jean Philippa Rodrigo Svetlana
Mireille Jamshid Eleonora Przemek Aoife Benedikt Yolanda Krzysztof""")
CITIES = listed("""Stockholm Oslo Helsinki Reykjavik Vancouver Melbourne Philadelphia Johannesburg
Wolfsburg Bratislava Albuquerque Llanelli Szczecin Nuremberg Thessaloniki
Poughkeepsie Timisoara Kuala-Lumpur Ouagadougou Innsbruck""")
MODELS = listed("""orion-7b bagel-34b starling-lm-7b orca-2-13b Smaug-72B zeta-1.6b dolphin-mixtral
gpt-oss-20b nemotron_nano command-r command-r-plus exaone3.5
pythia-410m openhermes-2.5 wizardlm-13b stable-code-3b minicpm internlm2-20b DeepThought-42B""")
PHRASES = [
    "hydraulic",
    "the cat sat on the mat",
    "lorem ipsum",
    "wxyz-4711",
    "northern lights",
    "a1b2c3",
    "knowledge",
    "tomorrow never comes",
    "supercalifragilistic",
    "invoice_2024.pdf",
    "rainbow trout",
    "where is my hat",
    "42 is the answer",
    "handkerchief",
    "mango-7 lassi",
    "what is swapper",
    "Peter Piper picked a peck",
    "q",
]


def tool(name: str, description: str, **properties: str) -> dict[str, Any]:
    types = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": types}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "Get the current weather in a city", city="string")
LOAD = tool("load_model", "Load a model", model="string")
ADD = tool("add", "Add two numbers", a="number", b="number")


def call_of(answer: str) -> dict[str, Any] | str:
    """The call in an answer; the answer itself where there is none to read."""
    body = answer.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    try:
        return json.loads(body) if body != answer else answer
    except json.JSONDecodeError:
        return answer


def use(model: GreedyModel, request: str, *tools: dict[str, Any]) -> dict[str, Any] | str:
    turns = [{"role": "user", "content": request}]
    return call_of(model.chat(turns, tools=list(tools)))


def assert_most(wanted_and_got: list[tuple[Any, Any]], share: float) -> None:
    wrong = [f"{wanted!r}, got {got!r}" for wanted, got in wanted_and_got if wanted != got]
    right = 1 - len(wrong) / len(wanted_and_got)
    assert right >= share, f"{right:.0%} copied; wrong:\n" + "\n".join(wrong)


def test_the_strings_are_not_those_of_the_training() -> None:
    known = {*words.FIRST_NAMES, *words.CITIES, *words.COMMON, *words.MODEL_STEMS}
    known |= {*words.KNOWN, *words.SAYINGS}
    assert known.isdisjoint([*NAMES, *CITIES, *MODELS, *PHRASES])


def test_names_are_remembered(chat_model: GreedyModel) -> None:
    got = []
    for name in NAMES:
        turns = [{"role": "user", "content": f"Hi, my name is {name}."}]
        turns.append({"role": "assistant", "content": chat_model.chat(turns)})
        turns.append({"role": "user", "content": "What is my name?"})
        got.append((f"Your name is {name}.", chat_model.chat(turns)))
    assert_most(got, 0.9)


def test_cities_become_arguments(chat_model: GreedyModel) -> None:
    assert_most(
        [
            (
                {"name": "get_weather", "arguments": {"city": city}},
                use(chat_model, f"What is the weather in {city}?", WEATHER, LOAD),
            )
            for city in CITIES
        ],
        0.9,
    )


def test_model_names_become_arguments(chat_model: GreedyModel) -> None:
    assert_most(
        [
            (
                {"name": "load_model", "arguments": {"model": name}},
                use(chat_model, f"Please load {name}.", WEATHER, LOAD),
            )
            for name in MODELS
        ],
        0.85,
    )


def test_numbers_become_arguments(chat_model: GreedyModel) -> None:
    pairs = [(17, 25), (3, 4), (120, 999), (64, 36), (5, 12345), (808, 77)]
    assert_most(
        [
            (
                {"name": "add", "arguments": {"a": a, "b": b}},
                use(chat_model, f"What is {a} plus {b}?", ADD, WEATHER),
            )
            for a, b in pairs
        ],
        0.85,
    )


def test_words_are_repeated(chat_model: GreedyModel) -> None:
    assert_most([(text, chat_model.ask(f"Repeat after me: {text}")) for text in PHRASES], 0.85)
