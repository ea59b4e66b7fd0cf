"""The memory a model computes in, and how it is given back and taken again.

The weights are kept for good as one image in host memory, fused and converted, and the device has a
copy of it. So sleeping copies nothing: the device's memory is let go. Waking is one copy of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.paged.batch import KvCache
from backends.paged.decoder import Decoder
from backends.paged.device import lacks_memory
from backends.serving.engine import EngineError

CONTEXT_BYTES = 450 << 20  # of a device: its context and the libraries' kernels; not measured
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device


def host_buffer(num_bytes: int, device: torch.device) -> Tensor:
    """[num_bytes] uint8 for an image; where a device is to copy it at full speed pinned, for as long as the
    process lives. Raises EngineError where it cannot be."""
    buffer = torch.empty(num_bytes, dtype=torch.uint8)
    if device.type == "cuda":
        # What torch pins it takes in powers of two: 32 GiB for the 16 GB of an 8B.
        runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
        error = int(runtime.cudaHostRegister(buffer.data_ptr(), num_bytes, PORTABLE))
        if error:
            reason = f"{num_bytes} bytes of host memory cannot be pinned: CUDA error {error}"
            raise EngineError("out_of_memory", reason)
    return buffer


class Arena:
    """One buffer for the weights and one for the KV cache, in use from the beginning.

    On a CPU the image itself is computed on: asleep, only the KV cache is gone. `copies` makes a CPU
    behave as a device does.
    """

    def __init__(
        self,
        decoder: Decoder,
        image: Tensor,
        num_blocks: int,
        device: torch.device,
        *,
        copies: bool | None = None,
    ) -> None:
        self._decoder = decoder
        self._image = image
        self._num_blocks = num_blocks
        self._device = device
        self._copies = device.type != "cpu" if copies is None else copies
        self._cache: KvCache | None = None
        self.take()

    @property
    def cache(self) -> KvCache:
        """The KV cache, with nothing in it that is of use. Another one after every `take`."""
        assert self._cache is not None, "the model sleeps"
        return self._cache

    def take(self) -> None:
        """Have memory on the device, with the weights in it, and the decoder use it.

        Raises EngineError where there is not enough, and holds none then.
        """
        if self._cache is not None:
            return
        try:
            self._cache = self._filled()
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
        if self._cache is None:  # what was raised holds memory no more
            self.give_back()
            raise EngineError("out_of_memory", "There is not enough memory for the model.")

    def _filled(self) -> KvCache:
        if self._copies:
            weights = torch.empty(self._image.numel(), dtype=torch.uint8, device=self._device)
            weights.copy_(self._image, non_blocking=True)
            self._decoder.place(weights)
        shape = cache_shape(self._decoder)
        num_bytes = self._num_blocks * KvCache.bytes_per_block(*shape)
        buffer = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self._synchronize()
        return KvCache.view(buffer, *shape)

    def give_back(self) -> None:
        """Let the device's memory go. Nobody else holds the KV cache any more."""
        self._synchronize()  # memory that a kernel still uses must not be unmapped
        self._cache = None
        self._decoder.place(self._image)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def cache_shape(decoder: Decoder) -> tuple[int, int, int, torch.dtype]:
    """What KvCache wants to know of a model."""
    spec = decoder.spec
    return spec.num_layers, spec.num_kv_heads, spec.head_dim, decoder.dtype


class DeviceMeter:
    """What this process holds of a device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def used(self) -> dict[str, int]:
        """Bytes, by device. Not what has become less free: others load and unload meanwhile."""
        if self._device.type != "cuda":
            return {}
        reserved = torch.cuda.memory_reserved(self._device)
        return {f"cuda:{self._device.index or 0}": reserved + CONTEXT_BYTES}
