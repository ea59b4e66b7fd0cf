"""`langchain-openai`: chats, calls and schemas, over chat completions and over responses."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
import pytest

from tests.clients.conftest import KEY

langchain: Any = pytest.importorskip(
    "langchain_openai", reason="the package `langchain-openai` is not installed"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("connections_end_here"),
]
RESPONSES = pytest.mark.parametrize("responses", [False, True], ids=["chat", "responses"])


class Person(pydantic.BaseModel):
    """Somebody."""

    name: Literal["Ann", "Bo"]
    age: int = pydantic.Field(ge=0, le=99)


def get_weather(city: Literal["Oslo", "Rome"]) -> str:
    """The weather of a city."""
    return city


def model(url: str, name: str, **fields: Any) -> Any:
    about = {"base_url": f"{url}/v1", "api_key": KEY, "max_retries": 0, "temperature": 0}
    return langchain.ChatOpenAI(model=name, max_completion_tokens=64, **about, **fields)


@RESPONSES
def test_an_answer_streamed_or_not(url: str, demo: str, responses: bool) -> None:
    chat = model(url, demo, use_responses_api=responses, stream_usage=True)
    whole = chat.invoke("What is swapper?")
    chunks = list(chat.stream("What is swapper?"))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    assert joined.text == whole.text != ""
    used = whole.usage_metadata
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]
    assert joined.usage_metadata["output_tokens"] == used["output_tokens"] > 0


@RESPONSES
def test_a_conversation_with_tools(url: str, responses: bool) -> None:
    chat = model(url, "scripted", use_responses_api=responses).bind_tools([get_weather])
    question = ("user", "weather?")
    called = chat.invoke([question])
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Oslo"})
    result = {"role": "tool", "content": "rainy", "tool_call_id": call["id"]}
    assert chat.invoke([question, called, result]).text == "It is rainy in Oslo."


@RESPONSES
def test_a_forced_call(url: str, demo: str, responses: bool) -> None:
    chat = model(url, demo, use_responses_api=responses)
    forced = chat.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    [call] = forced.invoke("Weather?").tool_calls
    assert call["name"] == "get_weather"
    assert call["args"]["city"] in ("Oslo", "Rome")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_type(url: str, demo: str, method: str) -> None:
    found = model(url, demo).with_structured_output(Person, method=method).invoke("Who?")
    assert isinstance(found, Person)


def test_vectors(url: str) -> None:
    embeddings = langchain.OpenAIEmbeddings(
        model="echo", base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    first, second = embeddings.embed_documents(["a", "b"])
    assert first != second
    assert embeddings.embed_query("a") == first


@RESPONSES
def test_errors_are_of_their_classes(url: str, responses: bool) -> None:
    openai = pytest.importorskip("openai", reason="the package `openai` is not installed")
    with pytest.raises(openai.NotFoundError):
        model(url, "nope", use_responses_api=responses).invoke("hello")
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        model(url, "scripted", use_responses_api=responses).invoke("too long")
