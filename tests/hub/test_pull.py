"""`swapper pull` as a process, against a server that speaks the hub's protocol."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapper.config import load_config
from swapper.config.schema import ENGINES
from tests.config.conftest import write_gguf

pytest.importorskip("huggingface_hub")

Pull = Callable[..., tuple[int, str, str]]
LARGE = 24 << 20  # the client writes 10 MB at a time


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A GGUF of some size: what comes after its tensors is padding."""
    path = write_gguf(tmp_path / "source/m.gguf")
    return path.read_bytes() + bytes(LARGE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data/swapper/models/org/Tiny-GGUF"


def test_a_model_is_fetched_and_added(
    hub: Any, pull: Pull, weights: bytes, place: Path, tmp_path: Path
) -> None:
    hub.repositories["org/Tiny-GGUF"] = {
        "README.md": b"#",
        "Tiny-Q8_0.gguf": b"no",
        "Tiny-Q4_K_M.gguf": weights,
    }
    (tmp_path / "config.yaml").write_text(
        "# mine\nmodels:\n  echo:  # as it was\n    engine: echo\n"
    )
    status, out, err = pull("org/Tiny-GGUF", HF_TOKEN="hf_secret")
    assert (status, out) == (
        0,
        "config.yaml: Tiny is in it now; `swapper reload` tells a running server\n",
    ), err
    assert (place / "Tiny-Q4_K_M.gguf").read_bytes() == weights
    assert [path.name for path in place.iterdir()] == ["Tiny-Q4_K_M.gguf"]
    assert hub.tokens == {"Bearer hf_secret"}
    assert "# mine\nmodels:\n  echo:  # as it was\n" in (tmp_path / "config.yaml").read_text()
    config = load_config(tmp_path / "config.yaml", {})
    assert config.problems == ()
    assert config.models["Tiny"].launch.options["path"] == str(place / "Tiny-Q4_K_M.gguf")
    asked = len(hub.ranges)
    assert pull("org/Tiny-GGUF")[1] == "config.yaml: Tiny was in it already\n"
    assert len(hub.ranges) == asked  # nothing was fetched twice


def test_a_broken_connection_goes_on_where_it_ended(
    hub: Any, pull: Pull, weights: bytes, place: Path
) -> None:
    hub.repositories["org/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": weights}
    hub.breaks = [15 << 20]
    status, _, err = pull("org/Tiny-GGUF", "--no-config")
    assert status == 0, err
    assert (place / "Tiny-Q4_K_M.gguf").read_bytes() == weights
    (_, first), (_, second) = hub.ranges
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 1 << 20


def test_a_pull_that_was_ended_goes_on_with_the_next(
    hub: Any,
    pull: Pull,
    start_pull: Callable[..., subprocess.Popen[str]],
    weights: bytes,
    place: Path,
) -> None:
    hub.repositories["org/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": weights}
    hub.stalls_after = 15 << 20
    process = start_pull("org/Tiny-GGUF")
    assert hub.stalled.wait(30)
    (part,) = _eventually(lambda: [p for p in place.glob("*.part") if p.stat().st_size])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    fetched = part.stat().st_size
    assert 0 < fetched <= 15 << 20
    hub.stalls_after = None
    assert pull("org/Tiny-GGUF")[0] == 0
    assert hub.ranges[-1] == ("Tiny-Q4_K_M.gguf", f"bytes={fetched}-")
    assert (place / "Tiny-Q4_K_M.gguf").read_bytes() == weights


def _eventually(found: Callable[[], list[Path]]) -> list[Path]:
    import time

    deadline = time.monotonic() + 20
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def test_a_wrong_checksum_is_refused(hub: Any, pull: Pull, weights: bytes, place: Path) -> None:
    hub.repositories["org/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": weights}
    hub.claims["Tiny-Q4_K_M.gguf"] = {"sha256": "0" * 64}
    status, out, err = pull("org/Tiny-GGUF")
    assert (status, out) == (1, "")
    assert "Error: Tiny-Q4_K_M.gguf: its checksum is wrong" in err
    assert list(place.iterdir()) == []


def test_a_file_that_is_shorter_than_told_is_refused(hub: Any, pull: Pull, place: Path) -> None:
    hub.repositories["org/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": b"short"}
    hub.claims["Tiny-Q4_K_M.gguf"] = {"size": 10}
    status, _, err = pull("org/Tiny-GGUF", "--no-config")
    assert status == 1
    assert "should be of size 10 but has size 5" in err
    assert len([line for line in err.splitlines() if "Error" in line]) == 1
    assert not (place / "Tiny-Q4_K_M.gguf").exists()


def test_a_disk_too_small_is_refused_before(hub: Any, pull: Pull, place: Path) -> None:
    hub.repositories["org/Tiny-GGUF"] = {"Tiny-Q4_K_M.gguf": b"x"}
    hub.claims["Tiny-Q4_K_M.gguf"] = {"size": 1 << 60}
    status, _, err = pull("org/Tiny-GGUF")
    assert status == 1
    assert re.search(r"1048576\.0 TiB are needed, and .* are free; --to names", err)
    assert hub.ranges == []


def test_parts_and_projector_come_along(
    hub: Any, pull: Pull, weights: bytes, tmp_path: Path
) -> None:
    projector = write_gguf(tmp_path / "source/p.gguf", arch="clip").read_bytes()
    hub.repositories["org/Tiny-GGUF"] = {
        "sub/Tiny-Q4_0.gguf": weights,
        "mmproj-F16.gguf": projector,
    }
    status, out, err = pull(
        "org/Tiny-GGUF/sub/Tiny-Q4_0.gguf", "--to", "here", "--no-config", "--as", "eyes"
    )
    assert status == 0, err
    folder = tmp_path / "here/org/Tiny-GGUF"
    assert f"path: {folder / 'sub/Tiny-Q4_0.gguf'}" in out
    assert out.startswith("  eyes:\n")
    assert "mmproj" in out
    assert (folder / "mmproj-F16.gguf").read_bytes() == projector
    assert not (tmp_path / "config.yaml").exists()


def test_a_safetensors_folder(hub: Any, pull: Pull, tmp_path: Path) -> None:
    hub.repositories["org/Torch"] = {
        "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
        "model.safetensors": (2).to_bytes(8, "little") + b"{}",
        "pytorch_model.bin": b"no",
    }
    status, out, err = pull("org/Torch", "--no-config")
    folder = tmp_path / "data/swapper/models/org/Torch"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    if "paged" in ENGINES:
        assert (status, out) == (0, f"  Torch:\n    engine: paged\n    path: {folder}\n"), err


def test_a_small_file_is_checked_too(hub: Any, pull: Pull) -> None:
    hub.repositories["org/Torch"] = {"config.json": b"{}", "model.safetensors": b"x"}
    hub.claims["config.json"] = {"blobId": "0" * 40}
    status, _, err = pull("org/Torch")
    assert status == 1
    assert "config.json: its checksum is wrong" in err


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((401, "RepoNotFound"), "there is no such repository, or it is private; set HF_TOKEN"),
        ((404, "RepoNotFound"), "there is no such repository"),
        ((403, "GatedRepo"), "is gated: accept its terms on http"),
        ((500, ""), "the hub answered 500; try again later"),
        ((403, ""), "the hub refuses the token in HF_TOKEN"),
    ],
)
def test_refusals_are_one_sentence(
    hub: Any, pull: Pull, refusal: tuple[int, str], said: str
) -> None:
    hub.refused["org/Tiny"] = refusal
    status, out, err = pull("org/Tiny")
    assert (status, out) == (1, "")
    assert said in err
    assert err.startswith("Error: org/Tiny")
    assert len(err.splitlines()) == 1


