"""What lets a GGUF see: where it is said, where it is found, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapper.config import Config, build_registry, cards_of
from swapper.config.folder import folder_config
from swapper.core.events import DeviceReading
from swapper.core.footprint import MIB, Tensor, projector_bytes
from swapper.gguf import read_header
from swapper.importing.llama_server import equivalent
from swapper.importing.model_files import projector_of

Configure = Callable[..., Config]
Make = Callable[..., Path]


def eye(make: Make, name: str, **changes: Any) -> Path:
    return make(name, arch="clip", **{"vision.projection_dim": 64} | changes)


def test_it_is_named_by_a_key(configure: Configure, make_gguf: Make, tmp_path: Path) -> None:
    make_gguf("m.gguf")
    eye(make_gguf, "sub/mmproj.gguf")
    config = configure("""
models:
  m: {engine: llamacpp, path: m.gguf, mmproj: sub/mmproj.gguf, image_tokens: 300}
  blind: {engine: llamacpp, path: m.gguf}
""")
    assert config.problems == ()
    options = config.models["m"].launch.options
    assert options["mmproj"] == str(tmp_path / "sub/mmproj.gguf")
    assert options["image_tokens"] == 300
    assert "mmproj" not in config.models["blind"].launch.options
    assert {name: card.sees for name, card in cards_of(config).items()} == {
        "m": True,
        "blind": False,
    }


def test_one_that_cannot_be_is_a_problem_of_its_model(
    configure: Configure, make_gguf: Make
) -> None:
    make_gguf("m.gguf")
    config = configure("""
models:
  lost: {engine: llamacpp, path: m.gguf, mmproj: nowhere.gguf}
  wrong: {engine: llamacpp, path: m.gguf, mmproj: m.gguf}
  fine: {engine: llamacpp, path: m.gguf}
""")
    found = [str(problem).partition("swapper.yaml")[2] for problem in config.problems]
    assert found[0].startswith(":3: models.lost.mmproj: nowhere.gguf: there is no such file")
    assert found[1].startswith(":4: models.wrong.mmproj: m.gguf encodes no images")
    assert len(found) == 2


def test_it_is_reserved_where_the_layers_are(configure: Configure, make_gguf: Make) -> None:
    make_gguf("m.gguf")
    file = eye(make_gguf, "mmproj.gguf")
    config = configure("""
models:
  m: {engine: llamacpp, path: m.gguf, mmproj: mmproj.gguf}
  blind: {engine: llamacpp, path: m.gguf}
""")
    header = read_header(file)
    cost = projector_bytes(header.metadata, header.tensors)
    assert cost > 64 * MIB
    readings = {name: DeviceReading(20 << 30, 20 << 30) for name in ("host", "cuda:0")}
    models = build_registry(config, readings).models
    seeing, blind = models["m"].variants, models["blind"].variants
    for one, other in zip(seeing, blind, strict=True):
        place = "cuda:0" if one.settings["gpu_layers"] else "host"
        assert one.needs[place] - other.needs[place] == cost
    assert {one.settings["gpu_layers"] for one in seeing} > {0}


@pytest.mark.parametrize(
    ("facts", "tokens", "measured_mib"),
    [
        ((1024, 4096, 336, 14, None), None, 17.05),
        ((1024, 4096, 672, 14, None), None, 68.19),
        ((1152, 4304, 896, 14, None), None, 121.25),
        ((1280, 5120, 560, 14, 2), 2116, 267.08),
    ],
)
def test_scratch_memory_against_what_libmtmd_plans(facts, tokens, measured_mib) -> None:
    names = ("embedding_length", "feed_forward_length", "image_size", "patch_size")
    metadata = {f"clip.vision.{n}": v for n, v in zip(names, facts, strict=False)}
    if facts[4] is not None:
        metadata["clip.vision.spatial_merge_size"] = facts[4]
    weights = [Tensor("v.patch_embd.weight", 1, (14, 14, 3, 1024), 10 * MIB)]
    scratch = projector_bytes(metadata, weights, tokens) - (10 + 64) * MIB
    assert measured_mib * 0.99 <= scratch / MIB <= measured_mib * 1.16


def test_a_folder_has_it_where_it_fits(make_gguf: Make, tmp_path: Path) -> None:
    make_gguf("see/m.gguf")
    make_gguf("see/wide.gguf", embedding_length=128)
    make_gguf("see/vectors.gguf", pooling_type=1)
    eye(make_gguf, "see/mmproj-m-F32.gguf")
    best = eye(make_gguf, "see/mmproj-m-F16.gguf")
    eye(make_gguf, "see/mmproj-ears-F16.gguf", has_vision_encoder=False)
    make_gguf("blind/b.gguf")
    config = folder_config(tmp_path)
    assert {name: model.launch.options.get("mmproj") for name, model in config.models.items()} == {
        "b": None,
        "m": str(best),
        "vectors": None,
        "wide": None,
    }
    assert config.warnings == ()


def test_one_that_says_nothing_of_its_width_is_taken_at_its_word(make_gguf: Make) -> None:
    model, old = make_gguf("m.gguf"), make_gguf("mmproj-old.gguf", arch="clip")
    assert projector_of(model, [old]) == old
    old.write_bytes(b"broken")
    assert projector_of(model, [old]) is None


def test_a_llama_server_with_it() -> None:
    cmd = "llama-server -m /m/x.gguf --mmproj /m/mmproj.gguf --image-max-tokens 700"
    assert equivalent(cmd) == (
        "engine: llamacpp, path: /m/x.gguf, mmproj: /m/mmproj.gguf, image_tokens: 700"
    )
