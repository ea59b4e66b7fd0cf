"""Which web pages may speak to this server, asked over HTTP as a browser does."""

from __future__ import annotations

import pytest

from swapper.front.origins import Origins
from tests.front.conftest import House
from tests.front.fakes import EVENTS_HEAD, LAST_CHUNK, answering, chunk, http

ALLOWED = "access-control-allow-origin"
STREAM = b'{"model":"tiny","stream":true}'


async def open_with(house: House, **options: object) -> None:
    await house.open(origins=Origins(**options))  # type: ignore[arg-type]
    await house.worker(answering(http(b"{}")))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "http://app.localhost",
        "app://obsidian.md", "vscode-webview://1a2b", "chrome-extension://abc",
        "https://chat.example.com", "HTTPS://Chat.example.com",
    ],
)  # fmt: skip
async def test_pages_of_ours_read_their_answers(bare_house: House, origin: str) -> None:
    await open_with(bare_house, allowed=["https://chat.example.com/"])
    for got in (
        await bare_house.chat(headers={"origin": origin}),
        await bare_house.ask("GET", "/v1/models", headers={"origin": origin}),
        await bare_house.chat(b"nonsense", headers={"origin": origin}),
    ):
        assert got.headers[ALLOWED] == origin.lower()  # as this client reads all headers
        assert got.headers["access-control-expose-headers"] == "*"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example",
     "https://chat.example.com.evil.example", "", "http://[", "data:x"],
)  # fmt: skip
async def test_pages_of_others_are_refused_before_anything_is_loaded(
    bare_house: House, origin: str
) -> None:
    await open_with(bare_house, allowed=["https://chat.example.com"])
    got = await bare_house.chat(headers={"origin": origin})
    assert got.status == 403
    assert "allowed_origins" in got.json["error"]["message"]
    assert ALLOWED not in got.headers
    assert bare_house.dispatcher.arrivals == []


async def test_a_page_from_swappers_own_address_may_come_in(bare_house: House) -> None:
    await open_with(bare_house)
    headers = {"origin": "https://llm.home", "host": "llm.home"}
    assert (await bare_house.chat(headers=headers)).status == 200


async def test_any_page_where_that_is_wanted(bare_house: House) -> None:
    await open_with(bare_house, allowed=["*"])
    got = await bare_house.chat(headers={"origin": "https://somewhere.example"})
    assert got.headers[ALLOWED] == "https://somewhere.example"


async def test_a_name_that_is_not_ours_is_refused_where_no_key_protects(bare_house: House) -> None:
    await open_with(bare_house, hosts=["llm.home"], checks_hosts=True)
    for host in (
        "localhost:8080",
        "127.0.0.1",
        "[::1]:80",
        "llm.home:443",
        "LLM.home",
        "127.8.8.8",
    ):
        assert (await bare_house.chat(headers={"host": host})).status == 200
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "[", "10.0.0.7"):
        for _ in range(2):
            got = await bare_house.chat(headers={"host": host, "origin": f"http://{host}"})
            assert got.status == 403
            assert "allowed_hosts" in got.json["error"]["message"]


async def test_a_browser_that_asks_first_is_told(bare_house: House) -> None:
    await open_with(bare_house)
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "access-control-request-private-network": "true",
    }
    got = await bare_house.ask("OPTIONS", "/v1/chat/completions", headers=headers)
    assert got.status == 204
    assert got.headers[ALLOWED] == "http://localhost:3000"
    assert got.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "post" in got.headers["access-control-allow-methods"]
    assert got.headers["access-control-allow-private-network"] == "true"
    headers["origin"] = "https://evil.example"
    assert (await bare_house.ask("OPTIONS", "/v1/chat/completions", headers=headers)).status == 403


async def test_streams_can_be_read_by_pages_too(bare_house: House) -> None:
    await bare_house.open()
    await bare_house.worker(answering(EVENTS_HEAD + chunk(b"data: 1\n\n") + LAST_CHUNK))
    got = await bare_house.chat(STREAM, headers={"origin": "http://localhost"})
    assert got.headers[ALLOWED] == "http://localhost"
    assert got.body == b"data: 1\n\n"
