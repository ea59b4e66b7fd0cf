"""Chat templates in the style of the families in use, as far as their markers go."""

# ruff: noqa: RUF001 - markers as the models write them

_TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
_MESSAGES = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def _template(shown: str) -> str:
    """A template that shows `shown` of earlier answers."""
    return f"{_TOOLS}{_MESSAGES}{{# {shown} #}}"


_THINK = "<think>…</think>"
_HERMES = '<tool_call>{"name": …, "arguments": …}</tool_call>'

FAMILIES: dict[str, str] = {
    "hermes": _template(_HERMES),
    "qwen": _template(_HERMES + _THINK),
    "qwen coder": _template(
        "<tool_call><function=f><parameter=x>…</parameter></function></tool_call>"
    ),
    "llama": _template('<|start_header_id|>{"name": …, "parameters": …}'),
    "llama 4": _template("<|python_start|>[f(x=1)]<|python_end|>"),
    "mistral": _template("[TOOL_CALLS]f[ARGS]{}"),
    "mistral, old": _template('[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "123456789"}]'),
    "magistral": _template("[THINK]…[/THINK][TOOL_CALLS]f[ARGS]{}"),
    "deepseek r1": _template(
        "</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```"
    ),
    "deepseek v3.1": _template(
        "</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"
    ),
    "deepseek v3.2": _template('</think><｜DSML｜function_calls><｜DSML｜invoke name="f">'),
    "gemma": _template('<|channel>thought<channel|><|tool_call>call:f{x:<|"|>…<|"|>}<tool_call|>'),
    "gpt-oss": _template("<|start|>assistant<|channel|>final<|message|>…<|end|>"),
    "granite": _template("respond only with <|tool_call|> followed by a JSON list"),
    "phi": _template("<|tool_call|>[…]<|/tool_call|>"),
    "glm": _template(
        "<tool_call>f<arg_key>x</arg_key><arg_value>…</arg_value></tool_call>" + _THINK
    ),
    "kimi": _template("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"),
    "minimax": _template('<minimax:tool_call><invoke name="f"></minimax:tool_call>' + _THINK),
    "lfm": _template("<|tool_call_start|>[f(x=1)]<|tool_call_end|>"),
}
