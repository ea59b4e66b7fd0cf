"""Chat templates come out as transformers renders them, and what they refuse is the client's to read."""

import json
import re
from typing import Any

import pytest

from backends.serving.chat import ChatTemplate, chat_text
from backends.serving.engine import ModelInfo
from backends.serving.errors import RequestError
from backends.serving.requests import ChatRequest, decode

# Written for these tests, in the manner of well-known families.
HEADERS = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
<|start_header|>system<|end_header|>

{% if tools is not none -%}
Environment: ipython
{% endif -%}
Today: {{ date_string if date_string is defined else '26 Jul 2024' }}

{% if tools is not none -%}
{%- for t in tools %}
{{- t | tojson(indent=4) }}
{% endfor %}
{%- endif %}
{{- system }}<|eot|>
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '<|start_header|>ipython<|end_header|>\\n\\n' + (message.content | tojson) + '<|eot|>' }}
    {%- elif message.tool_calls is defined and message.tool_calls | length == 1 %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header|>assistant<|end_header|>\\n\\n' }}
        {{- '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}{{ '}<|eot|>' }}
    {%- else %}
        {{- '<|start_header|>' + message.role + '<|end_header|>\\n\\n' + message.content | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header|>assistant<|end_header|>\\n\\n' }}
{%- endif %}
"""

IM = """\
{%- set ns = namespace(last=messages | length - 1, seen=false) %}
{%- if tools %}
<|im_start|>system
# Tools
<tools>
    {%- for tool in tools %}
        {{- '\\n' }}{{ tool | tojson }}
    {%- endfor %}

</tools>
<tool_call> and </tool_call> go around a call.<|im_end|>
{% endif %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.last = loop.index0 %}
        {%- if ns.seen %}{% set ns.seen = true %}{% endif %}
    {%- endif %}
    {%- if message.role in ['user', 'system'] %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}
<|im_start|>assistant
        {%- generation %}
{{ message.content }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function %}
<tool_call>{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}</tool_call>
        {%- endfor %}
        {%- endgeneration %}<|im_end|>
{% else %}
        {%- if loop.first %}{% continue %}{% endif %}
<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}
{%- endif %}
"""

INST = """\
{{ bos_token }}{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}
    {% endif %}
{% endfor %}
"""

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How is it in <place> & near «it»?",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}

TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "  <b>Grüße</b> & 'hi' "},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Again\n"},
]
CALLS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"place": "Åre", "days": 2.0}},
            }
        ],
    },
    {"role": "tool", "content": '{"sky": "clear"}', "tool_call_id": "call_1"},
]


def info(template: str | None) -> ModelInfo:
    return ModelInfo("m", 100, 100, 300, frozenset({"chat"}), template, "<s>", "</s>")


def theirs(template: str, messages: list[dict[str, Any]], tools: Any = None, **extra: Any) -> str:
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    given = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", **extra}
    rendered = utils.render_jinja_template([messages], tools=tools, chat_template=template, **given)
    return str(rendered[0][0])


@pytest.mark.parametrize("template", [HEADERS, IM, INST], ids=["headers", "im", "inst"])
def test_a_talk_renders_as_in_transformers(template: str) -> None:
    assert ChatTemplate(info(template)).render(TALK) == theirs(template, TALK)


@pytest.mark.parametrize("template", [HEADERS, IM], ids=["headers", "im"])
def test_tools_and_calls_render_as_in_transformers(template: str) -> None:
    as_sent = json.loads(json.dumps(CALLS))
    function = as_sent[2]["tool_calls"][0]["function"]
    function["arguments"] = json.dumps(function["arguments"])  # clients send a string of JSON
    as_sent[2]["content"] = None
    assert ChatTemplate(info(template)).render(as_sent, [TOOL]) == theirs(template, CALLS, [TOOL])


@pytest.mark.parametrize(
    "begun", ["", "The answer", "ends in space ", "\n two\nlines \n", "<think>\nhm"]
)
@pytest.mark.parametrize("template", [HEADERS, IM, INST], ids=["headers", "im", "inst"])
def test_a_message_to_go_on_with_renders_as_in_transformers(template: str, begun: str) -> None:
    talk = [*TALK, {"role": "assistant", "content": begun}]
    given = {"continue_final_message": True, "add_generation_prompt": False}
    request = ChatRequest(messages=talk, **given)
    assert chat_text(ChatTemplate(info(template)), request) == theirs(template, talk, **given)


def test_parts_to_go_on_with_are_one_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    talk = [TALK[0], {"role": "assistant", "content": parts}]
    request = ChatRequest(messages=talk, continue_final_message=True)
    assert chat_text(ChatTemplate(info(INST)), request).endswith("\none\ntwo")


@pytest.mark.parametrize(
    ("last", "more", "words"),
    [
        ({"role": "user", "content": "x"}, {}, "of the assistant"),
        ({"role": "assistant"}, {}, "of the assistant"),
        ({"role": "assistant", "content": 1}, {}, "must be a string"),
        ({**CALLS[2], "content": "x"}, {}, "calls tools"),
        ({"role": "assistant", "content": "x"}, {"add_generation_prompt": True}, "both"),
    ],
)
def test_what_cannot_be_gone_on_with(
    last: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    request = ChatRequest(messages=[TALK[0], last], continue_final_message=True, **more)
    with pytest.raises(RequestError, match=words) as raised:
        chat_text(ChatTemplate(info(IM)), request)
    assert raised.value.status == 400


def test_a_template_that_hides_the_message_to_go_on_with() -> None:
    request = ChatRequest(
        messages=[{"role": "assistant", "content": "x"}], continue_final_message=True
    )
    with pytest.raises(RequestError, match="leaves out"):
        chat_text(ChatTemplate(info("{{ messages | length }}")), request)


def test_no_turn_is_begun_where_the_client_wants_none() -> None:
    request = ChatRequest(messages=TALK[:1], add_generation_prompt=False)
    ours = chat_text(ChatTemplate(info(IM)), request)
    assert ours == theirs(IM, TALK[:1], add_generation_prompt=False)


def test_template_arguments_of_the_request_reach_the_template() -> None:
    ours = ChatTemplate(info(IM)).render(TALK, extra={"enable_thinking": False})
    assert ours == theirs(IM, TALK, enable_thinking=False)
    assert "<think>" in ours


def test_what_the_template_refuses_is_a_400_in_its_own_words() -> None:
    with pytest.raises(RequestError, match="Roles must alternate") as raised:
        ChatTemplate(info(INST)).render(TALK[:2] + TALK[1:])
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ namespace(__class__=1) }}",
        "{{ messages.append(1) }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(source: str) -> None:
    with pytest.raises(RequestError) as raised:
        ChatTemplate(info(source)).render(TALK)
    assert raised.value.status == 400


def test_a_template_that_is_none_is_a_server_error() -> None:
    with pytest.raises(RequestError, match="chat template of m cannot be read") as raised:
        ChatTemplate(info("{% if %}"))
    assert raised.value.status == 500


def test_without_a_template_chatml_is_spoken() -> None:
    text = ChatTemplate(info(None)).render([{"role": "system", "content": "S"}, TALK[1]])
    assert text == (
        "<|im_start|>system\nS<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_content_parts_are_one_text() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    text = ChatTemplate(info(INST)).render([{"role": "user", "content": parts}])
    assert "[INST] one\ntwo [/INST]" in text


def test_developer_is_system_where_the_template_does_not_know_it() -> None:
    message = {"role": "developer", "content": "D"}
    assert "<|im_start|>system\nD" in ChatTemplate(info(IM)).render([message])
    knowing = "{% if messages[0].role == 'developer' %}yes{% endif %}"
    assert ChatTemplate(info(knowing)).render([message]) == "yes"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "no vision"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "only parts of type text"),
        ({"role": "user", "content": ["x"]}, "only parts of type text"),
        ({"role": "user", "content": [{"type": "text", "text": 1}]}, "text must be a string"),
        ({"role": "user", "content": 3}, "must be a string or a list"),
        ({"role": "king", "content": "x"}, "role must be one of"),
        ({"content": "x"}, "role must be one of"),
        ({"role": "assistant", "tool_calls": 1}, "must be a list of objects"),
        ({"role": "assistant", "tool_calls": [{}]}, "function must be an object"),
    ],
)
def test_messages_that_cannot_be_read(message: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        ChatTemplate(info(IM)).render([message])
    assert raised.value.status == 400
    assert (raised.value.param or "").startswith("messages[0]")


def test_no_messages() -> None:
    with pytest.raises(RequestError, match="at least one message"):
        ChatTemplate(info(IM)).render([])


def test_arguments_that_are_no_json_stay_as_they_are() -> None:
    call = {"function": {"name": "f", "arguments": "{broken"}}
    text = ChatTemplate(info(IM)).render([TALK[0], {"role": "assistant", "tool_calls": [call]}])
    assert '"arguments": "{broken"' in text


def test_a_template_that_shows_no_tools_is_told_of_them() -> None:
    assert ChatTemplate(info(IM)).shows_tools
    assert ChatTemplate(info(None)).shows_tools
    template = ChatTemplate(info(INST))
    assert not template.shows_tools
    talk = [{"role": "user", "content": "Hi"}, *CALLS[2:]]
    talk[1] = {**talk[1], "content": "Let me see."}
    text = template.render(talk, [TOOL])
    assert json.dumps(TOOL["function"], ensure_ascii=False) in text
    assert 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"place": "Åre"' in text
    assert '<tool_response>\n{"sky": "clear"}\n</tool_response>' in text


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reasoning_effort": "high"}, "high True True"),
        ({"reasoning_effort": "none"}, "none False False"),
        ({"enable_thinking": False}, " False False"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, " False "),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"thinking": False}},
            "low True False",
        ),
    ],
)
def test_how_much_to_think_reaches_the_template(fields: dict[str, Any], expected: str) -> None:
    template = ChatTemplate(info("{{ reasoning_effort }} {{ enable_thinking }} {{ thinking }}"))
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    assert chat_text(template, decode(body, ChatRequest)) == expected


CORNERS = {
    "generation": "{% generation %}{{ messages[0].content }}{% endgeneration %}!",
    "break": "{% for m in messages %}{{ m.role }}{%- if loop.index == 2 %}{%- break %}{% endif %}"
    "{% endfor %}",
    "continue": "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "{{ m.content }}{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
    "tojson": "{{ messages | tojson(indent=2) }}{{ {'b': '<é>', 'a': 1.0} | tojson(sort_keys=true) }}",
    "date": "{{ strftime_now('%d %B %Y') }}",
    "space": "  {% if true %}\n x\n  {%- endif %}\n y {# note #}\n",
    "items": "{% for k, v in messages[0] | items %}{{ k }}={{ v }};{% endfor %}",
    "macro": "{% macro f(x, y=2) %}{{ x }}{{ y }}{{ caller is defined }}{% endmacro %}{{ f(1) }}",
    "filters": "{{ messages | map(attribute='role') | join(',') }} {{ messages | length }} "
    "{{ messages[0].content | trim | upper }} {{ 'a' ~ 1 ~ none }}",
    "tests": "{{ messages is sequence }} {{ tools is defined }} {{ tools is none }} {{ x is defined }}"
    " {{ messages[0] is mapping }} {{ messages[0].missing is defined }}",
    "tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ pad_token }}",
    "slices": "{{ messages[1:][0].content.split(' ')[-1] }}{{ messages[-1]['role'] }}",
}


@pytest.mark.parametrize("name", CORNERS)
def test_corners_of_the_dialect_render_as_in_transformers(name: str) -> None:
    source = CORNERS[name]
    assert ChatTemplate(info(source)).render(TALK) == theirs(source, TALK)


def test_ids_that_mistral_s_templates_refuse_are_made_to_fit() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id }}"
        "{% if c.id|length != 9 %}{{ raise_exception('9!') }}{% endif %}[TOOL_CALLS]{% endfor %}"
        "{{ m.tool_call_id }} {% endfor %}{{ tools is defined }}"
    )
    text = ChatTemplate(info(source)).render(CALLS)
    called, answered = re.findall(r"[0-9a-z]{9}", text)
    assert called == answered
    kept = json.loads(json.dumps(CALLS).replace("call_1", "abcDEF123"))
    assert ChatTemplate(info(source)).render(kept).count("abcDEF123") == 2
