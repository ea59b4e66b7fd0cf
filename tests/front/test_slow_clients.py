"""Clients that send next to nothing, to hold what they have: dropped, while others are served."""

from __future__ import annotations

import asyncio

import pytest

from swapper.front import body
from tests.front.conftest import House

PATIENCE_S = 10.0


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: local"])
async def test_half_a_head_is_not_waited_for(bare_house: House, sent: bytes) -> None:
    await bare_house.open(head_timeout_s=0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", bare_house.port)
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    writer.close()


async def test_who_has_spoken_may_be_silent(bare_house: House) -> None:
    await bare_house.open(head_timeout_s=0.2)
    client = await bare_house.client()
    assert (await client.ask("GET", "/health")).status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", bare_house.port)
    await asyncio.wait_for(reader.read(), PATIENCE_S)  # another one was dropped meanwhile
    writer.close()
    assert (await client.ask("GET", "/health")).status == 200


async def test_a_body_that_stops_is_a_408(
    bare_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.2)
    await bare_house.open()
    client = await bare_house.client()
    client.writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{"
    )
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    assert head.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_trickles_is_a_408_though_it_never_stops(
    bare_house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "IDLE_S", 0.5)
    await bare_house.open()
    client = await bare_house.client()
    client.writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n"
    )

    async def trickle() -> None:
        while True:
            client.writer.write(b" ")
            await asyncio.sleep(0.05)

    trickling = asyncio.create_task(trickle())
    head = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    trickling.cancel()
    assert head.startswith(b"HTTP/1.1 408 ")


async def test_readiness_ends_before_the_server_does_and_life_does_not(bare_house: House) -> None:
    await bare_house.open()
    client = await bare_house.client()
    assert (await client.ask("GET", "/readyz")).status == 200
    assert bare_house.front is not None
    bare_house.front.begin_shutdown()
    assert (await client.ask("GET", "/readyz")).status == 503
    assert (await client.ask("GET", "/livez")).status == 200
