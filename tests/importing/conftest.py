"""Stores as other tools leave them on a disk, with real GGUF headers in them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.config.conftest import write_gguf

KIND = "application/vnd.ollama.image."


class OllamaStore:
    """An Ollama store that is filled part by part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs").mkdir(parents=True)
        (folder / "manifests").mkdir()

    def blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / f"blobs/sha256-{digest}").write_bytes(content)
        return f"sha256:{digest}"

    def add(self, place: str, **parts: Any) -> None:
        """A model at `HOST/NAMESPACE/NAME/TAG`; parts are bytes, text or what becomes JSON."""
        layers = []
        for kind, part in parts.items():
            if not isinstance(part, bytes):
                part = (part if isinstance(part, str) else json.dumps(part)).encode()
            layers.append({"mediaType": KIND + kind, "digest": self.blob(part), "size": len(part)})
        manifest = self.folder / "manifests" / place
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))


@pytest.fixture
def ollama(tmp_path: Path) -> OllamaStore:
    return OllamaStore(tmp_path / "ollama/models")


@pytest.fixture
def gguf_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a GGUF at a place below the test's folder."""
    return lambda place, **changes: write_gguf(tmp_path / place, **changes)


@pytest.fixture
def gguf_bytes(tmp_path: Path) -> Callable[..., bytes]:
    """The content of a GGUF."""

    def content(**changes: Any) -> bytes:
        path = write_gguf(tmp_path / "some/x.gguf", **changes)
        found = path.read_bytes()
        shutil.rmtree(path.parent)
        return found

    return content


@pytest.fixture
def safetensors_folder(tmp_path: Path) -> Callable[[str], Path]:
    """A folder as models are published in."""

    def make(place: str) -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        return folder

    return make
