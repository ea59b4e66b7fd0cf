"""Dialogues with tools: when to call, with which arguments, and what to say of the result.

Tools stand in the system turn as one line each: `- name(key: type, ...): description`. Half of them
bear invented names and keys, so that the model copies what it is offered instead of reciting.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from training.documents import Turn
from training.dressing import punctuate, recase
from training.spintax import expand
from training.words import city, code, model_name, person, phrase, plain_word

HEADER = "You may call these tools. Answer with <tool_call> to call one."
NO_TOOL = "I have no tool for that. I can only answer questions about swapper and use the tools I am given."

Arguments = dict[str, str | int]
Maker = Callable[[Random], str]


@dataclass(frozen=True, slots=True)
class Tool:
    """`ask` speaks of the arguments as slots; `tell` speaks of arguments and result alike."""

    names: str
    keys: dict[str, str]
    makers: dict[str, Maker]
    descriptions: str
    ask: str
    result: dict[str, Maker]
    tell: str


def number(rng: Random) -> str:
    return str(rng.choice((rng.randint(0, 30), rng.randint(0, 999), rng.randint(0, 99999))))


def of(*words: str) -> Maker:
    return lambda rng: rng.choice(words)


SKY = of("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "stormy")
TOOLS = [
    Tool(
        "get_weather|weather|current_weather|get_current_weather|lookup_weather",
        {"place": "city|location|place|town"},
        {"place": city},
        "(Get|Returns|Look up) the (current |)weather (in|for|of) a (city|place)|Current weather",
        "(what is|what's|how is|tell me|check) the weather (like |)(in|for) {place}[ today| now]|(is it|will it be) (cold|warm|raining|sunny) in {place}|weather (in|for) {place}|do i need an umbrella in {place}|how (warm|cold) is it in {place}|temperature in {place}|what about {place}",
        {"temperature": number, "sky": SKY},
        "It is {temperature} degrees and {sky} in {place}.",
    ),
    Tool(
        "get_time|current_time|time_in|get_current_time|clock",
        {"place": "city|timezone|place|location"},
        {"place": city},
        "(Get|Returns|Tells) the (current |local |)time (in|of) a (city|place)|Local time",
        "(what time is it|what is the time|what's the time|how late is it) in {place}[ now]|(tell me|give me|check) the time in {place}|(local |)time in {place}",
        {"time": lambda rng: f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"},
        "It is {time} in {place}.",
    ),
    Tool(
        "load_model|start_model|swapper_load|load",
        {"model": "model|name|model_name"},
        {"model": model_name},
        "(Load|Start|Loads|Starts) a model|Bring a model into memory",
        "(load|start|please load|please start|bring up|fire up) {model}[ for me| now|, please]|(load|start) the model {model}|i need {model}[ to be loaded| now]|can you (load|start) {model}",
        {"status": of("ready", "loading", "loaded", "starting", "failed")},
        "The model {model} is {status}.",
    ),
    Tool(
        "unload_model|stop_model|swapper_stop|unload",
        {"model": "model|name|model_name"},
        {"model": model_name},
        "(Unload|Stop|Unloads|Stops) a model|Free the memory of a model",
        "(unload|stop|please unload|please stop|get rid of|shut down|drop) {model}[ for me| now|, please]|(unload|stop) the model {model}|i am done with {model}|can you (unload|stop) {model}",
        {"status": of("stopped", "unloaded", "draining", "stopping", "gone")},
        "The model {model} is {status}.",
    ),
    Tool(
        "model_status|get_status|status|model_info",
        {"model": "model|name|model_name"},
        {"model": model_name},
        "(Get|Returns|Show) the (status|state) of a model|State of a model",
        "(what is|what's|show me|tell me|check) the (status|state) of {model}|is {model} (loaded|ready|running)|(status|state) of {model}|how is {model} doing",
        {"status": of("ready", "sleeping", "stopped", "starting", "draining", "failed")},
        "The model {model} is {status}.",
    ),
    Tool(
        "search|web_search|search_web|find|lookup",
        {"query": "query|text|q|terms"},
        {"query": phrase},
        "(Search|Searches) the (web|internet)|(Find|Look up) (something|pages) (on the web|by words)",
        "(search|look|google) for {query}|(search|look up|find) {query}[ on the web| online|, please]|(please |)search the web for {query}|find (me |)(pages|something) about {query}",
        {"result": phrase},
        "I found this: {result}",
    ),
    Tool(
        "add|sum|add_numbers|plus",
        {"a": "a|x|first", "b": "b|y|second"},
        {"a": number, "b": number},
        "(Add|Adds) two numbers|The sum of two numbers",
        "(what is|what's|calculate|compute|how much is) {a} (plus|+|and) {b}|add {a} (and|to) {b}|{a} (plus|+) {b}|(please |)sum (up |){a} and {b}",
        {"result": number},
        "The result is {result}.",
    ),
    Tool(
        "multiply|times|product|multiply_numbers",
        {"a": "a|x|first", "b": "b|y|second"},
        {"a": number, "b": number},
        "(Multiply|Multiplies) two numbers|The product of two numbers",
        "(what is|what's|calculate|compute|how much is) {a} (times|multiplied by) {b}|multiply {a} (by|and|with) {b}|{a} times {b}",
        {"result": number},
        "The result is {result}.",
    ),
    Tool(
        "send_message|send_email|message|notify|send_mail",
        {"person": "to|recipient|person|name", "text": "text|message|body|content"},
        {"person": person, "text": phrase},
        "(Send|Sends) a (message|mail) to (someone|a person)|Tell somebody something",
        "(send|write) {person} (the message|a message saying|a mail saying|the text) {text}|tell {person} {text}|(send|mail) {text} to {person}|message {person}: {text}",
        {"status": of("sent", "delivered", "queued", "done")},
        "Your message to {person} is {status}.",
    ),
    Tool(
        "read_file|open_file|cat|get_file|file_content",
        {"file": "path|file|filename|name"},
        {
            "file": lambda rng: (
                f"{plain_word(rng)}.{rng.choice(('txt', 'md', 'yaml', 'py', 'json'))}"
            )
        },
        "(Read|Reads|Open|Returns) (a file|the content of a file)|Content of a file",
        "(read|open|show me|print) {file}|(read|open|show me|print) the file {file}|what is in {file}|what does {file} say|(show|give) me the content of {file}",
        {"content": phrase},
        "The file {file} says: {content}",
    ),
    Tool(
        "get_order|order_status|lookup_order|track_order|find_order",
        {"code": "order_id|id|number|order"},
        {"code": code},
        "(Get|Look up|Track) an order|(State|Status) of an order",
        "(where is|what is the state of|track|check|look up) (my |the |)order {code}|(order|status of order) {code}|(has|did) (my |)order {code} (arrived|ship)",
        {"status": of("shipped", "paid", "delivered", "packed", "cancelled", "on its way")},
        "Order {code} is {status}.",
    ),
]


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as it is offered in one dialogue: its names are fixed, its values are not."""

    tool: Tool
    name: str
    keys: dict[str, str]
    description: str

    def line(self) -> str:
        parameters = ", ".join(f"{key}: {self.type_of(slot)}" for slot, key in self.keys.items())
        return f"- {self.name}({parameters}): {self.description}"

    def type_of(self, slot: str) -> str:
        return "number" if self.tool.makers[slot] is number else "string"

    def call(self, values: dict[str, str]) -> str:
        arguments: Arguments = {
            key: int(values[slot]) if self.type_of(slot) == "number" else values[slot]
            for slot, key in self.keys.items()
        }
        content = json.dumps({"name": self.name, "arguments": arguments}, ensure_ascii=False)
        return f"<tool_call>\n{content}\n</tool_call>"


