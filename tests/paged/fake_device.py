"""A CUDA device that computes nothing, so that a machine without one shows where the host would wait for it.

Tensors have shapes and say that they are on `cuda:0` (torch's FakeTensorMode); tensors of two devices in one
operation fail, as they do there. On top of that `FakeDevice` refuses whatever makes the host wait: values
that are read, results whose size is in the data, copies that block or whose end on the host is not pinned.
Triton's kernels are not run, their launches are checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.jit import JITFunction

from backends.paged.device import Arriving, gpu_of

CUDA = torch.device("cuda:0")
aten = torch.ops.aten

# What reads nothing back, by torch's CUDA sources, beside views and operations on each element alone. What is
# not here fails: look it up, and add it.
KNOWN = {
    "clone", "embedding", "empty_like", "fill_", "lift_fresh", "new_empty", "new_full", "new_zeros", "zero_",
    "addmm", "mm", "native_layer_norm", "linalg_vector_norm", "_log_softmax", "sum", "topk",
    "gather", "index_copy_", "index_select", "scatter_add_",
}  # fmt: skip
WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Waits(AssertionError):
    """The host would wait for the device here."""


class FakeDevice(TorchDispatchMode):
    """While it is entered, torch has a device, and says so where something would wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []  # what torch.cuda was told to do
        self.waits: list[
            int
        ] = []  # each time the host waited: what the device had to do beyond that
        self.num_launched = 0  # operations and kernels
        self.graph: Graph | None = None  # the one that is captured
        self.capacity: int | None = None  # bytes
        self.graphs: WeakSet[Graph] = WeakSet()
        self.compiled: set[Any] = set()  # kernels, by all that they are compiled anew for
        self._made: list[tuple[StorageWeakRef, int]] = []  # memory of the device

    def held(self) -> int:
        """Bytes of the device that somebody still holds."""
        self._made = [made for made in self._made if not made[0].expired()]
        return sum({made[0].cdata: made[1] for made in self._made}.values())

    # What torch does

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.prim.device.default:
            return function(*args, **kwargs)
        with self:  # in inference mode what is made of other operations comes whole
            parts = function.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if function is aten.is_pinned.default:
            return is_pinned(args[0])
        if function is aten._pin_memory.default:
            return pinned(aten.clone(args[0]))
        tensors = _tensors((args, kwargs))
        if function in (aten.copy_.default, aten._to_copy.default):
            self._check_copy(function, args, kwargs)
        elif tensors:
            self._check(function, args)
        result = function(*args, **kwargs)
        self._note(tensors, _tensors(result))
        return result

    def _note(self, given: list[Tensor], made: list[Tensor]) -> None:
        self.num_launched += bool(made)
        known = {tensor.untyped_storage()._cdata for tensor in given}
        for storage in (tensor.untyped_storage() for tensor in made):
            if storage._cdata not in known:
                memory = StorageWeakRef(storage), storage.nbytes()
                self._made.append(memory)
                if self.graph is not None:
                    self.graph.made.append(memory)
        if self.capacity is not None and self.held() > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate so much.")

    def _check_copy(self, function: Any, args: Any, kwargs: Any) -> None:
        if function is aten.copy_.default:
            target, source = args[0].device, args[1]
            is_async = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        else:
            target, source = kwargs.get("device") or args[0].device, args[0]
            is_async = kwargs.get("non_blocking", False)
        if target.type == source.device.type or "meta" in (target.type, source.device.type):
            return
        if self.graph is not None:
            raise Waits("a graph would copy from or to the same place on the host each time")
        if not is_async:
            raise Waits(f"a copy from {source.device} to {target} that blocks")
        if source.device.type == "cpu" and not is_pinned(source):
            raise Waits("a copy out of memory that is not pinned")
        dtype = args[0].dtype if function is aten.copy_.default else kwargs.get("dtype")
        if dtype not in (None, source.dtype) or not source.is_contiguous():
            raise Waits(
                "what is converted on its way, or has gaps, goes by memory that is not pinned"
            )
        if function is aten.copy_.default and target.type == "cpu":
            raise Waits("a copy to memory that may not be pinned")

    def _check(self, function: Any, args: Any) -> None:
        name = function._schema.name.removeprefix("aten::")
        if name in ("index", "index_put_"):
            self._check_indices(args[0], args[1])
            if any(
                not tensor.is_cuda for tensor in tree_leaves(args) if isinstance(tensor, Tensor)
            ):
                raise Waits(f"{name} copies what is on another device")
        elif WAITS & set(function.tags):
            raise Waits(f"{name} reads values of the device")
        elif not function.is_view and not _is_pointwise(function):
            assert name in KNOWN, f"whether {name} waits for the device is not known: see KNOWN"

    def _check_indices(self, values: Tensor, indices: list[Tensor | None]) -> None:
        for index in indices:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                raise Waits("the result of indexing by bools has a size that only the device knows")

    # What Triton does

    def launch(self, kernel: JITFunction[Any], grid: Any, *args: Any, **kwargs: Any) -> None:
        """Check a kernel's launch."""
        names = kernel.signature.parameters
        options = {name: kwargs.pop(name) for name in list(kwargs) if name not in names}
        assert options.keys() <= {"num_warps", "num_stages"}, options
        given = kernel.signature.bind(*args, **kwargs).arguments
        assert all(isinstance(size, int) and size > 0 for size in grid), grid
        for name, value in given.items():
            assert not isinstance(value, Tensor) or value.device == CUDA, f"{name} is on the host"
        variant = (
            kernel,
            *options.items(),
            *(_specialised(p, given[p.name]) for p in kernel.params),
        )
        if self.graph is not None:
            assert variant in self.compiled, f"a capture compiles {kernel.__name__}"
        self.compiled.add(variant)
        self.num_launched += 1


