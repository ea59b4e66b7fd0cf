"""gpt-oss as it is published: experts in MXFP4."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the paged engine needs torch")
pytest.importorskip("transformers", reason="transformers is what models are compared with")

import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from backends.paged import mxfp4
from backends.paged.loader import load
from backends.serving.engine import EngineError
from tests.paged.models import oracle
from tests.paged.models.agreement import agree

SIZES = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, "head_dim": 16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_byte_and_scale(dtype: torch.dtype) -> None:
    blocks = torch.arange(256, dtype=torch.uint8).repeat(60).view(60, 16, 16)
    scales = torch.arange(98, 158, dtype=torch.uint8)[:, None].expand(60, 16)
    wanted = convert_moe_packed_tensors(blocks[None], scales[None], dtype=torch.float32)
    values = mxfp4.expand(blocks, scales, dtype)
    assert torch.equal(values, wanted[0].t().to(dtype))


def test_packed(tmp_path: Path) -> None:
    model = packed(tmp_path)
    agree(model, load(str(tmp_path), "float32", "cpu")[1])


def test_packed_of_another_shape(tmp_path: Path) -> None:
    packed(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.experts.down_proj_scales"
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(EngineError, match="down_proj_scales is"):
        load(str(tmp_path), "float32", "cpu")


def packed(folder: Path):
    """A checkpoint with random packed experts, and the model that transformers makes of their values."""
    model = oracle.save(
        folder,
        "gpt_oss",
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=12,
        **SIZES,
    )
    path = folder / "model.safetensors"
    weights, generator = load_file(path), torch.Generator().manual_seed(2)
    for layer, module in enumerate(model.model.layers):
        for name in ("gate_up_proj", "down_proj"):
            values = getattr(module.mlp.experts, name).data  # [experts, in, out]
            shape = (values.shape[0], values.shape[2], values.shape[1] // 32, 16)
            blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            scales = torch.randint(122, 126, shape[:3], dtype=torch.uint8, generator=generator)
            values.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
            key = f"model.layers.{layer}.mlp.experts.{name}"
            del weights[key]
            weights |= {f"{key}_blocks": blocks, f"{key}_scales": scales}
    os.remove(path)
    save_file(weights, path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (folder / "config.json").write_text(json.dumps(config))
    return model
