"""Estimates against what workers were measured to hold (PSS at ready, and after an answer)."""

from __future__ import annotations

import pytest

from swapper.core.footprint import (
    MIB,
    LoadPlan,
    Shape,
    Tensor,
    compute_bytes,
    gpu_bytes,
    host_bytes,
    kv_bytes,
    read_shape,
)

Q4_K, F16, F32 = 12, 1, 0
QWEN = {
    "general.architecture": "qwen2",
    "qwen2.block_count": 24,
    "qwen2.context_length": 32768,
    "qwen2.embedding_length": 896,
    "qwen2.feed_forward_length": 4864,
    "qwen2.attention.head_count": 14,
    "qwen2.attention.head_count_kv": 2,
}


def qwen(layer_bytes: int, repacked_bytes: int, embedding_bytes: int) -> Shape:
    """Qwen2.5-0.5B: tied embeddings, 151936 tokens, rows that K-quants do not divide."""
    tensors = [Tensor("token_embd.weight", 8, (896, 151936), embedding_bytes)]
    for layer in range(24):
        copied = Tensor(f"blk.{layer}.ffn_down.weight", Q4_K, (4864, 896), repacked_bytes)
        rest = Tensor(f"blk.{layer}.rest", 6, (896, 4864), layer_bytes - repacked_bytes)
        tensors += [copied, rest]
    return read_shape(QWEN, {"tokenizer.ggml.tokens": 151936}, tensors)


Q4_K_M = qwen(10_544_085, 1_225_728, 144_643_072)
F16_FILE = qwen(29_839_360, 0, 272_269_312)


@pytest.mark.parametrize(
    ("shape", "plan", "measured_mib"),
    [
        (Q4_K_M, LoadPlan(8192), (666,)),  # after a first answer with a form
        (Q4_K_M, LoadPlan(32768, parallel=32), (966,)),
        (Q4_K_M, LoadPlan(8192, 16384, cache_type_k="q8_0", cache_type_v="q8_0"), (672,)),
        # When it was ready, and what the others took more by then.
        (F16_FILE, LoadPlan(4096), (1088 + 62, 1109 + 62)),
    ],
)
def test_against_workers(shape: Shape, plan: LoadPlan, measured_mib: tuple[int, ...]) -> None:
    for measured in measured_mib:
        assert host_bytes(shape, plan) == pytest.approx(measured * MIB, rel=0.10)


def test_a_model_of_next_to_nothing_is_the_process() -> None:
    facts = {"general.architecture": "llama", "llama.block_count": 4, "llama.embedding_length": 256,
             "llama.feed_forward_length": 512, "llama.attention.head_count": 4,
             "llama.attention.head_count_kv": 2, "llama.context_length": 2048}  # fmt: skip
    tensors = [Tensor("token_embd.weight", F16, (256, 32000), 32000 * 512)]
    shape = read_shape(facts, {"tokenizer.ggml.tokens": 32000}, tensors)
    assert host_bytes(shape, LoadPlan(2048)) == pytest.approx(
        (81 + 23) * MIB, rel=0.10
    )  # and its first use


def test_the_cache() -> None:
    assert sum(kv_bytes(Q4_K_M, LoadPlan(8192))) == 96 * MIB
    assert sum(kv_bytes(Q4_K_M, LoadPlan(8100))) == 96 * MIB  # cells come in steps of 256
    assert sum(kv_bytes(Q4_K_M, LoadPlan(8192, 32768))) == 384 * MIB
    assert (
        sum(kv_bytes(Q4_K_M, LoadPlan(8192, cache_type_k="q8_0", cache_type_v="q8_0"))) == 51 * MIB
    )


@pytest.mark.parametrize(
    ("plan", "planned_mib"),  # as llama.cpp itself plans them
    [
        (LoadPlan(2048, parallel=1), 37.5),
        (LoadPlan(8192), 43.5),
        (LoadPlan(32768), 67.5),
        (LoadPlan(131072), 163.5),
        (LoadPlan(8192, ubatch=128), 10.9),
    ],
)
def test_compute(plan: LoadPlan, planned_mib: float) -> None:
    assert compute_bytes(Q4_K_M, plan) == pytest.approx(planned_mib * MIB, rel=0.05)


