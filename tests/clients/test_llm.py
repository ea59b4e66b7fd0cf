"""The command line `llm`: models out of its `extra-openai-models.yaml`, templates, schemas, tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.clients.conftest import KEY

cli = pytest.importorskip("llm.cli", reason="the package `llm` is not installed").cli
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("connections_end_here"),
]

MODEL = """
- model_id: {id}
  model_name: {name}
  api_base: "{url}/v1"
  api_key_name: swapper
  supports_tools: true
  supports_schema: true
  {kind}
"""
KINDS = {"chat": "", "completion": "completion: true", "responses": "responses: true"}
TOOL = '''
def weather(city: str) -> str:
    """The weather of a city."""
    return "rainy"
'''


class CommandLine:
    """`llm` with a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        names = ("demo-chat", "demo-paged", "scripted", "nope")
        entries = [
            MODEL.format(id=f"{name}-{kind}", name=name, url=url, kind=line)
            for name in names
            for kind, line in KINDS.items()
        ]
        (folder / "extra-openai-models.yaml").write_text("".join(entries))
        (folder / "keys.json").write_text(json.dumps({"swapper": KEY}))
        (folder / "templates").mkdir()
        (folder / "templates" / "weather.yaml").write_text("prompt: 'weather in $city?'\n")

    def run(self, *arguments: str, status: int = 0) -> Result:
        env = {"LLM_USER_PATH": str(self._folder), "LLM_LOAD_PLUGINS": ""}
        done = CliRunner().invoke(cli, arguments, env=env)
        assert done.exit_code == status, done.output
        return done

    def last(self) -> Any:
        """What it wrote down of the last answer."""
        return json.loads(self.run("logs", "-n", "1", "--json").stdout)[0]


@pytest.fixture
def llm(tmp_path: Path, url: str) -> CommandLine:
    return CommandLine(tmp_path, url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_streamed_or_not(llm: CommandLine, demo: str, kind: str) -> None:
    asked = ("-m", f"{demo}-{kind}", "-o", "temperature", "0", "What is swapper?")
    streamed = llm.run(*asked, "-u")
    whole = llm.run(*asked, "--no-stream")
    assert whole.stdout == streamed.stdout != "\n"
    if kind != "completion":  # of which it wants to know no usage
        assert "input" in streamed.stderr
        assert llm.last()["output_tokens"] > 0


def test_a_conversation(llm: CommandLine, demo: str) -> None:
    llm.run("-m", f"{demo}-chat", "What is swapper?")
    assert llm.run("-c", "And?").stdout.strip()


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_schema(llm: CommandLine, demo: str, kind: str) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["age"],
        "additionalProperties": False,
    }
    found = llm.run("-m", f"{demo}-{kind}", "--schema", json.dumps(schema), "Who?")
    assert 0 <= json.loads(found.stdout)["age"] <= 99


@pytest.mark.parametrize("kind", ["chat", "responses"])
def test_a_template_and_a_tool(llm: CommandLine, kind: str) -> None:
    asked = ("-m", f"scripted-{kind}", "-t", "weather", "-p", "city", "Oslo")
    found = llm.run(*asked, "--functions", TOOL)
    assert found.stdout.strip().endswith("It is rainy in Oslo.")


def test_a_model_that_is_not_there(llm: CommandLine) -> None:
    found = llm.run("-m", "nope-chat", "hello", status=1)
    assert "404" in found.stderr
    assert "'nope' is not configured" in found.stderr