def offer(tool: Tool, rng: Random) -> Offer:
    invented = rng.random() < 0.3
    name = f"{plain_word(rng)}_{plain_word(rng)}" if invented else rng.choice(tool.names.split("|"))
    keys = {slot: rng.choice(keys.split("|")) for slot, keys in tool.keys.items()}
    return Offer(tool, name, keys, expand(f"({tool.descriptions})", rng))


def offers(rng: Random) -> list[Offer]:
    chosen = rng.sample(TOOLS, rng.choice((1, 1, 2, 2, 3, 4)))
    return [offer(tool, rng) for tool in chosen]


def system_turn(available: list[Offer], text: str) -> Turn:
    lines = [HEADER, *(each.line() for each in available)]
    return Turn("system", "\n".join([text, "", *lines] if text else lines))


def use(available: list[Offer], rng: Random) -> list[Turn]:
    chosen = rng.choice(available)
    values = {slot: make(rng) for slot, make in chosen.tool.makers.items()}
    result = {key: make(rng) for key, make in chosen.tool.result.items()}
    # The question is dressed before its slots are filled: what is copied must stay as it is.
    bare = expand(f"({chosen.tool.ask})", rng)
    question = fill(punctuate(recase(bare, rng), rng), values)
    turns = [Turn("user", question), Turn("assistant", chosen.call(values))]
    if rng.random() < 0.75:
        turns += answer(chosen, values, result, rng)
    return turns


def answer(
    chosen: Offer, values: dict[str, str], result: dict[str, str], rng: Random
) -> list[Turn]:
    if rng.random() < 0.2:
        text = phrase(rng)
        return [Turn("tool", text), Turn("assistant", f"The tool says: {text}")]
    told = fill(chosen.tool.tell, values | result)
    return [Turn("tool", written(result, rng)), Turn("assistant", told)]


def written(result: dict[str, str], rng: Random) -> str:
    """Numbers come as numbers from some tools, as text from others."""
    as_number = rng.random() < 0.6
    content = {
        key: int(value) if as_number and value.isdecimal() and str(int(value)) == value else value
        for key, value in result.items()
    }
    return json.dumps(content, ensure_ascii=False)


def fill(text: str, values: dict[str, str]) -> str:
    for slot, value in values.items():
        for spelled in (slot, slot.capitalize(), slot.upper()):
            text = text.replace("{" + spelled + "}", value)
    return text


def refuse(available: list[Offer], rng: Random) -> list[Turn]:
    """Asked for what none of the tools can do."""
    others = [tool for tool in TOOLS if all(tool is not each.tool for each in available)]
    tool = rng.choice(others)
    values = {slot: make(rng) for slot, make in tool.makers.items()}
    question = fill(punctuate(recase(expand(f"({tool.ask})", rng), rng), rng), values)
    return [Turn("user", question), Turn("assistant", NO_TOOL)]


def dialogue(rng: Random, system: str, question: Callable[[Random], list[Turn]]) -> list[Turn]:
    """Some turns with tools at hand, not all of which call for one."""
    available = offers(rng)
    turns = [system_turn(available, system)]
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        kind = rng.random()
        if kind < 0.68:
            turns += use(available, rng)
        elif kind < 0.9:
            turns += question(rng)
        else:
            turns += refuse(available, rng)
    return turns