def test_compute_of_a_mixture_of_experts() -> None:
    facts = {"general.architecture": "moe", "moe.block_count": 1, "moe.embedding_length": 2048,
             "moe.feed_forward_length": 768, "moe.expert_feed_forward_length": 768,
             "moe.expert_used_count": 8, "moe.attention.head_count": 32}  # fmt: skip
    assert compute_bytes(read_shape(facts, {}, ()), LoadPlan(8192)) == 96 * MIB


def test_repacked_weights_are_there_twice_only_where_the_file_is_mapped() -> None:
    copies = sum(Q4_K_M.layer_repacked_bytes)
    assert copies == 24 * 1_225_728
    mapped, read = (
        host_bytes(Q4_K_M, LoadPlan(8192)),
        host_bytes(Q4_K_M, LoadPlan(8192, mmap=False)),
    )
    assert mapped - read == copies


def test_layers_move_to_the_gpu_one_by_one() -> None:
    plan = LoadPlan(8192)
    on_host = [host_bytes(Q4_K_M, plan, layers) for layers in range(1, 26)]
    on_gpu = [gpu_bytes(Q4_K_M, plan, layers) for layers in range(1, 26)]
    assert on_host == sorted(on_host, reverse=True)
    assert on_gpu == sorted(on_gpu)
    assert gpu_bytes(Q4_K_M, plan, 0) == 0
    everything = Q4_K_M.weight_bytes + sum(kv_bytes(Q4_K_M, plan))
    assert on_gpu[-1] > everything  # tied embeddings are there twice


def layers_of(**facts: object) -> Shape:
    base = {"block_count": 6, "embedding_length": 256, "attention.head_count": 4,
            "attention.head_count_kv": 2}  # fmt: skip
    metadata = {f"x.{key}": value for key, value in {**base, **facts}.items()}
    return read_shape({"general.architecture": "x", **metadata}, {}, ())


def kv(shape: Shape, **plan: bool) -> list[int]:
    """KV elements by layer of a pool of 1024 tokens."""
    return [
        size // 2 // 1024
        for size in kv_bytes(shape, LoadPlan(1024, parallel=1, ubatch=256, **plan))
    ]


def test_heads_that_differ_from_layer_to_layer() -> None:
    shape = layers_of(**{"attention.head_count_kv": (2, 0, 2, 0, 1, 4)})
    assert kv(shape) == [256, 0, 256, 0, 128, 512]


def test_keys_and_values_of_their_own_length() -> None:
    shape = layers_of(**{"attention.key_length": 96, "attention.value_length": 64})
    assert kv(shape) == [2 * 160] * 6


def test_compressed_attention_keeps_one_vector() -> None:
    facts = {
        "attention.head_count_kv": 1,
        "attention.key_length": 576,
        "attention.key_length_mla": 192,
    }
    assert kv(layers_of(**facts, **{"attention.value_length": 512})) == [576] * 6


def test_windows() -> None:
    by_layer = {
        "attention.sliding_window": 256,
        "attention.sliding_window_pattern": (1, 1, 0, 1, 1, 0),
    }
    assert layers_of(**by_layer).windows == (256, 256, 0, 256, 256, 0)
    by_period = {"attention.sliding_window": 256, "attention.sliding_window_pattern": 3}
    shape = layers_of(**by_period)
    assert shape.windows == (256, 256, 0, 256, 256, 0)
    assert kv(shape) == [256] * 6
    assert kv(shape, full_window=False) == [128, 128, 256, 128, 128, 256]
    assert layers_of(**{"attention.sliding_window": 256}).windows == (0,) * 6


def test_encoders_keep_nothing() -> None:
    assert kv(layers_of(**{"attention.causal": False})) == [0] * 6


def test_recurrent_layers_keep_a_state() -> None:
    facts = {"full_attention_interval": 3, "ssm.inner_size": 512, "ssm.state_size": 128,
             "ssm.group_count": 2, "ssm.conv_kernel": 4}  # fmt: skip
    shape = layers_of(**facts)
    assert kv(shape) == [0, 0, 256, 0, 0, 256]
    assert shape.state_bytes == 4 * (3 * (512 + 2 * 2 * 128) + 512 * 128) * 4


def test_a_header_that_says_nothing_is_a_small_guess_and_no_error() -> None:
    shape = read_shape({}, {}, [Tensor("odd", F32, (4,), 16)])
    assert 16 < host_bytes(shape, LoadPlan(4096)) < 64 * MIB
