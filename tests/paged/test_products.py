"""Products give what float64 gives, and compile few programs for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backends.paged.products import LARGE_FOR_FEW, padded, product

LARGE_SHAPE = (LARGE_FOR_FEW // 512, 512)
SMALL_SHAPE = (64, 48)


@pytest.mark.parametrize("shape", [LARGE_SHAPE, SMALL_SHAPE])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-1), (torch.float16, 1e-2)]
)
def test_any_number_of_rows_of_any_type_is_as_in_float64(
    shape: tuple[int, int], has_bias: bool, dtype: torch.dtype, error: float
) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(shape, dtype=dtype), torch.randn(shape[0], dtype=dtype)
    weight /= shape[1] ** 0.5
    for rows in (0, 1, 2, 5, 16, 77):
        x = torch.randn(rows, shape[1], dtype=dtype)
        out = product(x, weight, bias if has_bias else None)
        exact = x.double() @ weight.double().T + (bias.double() if has_bias else 0)
        assert out.dtype is dtype
        torch.testing.assert_close(out.double(), exact, atol=error, rtol=error)


def test_rows_that_are_not_contiguous_are_multiplied_too() -> None:
    torch.manual_seed(0)
    weight, wide = torch.randn(LARGE_SHAPE), torch.randn(9, 2 * LARGE_SHAPE[1])
    x = wide[:, : LARGE_SHAPE[1]]
    exact = (x.double() @ weight.double().T).float()
    torch.testing.assert_close(product(x, weight), exact, atol=1e-3, rtol=1e-4)


class Shapes(TorchDispatchMode):
    """The numbers of rows of all products."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.mkldnn._linear_pointwise.default or func is torch.ops.aten.mm.default:
            self.rows.add(len(args[0]))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_library_that_compiles_for_each_number_of_rows_meets_few(dtype: torch.dtype) -> None:
    weight = torch.randn(LARGE_SHAPE, dtype=dtype)
    with Shapes() as shapes:
        for rows in range(1, 513):
            product(torch.ones(rows, LARGE_SHAPE[1], dtype=dtype), weight)
    assert 10 < len(shapes.rows) < 20


def test_padding_wastes_at_most_a_third() -> None:
    assert [padded(rows) for rows in (0, 1, 2, 3, 4, 5, 7, 9, 13, 17)] == [
        0, 1, 2, 3, 4, 6, 8, 12, 16, 24,
    ]  # fmt: skip
    assert all(rows <= padded(rows) <= 1.5 * rows for rows in range(4096))
