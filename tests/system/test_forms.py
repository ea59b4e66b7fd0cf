"""A form with a file, through a real swapper to a server that it starts."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import httpx
import pytest

SERVER = Path(__file__).with_name("sound_server.py")
CONFIG = f"""
models:
  whisper: {{engine: command, cmd: "{sys.executable} {SERVER} ${{port}}"}}
  renamed:
    engine: command
    cmd: "{sys.executable} {SERVER} ${{port}}"
    upstream_model: large-v3
"""


@pytest.mark.parametrize(("model", "there"), [("whisper", "whisper"), ("renamed", "large-v3")])
def test_a_transcription(serve, model: str, there: str) -> None:
    swapper = serve(CONFIG)
    sound = os.urandom(5 << 20)
    answer = httpx.post(
        f"{swapper.url}/v1/audio/transcriptions",
        files={"file": ("a.wav", sound, "audio/wav")},
        data={"model": model, "stream": "true"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-swapper-model"] == model
    events = answer.text.split("\n\n")
    assert there in events[0]
    assert f"{there} {hashlib.sha256(sound).hexdigest()}" in events[1]


def test_a_transcription_by_the_openai_package(serve) -> None:
    openai = pytest.importorskip("openai")
    swapper = serve(CONFIG)
    client = openai.OpenAI(base_url=f"{swapper.url}/v1", api_key="none")
    events = client.audio.transcriptions.create(
        file=("a.wav", b"RIFF"), model="whisper", stream=True
    )
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
