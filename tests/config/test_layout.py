from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from swapper.config.layout import auto_context, fits, layouts
from swapper.core.footprint import LoadPlan, Shape, gpu_bytes, host_bytes

GIB = 1 << 30
EIGHT_B = Shape(
    num_layers=32,
    layer_bytes=(122_683_392,) * 32,
    layer_repacked_bytes=(122_683_392,) * 32,
    embedding_bytes=295_501_824,
    output_bytes=430_940_160,
    other_bytes=16384,
    is_tied=False,
    output_repacked_bytes=0,
    kv_elements=((1024, 1024),) * 32,
    windows=(0,) * 32,
    state_bytes=0,
    vocabulary=128256,
    step_elements=59392,
    trained_context=131072,
)
PLAN = LoadPlan(8192)


def test_without_a_gpu_there_is_one_way() -> None:
    (variant,) = layouts(EIGHT_B, PLAN, {"host": 32 * GIB}, None, [])
    assert variant.needs == {"host": host_bytes(EIGHT_B, PLAN)}
    assert variant.settings == {"gpu_layers": 0}


def test_all_layers_on_each_gpu_come_first() -> None:
    budgets = {"host": 64 * GIB, "cuda:0": 16 * GIB, "cuda:1": 24 * GIB}
    variants = layouts(EIGHT_B, PLAN, budgets, None, ["cuda:0", "cuda:1"])
    assert [variant.settings["gpu_layers"] for variant in variants] == [
        33,
        33,
        24,
        24,
        16,
        16,
        8,
        8,
        0,
    ]
    assert [variant.settings["devices"] for variant in variants[:2]] == [["cuda:1"], ["cuda:0"]]
    assert variants[0].needs["cuda:1"] == gpu_bytes(EIGHT_B, PLAN, 33)
    assert set(variants[0].needs) == {"cuda:1", "host"}


def test_a_gpu_too_small_gets_as_many_layers_as_fit() -> None:
    budgets = {"host": 64 * GIB, "cuda:0": 5 * GIB}
    best = layouts(EIGHT_B, PLAN, budgets, None, ["cuda:0"])[0]
    layers = best.settings["gpu_layers"]
    assert isinstance(layers, int)
    assert 0 < layers < 33
    assert gpu_bytes(EIGHT_B, PLAN, layers) <= 5 * GIB < gpu_bytes(EIGHT_B, PLAN, layers + 1)


def test_two_gpus_share_what_neither_takes_alone() -> None:
    budgets = {"host": 64 * GIB, "cuda:0": 3 * GIB, "cuda:1": 4 * GIB + GIB // 2}
    best = layouts(EIGHT_B, PLAN, budgets, None, ["cuda:0", "cuda:1"])[0]
    assert best.settings == {
        "gpu_layers": 33, "devices": ["cuda:1", "cuda:0"], "tensor_split": [0.6, 0.4],
    }  # fmt: skip
    assert fits(best.needs, budgets)
    assert sum(best.needs[gpu] for gpu in ("cuda:0", "cuda:1")) > gpu_bytes(EIGHT_B, PLAN, 33)


def test_as_few_gpus_as_do_and_each_choice_of_them() -> None:
    gpus = ["cuda:0", "cuda:1", "cuda:2"]
    budgets = {"host": 64 * GIB, **dict.fromkeys(gpus, 4 * GIB)}
    whole = [v for v in layouts(EIGHT_B, PLAN, budgets, None, gpus) if v.quality[0] == 33]
    assert [v.settings["devices"] for v in whole] == [
        ["cuda:0", "cuda:1"], ["cuda:0", "cuda:2"], ["cuda:1", "cuda:2"],
    ]  # fmt: skip
    assert {v.quality for v in whole} == {(33, -2)}


def test_what_all_gpus_together_do_not_hold_fills_all_of_them() -> None:
    gpus = ["cuda:0", "cuda:1"]
    budgets = {"host": 64 * GIB, **dict.fromkeys(gpus, 2 * GIB)}
    best, *others = layouts(EIGHT_B, PLAN, budgets, None, gpus)
    assert best.settings["devices"] == gpus
    assert 33 > best.quality[0] > max(variant.quality[0] for variant in others)


def test_a_fixed_number_of_layers_is_kept() -> None:
    budgets = {"host": 64 * GIB, "cuda:0": 24 * GIB}
    for layers, told in ((10, 10), (99, 33)):
        (variant,) = layouts(EIGHT_B, PLAN, budgets, layers, ["cuda:0"])
        assert variant.settings == {"gpu_layers": told, "devices": ["cuda:0"]}
    (variant,) = layouts(EIGHT_B, PLAN, budgets, 0, ["cuda:0"])
    assert variant.settings == {"gpu_layers": 0}


def test_what_fits_nowhere_says_what_it_would_need() -> None:
    (variant,) = layouts(EIGHT_B, PLAN, {"host": GIB}, None, [])
    assert variant.needs["host"] > GIB


def test_automatic_context() -> None:
    def context(gpus: list[str], **gib: float) -> int:
        budgets = {name.replace("_", ":"): int(size * GIB) for name, size in gib.items()}
        return auto_context(EIGHT_B, replace(PLAN, context=131072), budgets, None, gpus)

    assert context([], host=64) == 131072
    assert context([], host=24) == 65536
    assert context([], host=12) == 16384
    assert context([], host=2) == 4096  # it does not fit at all
    assert context(["cuda:0"], host=64, cuda_0=40) == 131072
    assert context(["cuda:0"], host=64, cuda_0=8) == 16384  # rather than layers on the CPU
    assert context(["cuda:0"], host=64, cuda_0=3) > 16384  # some are there anyway


gib = st.floats(0.1, 80).map(lambda size: int(size * GIB))


@given(gib, st.lists(gib, max_size=3), st.none() | st.integers(0, 40), st.integers(1, 131072))
def test_what_is_offered_fits_or_is_the_last_resort(
    host: int, gpu_sizes: list[int], layers: int | None, context: int
) -> None:
    gpus = {f"cuda:{index}": size for index, size in enumerate(gpu_sizes)}
    budgets = {"host": host, **gpus}
    plan = replace(PLAN, context=context)
    variants = layouts(EIGHT_B, plan, budgets, layers, list(gpus))
    assert len(variants) == 1 or all(fits(variant.needs, budgets) for variant in variants)
    assert len({variant.key for variant in variants}) == len(variants)
    assert variants[0].quality == max(variant.quality for variant in variants)
    chosen = auto_context(EIGHT_B, plan, budgets, layers, list(gpus))
    assert min(context, 4096) <= chosen <= context
