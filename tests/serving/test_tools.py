"""What models of each family write comes out as content, reasoning and calls, however it is cut."""

# ruff: noqa: RUF001 - markers as the models write them

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.serving.tools import AnswerReader, Dialect, Tool
from backends.serving.tools.dialect import find_dialect
from tests.serving.families import FAMILIES

TOOLS = [
    Tool(
        "weather",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
        },
    ),
    Tool("now", {"type": "object", "properties": {}}),
]
HERMES = find_dialect(FAMILIES["hermes"])
THINKER = find_dialect(FAMILIES["qwen"])


@dataclass
class Read:
    """An answer as a client has it in the end."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)


def read(
    dialect: Dialect, pieces: list[str], *, thinks: bool = False, most: int | None = None
) -> Read:
    reader = AnswerReader(dialect, TOOLS, is_thinking=thinks, max_calls=most)
    found = Read()
    for heard in [*(reader.push(piece) for piece in pieces), reader.finish()]:
        found.content += heard.content
        found.reasoning += heard.reasoning
        for part in heard.calls:
            if part.name:
                assert part.index == len(found.calls)
                assert part.id
                found.calls.append((part.name, part.arguments))
            else:
                assert part.index == len(found.calls) - 1
                name, arguments = found.calls[-1]
                found.calls[-1] = (name, arguments + part.arguments)
    assert reader.num_calls == len(found.calls)
    return found


OSLO = ("weather", '{"city": "Oslo"}')
NOW = ("now", "{}")

# family, what the model wrote, whether the prompt had begun to think, what it means
ANSWERS: dict[str, tuple[str, str, bool, Read]] = {
    "hermes": (
        "hermes",
        'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo {\\""}}\n'
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        False,
        Read("Let me see.", "", [("weather", '{"city": "Oslo {\\""}'), NOW]),
    ),
    "qwen": (
        "qwen",
        "<think>\nA <tool_call>?\n</think>\n\n"
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        False,
        Read("", "A <tool_call>?", [OSLO]),
    ),
    "qwen, begun": ("qwen", "hm\n</think>\n\nYes.\n", True, Read("Yes.\n", "hm")),
    "qwen, not thinking": ("qwen", "No <think> here", False, Read("No <think> here")),
    "qwen, cut in thought": ("qwen", "<think>\nhm</thi", False, Read("", "hm")),
    "qwen coder": (
        "qwen coder",
        "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n\n</x>\n</parameter>\n"
        '<parameter=days>\n3\n</parameter>\n<parameter=tags>\n["a"]\n</parameter>\n</function>\n'
        "</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        False,
        Read(
            "I look.",
            "",
            [("weather", '{"city": "Oslo\\n\\n</x>", "days": 3, "tags": ["a"]}'), NOW],
        ),
    ),
    "llama": (
        "llama",
        '{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "now", "parameters": {}}',
        False,
        Read("", "", [OSLO, NOW]),
    ),
    "llama, marked": (
        "llama",
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}',
        False,
        Read("", "", [OSLO]),
    ),
    "llama, built in": (
        "llama",
        '<|python_tag|>brave_search.call(query="Oslo")',
        False,
        Read("", "", [("brave_search", '{"query": "Oslo"}')]),
    ),
    "llama, other JSON": ("llama", '{"city": "Oslo"} it is', False, Read('{"city": "Oslo"} it is')),
    "llama, another's name": ("llama", '{"name": "Bob"}', False, Read('{"name": "Bob"}')),
    "mistral": (
        "mistral",
        'Ok[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
        False,
        Read("Ok", "", [OSLO, NOW]),
    ),
    "mistral, old": (
        "mistral, old",
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "abcdefghi"}, '
        '{"name": "now", "arguments": {}}]',
        False,
        Read("", "", [OSLO, NOW]),
    ),
    "magistral": ("magistral", "[THINK]a b[/THINK]Yes.", False, Read("Yes.", "a b")),
    "deepseek r1": (
        "deepseek r1",
        "hm\n</think>\n\nWell.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
        '```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function'
        "<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        True,
        Read("Well.", "hm", [OSLO, NOW]),
    ),
    "deepseek v3.1": (
        "deepseek v3.1",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}'
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        False,
        Read("", "", [OSLO, NOW]),
    ),
    "deepseek v3.2": (
        "deepseek v3.2",
        'Hi\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n'
        '<｜DSML｜parameter name="city" string="true">Os"lo</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        False,
        Read("Hi", "", [("weather", '{"city": "Os\\"lo", "days": 3}')]),
    ),
    "gemma": (
        "gemma",
        '<|channel>thought\nhm\n<channel|>ok<|tool_call>call:weather{city:<|"|>Os,{lo<|"|>,days:3,'
        'tags:[<|"|>a<|"|>]}<tool_call|><|tool_call>call:now{}<tool_call|>',
        False,
        Read("ok", "hm", [("weather", '{"city": "Os,{lo", "days": 3, "tags": ["a"]}'), NOW]),
    ),
    "gpt-oss": (
        "gpt-oss",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}',
        False,
        Read("", "hm", [OSLO]),
    ),
    "gpt-oss, recipient first": (
        "gpt-oss",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant to=functions.weather<|channel|>"
        'commentary json<|message|>{"city": "Oslo"}<|call|>',
        False,
        Read("", "hm", [OSLO]),
    ),
    "gpt-oss, final": (
        "gpt-oss",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>A <|x\n",
        False,
        Read("A <|x\n", "hm"),
    ),
    "granite": (
        "granite",
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}, '
        '{"name": "now", "arguments": {}}]',
        False,
        Read("", "", [OSLO, NOW]),
    ),
    "phi": (
        "phi",
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
        False,
        Read("", "", [OSLO]),
    ),
    "glm": (
        "glm",
        "\n<think>x</think>\nHm\n<tool_call>weather\n<arg_key>city</arg_key>\n"
        '<arg_value>Oslo "N"\nx</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n'
        "</tool_call>\n<tool_call>now\n</tool_call>",
        False,
        Read("Hm", "x", [("weather", '{"city": "Oslo \\"N\\"\\nx", "days": 3}'), NOW]),
    ),
    "kimi": (
        "kimi",
        "ok<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
        '<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|><|tool_call_begin|>'
        "functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        False,
        Read("ok", "", [OSLO, NOW]),
    ),
    "minimax": (
        "minimax",
        'hm\n</think>\n\n<minimax:tool_call>\n<invoke name="weather">\n'
        '<parameter name="city">Oslo</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n'
        "</minimax:tool_call>",
        True,
        Read("", "hm", [OSLO, NOW]),
    ),
    "lfm": (
        "lfm",
        '<|tool_call_start|>[weather(city="Oslo"), now()]<|tool_call_end|>Done.',
        False,
        Read("Done.", "", [OSLO, NOW]),
    ),
    "llama 4": ("llama 4", '[weather(city="Oslo"), now()]', False, Read("", "", [OSLO, NOW])),
    "lfm, as Python writes": (
        "lfm",
        '<|tool_call_start|>[weather(city=\'O"s\\\'l\\x6f\\n\' "!", days=1_0, tags=["""a""b""", r\'\\d\', '
        "('x', None)], more={'k': True, 2: -.5,}, raw=a + b)]<|tool_call_end|>",
        False,
        Read(
            "",
            "",
            [
                (
                    "weather",
                    '{"city": "O\\"s\'lo\\n!", "days": 10, "tags": ["a\\"\\"b", "\\\\d", ["x", null]], '
                    '"more": {"k": true, "2": -0.5}, "raw": "a + b"}',
                )
            ],
        ),
    ),
    "lfm, a pair of escapes": (
        "lfm",
        '<|tool_call_start|>[weather(city="\\ud83d\\ude00\\u00e9")]<|tool_call_end|>',
        False,
        Read("", "", [("weather", '{"city": "\\ud83d\\ude00\\u00e9"}')]),
    ),
    "lfm, one without a list": (
        "lfm",
        "<|tool_call_start|>get-weather(city name='Oslo',)<|tool_call_end|>",
        False,
        Read("", "", [("get-weather", '{"city name": "Oslo"}')]),
    ),
    "lfm, no call": (
        "lfm",
        "<|tool_call_start|>I (think) so<|tool_call_end|>",
        False,
        Read("<|tool_call_start|>I (think) so<|tool_call_end|>"),
    ),
    "gemma, JSON and words": (
        "gemma",
        '<|tool_call>call:weather{"city":"O\\"s\\/lo",when:12:30 sharp,more:{a:[true,<|"|>\\x<|"|>],b:{}},'
        "days:NaN}<tool_call|>",
        False,
        Read(
            "",
            "",
            [
                (
                    "weather",
                    '{"city": "O\\"s/lo", "when": "12:30 sharp", "more": {"a": [true, "\\\\x"], "b": {}}, '
                    '"days": "NaN"}',
                )
            ],
        ),
    ),
    "qwen coder, a tag in a text": (
        "qwen coder",
        '<tool_call>\n<function=weather>\n<parameter=tags>\n["</parameter>"]\n</parameter>\n'
        '<parameter=days>\n"no</parameter>\n</function>\n</tool_call>',
        False,
        Read("", "", [("weather", '{"tags": ["</parameter>"], "days": "\\"no"}')]),
    ),
    "gpt-oss, a marker in a text": (
        "gpt-oss",
        '<|channel|>commentary to=functions.weather <|message|>{"city": "<|end|>"}<|call|>',
        False,
        Read("", "", [("weather", '{"city": "<|end|>"}')]),
    ),
    "llama 4, a list": ("llama 4", "[1] is a list", False, Read("[1] is a list")),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_every_family_is_read_however_its_text_is_cut(name: str) -> None:
    family, text, thinks, expected = ANSWERS[name]
    dialect = find_dialect(FAMILIES[family])
    assert read(dialect, [text], thinks=thinks) == expected
    assert read(dialect, list(text), thinks=thinks) == expected
    for cut in range(len(text)):
        assert read(dialect, [text[:cut], text[cut:]], thinks=thinks) == expected


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_broken_off_shows_no_marker(name: str) -> None:
    family, text, thinks, expected = ANSWERS[name]
    dialect = find_dialect(FAMILIES[family])
    for end in range(len(text)):
        found = read(dialect, [text[:end]], thinks=thinks)
        assert found.reasoning.startswith(expected.reasoning[: len(found.reasoning)])
        for call, whole in zip(found.calls, expected.calls, strict=False):
            assert call[0] == whole[0]
            assert whole[1].startswith(call[1]) or call[1] == "{}"


PARTS = st.lists(
    st.sampled_from(
        [
            '<tool_call>\n{"name": "f", "arguments": {"a": [1, 2.50]}}\n</tool_call>',
            *("<tool_call>", "</tool_call>", "<tool", "_call>", " ", "\n", "text", '{"name": 1}'),
            *("<think>", "</think>", '{"name": "f", ', '"arguments": ', "{}", "}", '"', "\\"),
        ]
    ),
    max_size=8,
).map("".join)


@given(PARTS, st.data(), st.sampled_from([HERMES, THINKER]), st.booleans())
def test_any_cut_of_anything_gives_the_same_answer(
    text: str, data: st.DataObject, dialect: Dialect, thinks: bool
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    thinks = thinks and dialect is THINKER
    assert read(dialect, pieces, thinks=thinks) == read(dialect, [text], thinks=thinks)


@given(
    st.sampled_from(sorted(ANSWERS)),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from('<>{}[]"\\|:,=\n x')), max_size=4),
    st.data(),
)
def test_any_cut_of_a_spoilt_answer_gives_the_same(
    name: str, spoils: list[tuple[int, str]], data: st.DataObject
) -> None:
    family, text, thinks, _ = ANSWERS[name]
    for place, char in spoils:
        place %= len(text)
        text = text[:place] + char + text[place + 1 :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    dialect = find_dialect(FAMILIES[family])
    assert read(dialect, pieces, thinks=thinks) == read(dialect, [text], thinks=thinks)


@given(
    st.text(alphabet="<tool_call>/ \n{}", max_size=40).filter(
        lambda text: "<tool_call>" not in text
    )
)
def test_text_without_calls_is_untouched(text: str) -> None:
    assert read(HERMES, list(text)) == Read(text)


def test_white_space_beside_calls_is_dropped_and_text_kept() -> None:
    call = ANSWERS["hermes"][1].partition("\n")[2]
    found = read(HERMES, [f"Let me see.\n{call}\n{call}\n done"])
    assert found.content == "Let me see.done"
    assert len(found.calls) == 4


@pytest.mark.parametrize(
    "inside",
    ["", "nonsense", '{"arguments": {}}', '{"name": "f", "arguments": [1]}', '{"name": 3}'],
)
def test_what_is_no_call_stays_text(inside: str) -> None:
    text = f"a <tool_call>{inside}</tool_call> b"
    assert read(HERMES, list(text)) == Read(text)


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ('{"name": "f"}', {}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', {"a": 1}),
        ('{"arguments": {"a": 1}, "name": "f"}', {"a": 1}),
        ('{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}', {"a": 1}),
        ('{"name": "f", "arguments": {"a": 1}', {"a": 1}),
    ],
)
def test_other_spellings_of_a_call(written: str, arguments: object) -> None:
    [(name, found)] = read(HERMES, [f"<tool_call>{written}</tool_call>"]).calls
    assert (name, json.loads(found)) == ("f", arguments)


def test_no_more_calls_than_allowed() -> None:
    _, text, _, expected = ANSWERS["hermes"]
    found = read(HERMES, [text], most=1)
    assert found.calls[:1] == expected.calls[:1]
    reader = AnswerReader(HERMES, TOOLS, is_thinking=False, max_calls=1)
    for char in text:
        reader.push(char)
        if reader.is_done:
            break
    assert reader.num_calls == 1


STREAMED = {
    "hermes": '<tool_call>{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}</tool_call>',
    "lfm": '<|tool_call_start|>[weather(city="Oslo", days=3)]<|tool_call_end|>',
    "llama 4": '[weather(city="Oslo", days=3)]',
    "gemma": '<|tool_call>call:weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>',
    "glm": "<tool_call>weather\n<arg_key>city</arg_key><arg_value>Oslo</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>",
}


@pytest.mark.parametrize("family", STREAMED)
def test_arguments_come_as_they_are_written(family: str) -> None:
    reader = AnswerReader(find_dialect(FAMILIES[family]), TOOLS, is_thinking=False)
    so_far, heard = "", {}
    for char in STREAMED[family]:
        so_far += char
        heard[so_far] = "".join(part.arguments for part in reader.push(char).calls)
    assert "".join(heard.values()) == '{"city": "Oslo", "days": 3}'
    up_to_text = STREAMED[family].partition("Osl")[0] + "Osl"
    told = "".join(said for place, said in heard.items() if len(place) <= len(up_to_text))
    assert told == '{"city": "Osl'


def _values(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    _values,
    max_leaves=6,
)


@given(JSON, st.sampled_from([repr, json.dumps, ascii]), st.data())
def test_any_value_is_read_as_python_reads_it(
    value: object, write: Callable[[object], str], data: st.DataObject
) -> None:
    dialect = find_dialect(FAMILIES["lfm"])
    text = f"<|tool_call_start|>[f(x={write(value)}, y=1)]<|tool_call_end|>"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    [(name, arguments)] = read(dialect, pieces).calls
    assert (name, json.loads(arguments)) == ("f", {"x": value, "y": 1})


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=3), st.data())
def test_any_value_in_gemma_s_notation_is_read(
    values: dict[str, object], data: st.DataObject
) -> None:
    text = f"<|tool_call>call:f{_gemma(values)}<tool_call|>"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    [(name, arguments)] = read(find_dialect(FAMILIES["gemma"]), pieces).calls
    assert (name, json.loads(arguments)) == ("f", values)


def _gemma(value: object) -> str:
    match value:
        case dict():
            return f"{{{','.join(f'{_gemma(key)}:{_gemma(it)}' for key, it in value.items())}}}"
        case list():
            return f"[{','.join(map(_gemma, value))}]"
        case str():
            return f'<|"|>{value}<|"|>'
    return json.dumps(value)


@pytest.mark.parametrize(("family", "form"), [("mistral", r"\w{9}"), ("kimi", r"functions\.now:0")])
def test_ids_are_of_the_form_that_templates_ask_for(family: str, form: str) -> None:
    import re

    dialect = find_dialect(FAMILIES[family])
    assert dialect.calls is not None
    assert re.fullmatch(form, dialect.calls.call_id("now", 0))
