"""The kernels of mixtures of experts compiled for the cards that there are, whether or not one is here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.paged.kernels.cards import CARDS, Card
from tests.paged.kernels.compiling import PRODUCTS, Compiled, compiled, needs_compiler

import triton  # isort: skip

from backends.paged.kernels import grouped, routing

pytestmark = needs_compiler
ATOMIC = re.compile(r"\b(atom|red)\.")  # whose order is another one each time


@dataclass(frozen=True)
class Model:
    """`count` experts, and per token."""

    count: int
    per_token: int
    width: int
    inner: int
    kind: str = "silu"
    has_bias: bool = False


MODELS = {
    "qwen3 30b a3b": Model(128, 8, 2048, 768),
    "gpt-oss": Model(32, 4, 2880, 2880, "clamped_swiglu", has_bias=True),
}
STEPS = {"decode": 1, "prefill": 2048}  # tokens


def products(
    tmp_path: Path, card: Card, model: Model, num_tokens: int, is_first: bool, dtype: str = "bf16"
) -> Compiled:
    itemsize = 4 if dtype == "fp32" else 2
    num_pairs = num_tokens * model.per_token
    shape = grouped.shape_for(num_pairs, model.count, itemsize, card.gpu)
    values = dict.fromkeys(("x", "weight", "bias", "out"), f"*{dtype}")
    others = {"order": "*i32", "ends": "*i32", "limit": "fp32", "alpha": "fp32"}
    constants = {
        "COUNT": model.count,
        "EXPERTS": triton.next_power_of_2(model.count),
        "SHARING": model.per_token if is_first else 1,
        "ROWS": 2 * model.inner if is_first else model.width,
        "DEPTH": model.width if is_first else model.inner,
        "TILE": shape.rows,
        "COLUMNS": shape.columns,
        "TURN": shape.depth,
        "HAS_BIAS": model.has_bias,
        "KIND": model.kind if is_first else "",
        "UPCAST": False,
    }
    return compiled(
        grouped._products,
        values | others,
        constants,
        tmp_path,
        shape.num_warps,
        shape.num_stages,
        card=card,
    )


def check(made: Compiled, step: str, dtype: str = "bf16") -> None:
    made.check()
    assert not ATOMIC.search(made.ptx)
    assert max(made.waits) >= 2, "weights are not fetched in advance"
    assert "cp.async.cg.shared.global" in made.ptx, "weights are copied by way of registers"
    tall = PRODUCTS.get(made.card.gpu.generation, "mma.sync")
    kinds = {"fp32": set(), "decode": {"mma.sync"}, "prefill": {tall}}
    assert made.products == kinds["fp32" if dtype == "fp32" else step]


@pytest.mark.parametrize("is_first", [True, False], ids=["gate and up", "down"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_products_of_hopper(model: str, step: str, is_first: bool, tmp_path: Path) -> None:
    made = products(tmp_path, CARDS["H200"], MODELS[model], STEPS[step], is_first)
    check(made, step)
    if step == "decode":
        assert made.programs >= 3


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("card", [name for name in CARDS if name != "H200"])
def test_products_of_other_cards(card: str, step: str, tmp_path: Path) -> None:
    check(products(tmp_path, CARDS[card], MODELS["gpt-oss"], STEPS[step], True), step)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("card", ["RTX 3090", "H200"])
def test_products_of_other_precisions(card: str, step: str, dtype: str, tmp_path: Path) -> None:
    made = products(tmp_path, CARDS[card], MODELS["gpt-oss"], STEPS[step], True, dtype)
    check(made, step, dtype)


@pytest.mark.parametrize("model", MODELS)
def test_routes_are_found_in_one_order_and_without_spills(model: str, tmp_path: Path) -> None:
    sizes = routing.sizes_for(MODELS[model].count, MODELS[model].per_token)
    integers = dict.fromkeys(("picks", "counts", "order", "ends"), "*i32")
    values = {"scores": "*bf16", "shares": "*bf16"}
    options = {"num_warps": routing.NUM_WARPS, "unaligned": ("num_tokens", "tiles")}
    for is_alone in (True, False):
        constants = sizes | {"NORMALIZED": True, "IS_ALONE": is_alone}
        made = compiled(routing._choose, values | integers, constants, tmp_path, **options)
        made.check()
        assert not ATOMIC.search(made.ptx)
    made = compiled(routing._order, integers, sizes, tmp_path, **options)
    made.check()
    assert not ATOMIC.search(made.ptx)


def test_the_sum_is_read_in_wide_pieces(tmp_path: Path) -> None:
    types = dict.fromkeys(("by_pair", "shares", "out"), "*bf16")
    constants = {"WIDTH": 2048, "PER_TOKEN": 8, "TILE": grouped.SUM_TILE}
    made = compiled(grouped._combine, types, constants, tmp_path, num_warps=4)
    made.check()
    assert "ld.global.v4.b32" in made.ptx or "ld.global.v4.u32" in made.ptx