def test_other_things_that_are_not_there(hub: Any, pull: Pull) -> None:
    hub.repositories["org/Tiny"] = {"M-Q8_0.gguf": b"x"}
    for arguments, said in (
        (["org/Tiny:Q2_K"], "org/Tiny has no Q2_K; there is Q8_0 (1 B)"),
        (["org/Tiny", "--revision", "v9"], "org/Tiny has no revision 'v9'"),
        (["tiny"], "'tiny' is no repository"),
        (["org/Tiny--x"], "is no name of a repository"),
    ):
        status, _, err = pull(*arguments)
        assert status == 1
        assert said in err
        assert len(err.splitlines()) == 1


def test_nobody_there(pull: Pull) -> None:
    status, _, err = pull("org/Tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1
    assert "org/Tiny: http://127.0.0.1:9 cannot be reached" in err
    assert len(err.splitlines()) == 1


def test_a_file_that_leads_out_of_the_folder_is_refused(
    hub: Any, pull: Pull, tmp_path: Path
) -> None:
    hub.repositories["org/Tiny"] = {"../../../../M-Q4_0.gguf": b"x"}
    status, _, err = pull("org/Tiny")
    assert status == 1
    assert "is no name for a file" in err


def test_what_is_no_model_is_not_added(hub: Any, pull: Pull, tmp_path: Path) -> None:
    hub.repositories["org/Tiny"] = {"M-Q4_0.gguf": b"not a GGUF"}
    status, _, err = pull("org/Tiny")
    assert status == 1
    assert "M-Q4_0.gguf" in err
    assert not (tmp_path / "config.yaml").exists()
