"""The memory a model computes in, and how it is given back and taken again.

The weights are kept for good as one image in host memory, fused and converted, and the device has a
copy of it. So sleeping copies nothing: the device's memory is let go. Waking is one copy of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backends.paged.batch import KvCache
from backends.paged.decoder import Decoder


def host_buffer(num_bytes: int, device: torch.device) -> Tensor:
    """[num_bytes] uint8 for an image; pinned where a device is to copy it at full speed."""
    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")


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
        """Have memory on the device, with the weights in it, and the decoder use it."""
        if self._cache is not None:
            return
        if self._copies:
            weights = torch.empty(self._image.numel(), dtype=torch.uint8, device=self._device)
            weights.copy_(self._image, non_blocking=True)
            self._decoder.place(weights)
        shape = cache_shape(self._decoder)
        num_bytes = self._num_blocks * KvCache.bytes_per_block(*shape)
        buffer = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        self._cache = KvCache.view(buffer, *shape)
        self._synchronize()

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
    """Free memory of the device before a load, to compare with later."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = self._free()

    def used(self) -> dict[str, int]:
        """Bytes less free than before; other programs' doings included."""
        taken = self._before - self._free()
        return {f"cuda:{self._device.index or 0}": taken} if taken > 0 else {}

    def _free(self) -> int:
        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 0
