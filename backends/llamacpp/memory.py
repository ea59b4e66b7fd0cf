"""How much device memory a load took."""

from __future__ import annotations

from backends.llamacpp.loader import free_bytes, gpu_devices


class DeviceMeter:
    """Free memory of every GPU before a load, to compare with later."""

    def __init__(self) -> None:
        self._devices = gpu_devices()
        self._before = {name: free_bytes(device) for name, device in self._devices.items()}

    def used(self) -> dict[str, int]:
        """Bytes less free than before, by device; other programs' doings included."""
        now = {name: free_bytes(device) for name, device in self._devices.items()}
        taken = {name: self._before[name] - free for name, free in now.items()}
        return {name: count for name, count in taken.items() if count > 0}