class Graph:
    """In the place of torch.cuda.CUDAGraph and torch.cuda.graph."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        device.graphs.add(self)
        self.made: list[tuple[StorageWeakRef, int]] = []

    def replay(self) -> None:
        self._device.num_launched += 1

    @contextmanager
    def capture(self) -> Iterator[None]:
        self._device.log.append("capture")
        self._device.graph = self
        try:
            yield
        finally:
            self._device.graph = None
        left = {made[0].cdata for made in self.made if not made[0].expired()}
        assert len(left) == 1, "all graphs work in one memory: of each, only its result may stay"


class Event:
    """In the place of torch.cuda.Event."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device

    def record(self) -> None:
        self._recorded_at = self._device.num_launched

    def synchronize(self) -> None:
        assert self._device.graph is None
        self._device.waits.append(self._device.num_launched - self._recorded_at)


@dataclass(frozen=True)
class Zeros:
    """What is read of a tensor that has no values."""

    shape: Sequence[int]
    dtype: torch.dtype

    def tolist(self) -> Any:
        zero = 0.0 if self.dtype.is_floating_point else 0
        for size in reversed(self.shape):
            zero = [zero] * size
        return zero


def pinned(tensor: Tensor) -> Tensor:
    """`tensor`, as if it stood in pinned memory."""
    tensor.is_in_pinned_memory = True  # type: ignore[attr-defined]
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    """Whether it does. A view of such a tensor may too, and is held not to."""
    return getattr(tensor, "is_in_pinned_memory", False)


def _is_pointwise(function: Any) -> bool:
    """Those that work in place often lack the tag."""
    name = function.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), function.overloadpacket)
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())


def _tensors(values: Any) -> list[Tensor]:
    """Those of the device."""
    leaves = tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, FakeTensor) and leaf.fake_device == CUDA]


def _specialised(parameter: Any, value: Any) -> Any:
    """What Triton compiles anew for."""
    if parameter.is_constexpr:
        return value
    if isinstance(value, Tensor):
        return value.dtype, value.storage_offset() * value.itemsize % 16 == 0
    if isinstance(value, int) and not parameter.do_not_specialize:
        return value == 1, value % 16 == 0, value >> 31 == 0
    return type(value)


@contextmanager
def fake_device() -> Iterator[FakeDevice]:
    """Have torch and Triton use a device that computes nothing."""
    device = FakeDevice()

    def told(what: str) -> Callable[..., None]:
        return lambda *_: device.log.append(what)

    def captured(graph: Graph, **options: Any) -> AbstractContextManager[None]:
        assert (
            options["capture_error_mode"] == "thread_local"
        )  # others may ask how much memory there is
        return graph.capture()

    def read(arriving: Arriving) -> list[Any]:
        return [Zeros(tensor.shape, tensor.dtype) for tensor in wait(arriving)]

    wait = Arriving.wait
    with pytest.MonkeyPatch.context() as patch, _guarded(), FakeTensorMode(), device:
        patch.setattr(JITFunction, "run", _launcher(device))
        patch.setattr(Arriving, "wait", read)
        for name in ("synchronize", "empty_cache", "set_device"):
            patch.setattr(torch.cuda, name, told(name))
        properties = SimpleNamespace(
            major=9, shared_memory_per_block_optin=227 << 10, multi_processor_count=132
        )
        patch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
        patch.setattr(torch.cuda, "Event", lambda: Event(device))
        patch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(device))
        patch.setattr(torch.cuda, "graph", captured)
        patch.setattr(torch.cuda, "graph_pool_handle", object)
        try:
            yield device
        finally:
            gpu_of.cache_clear()


def _launcher(device: FakeDevice) -> Callable[..., None]:
    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        device.launch(kernel, grid, *args, **kwargs)

    return run


@contextmanager
def _guarded() -> Iterator[None]:
    """Before they dispatch, some of torch's functions make their tensor's device the current one. What does
    that for the meta device does nothing; here it does it for CUDA too, which a build for CPUs cannot."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    cuda, meta, count = 1, 14, 21  # of c10::DeviceType
    name = "_ZN3c104impl26device_guard_impl_registryE"
    guards = (ctypes.c_void_p * count).in_dll(library, name)
    before, guards[cuda] = guards[cuda], guards[meta]
    try:
        yield
    finally:
        guards[cuda] = before
