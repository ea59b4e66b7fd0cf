"""Request fields by model and alias, through the real server, and changed while it runs."""

from __future__ import annotations

import httpx

TEXT = """
models:
  echo:
    engine: echo
    aliases: [{{name: "echo:short", set: {{max_tokens: {limit}}}}}]
"""


def test_an_alias_has_its_own_fields_and_no_worker_of_its_own(serve, tmp_path):
    swapper = serve(TEXT.format(limit=3))

    def says(model: str) -> str:
        return swapper.chat(model, "hello").json()["choices"][0]["message"]["content"]

    assert says("echo") == "hello"
    assert says("echo:short") == "hel"
    before = swapper.workers()
    assert list(before) == ["echo"]
    (tmp_path / "config.yaml").write_text(TEXT.format(limit=4))
    assert httpx.post(f"{swapper.url}/swapper/v1/reload", timeout=30).status_code == 200
    assert says("echo:short") == "hell"
    assert says("echo") == "hello"
    assert swapper.workers() == before
