"""The books of everything that is limited: bytes per device, and how many models a group may load.

A worker's charge is set aside before it starts and stays until its processes are gone, so the sum of
charges never passes a budget by the scheduler's doing. What other programs hold of a device, as last
read, comes off its budget too. Counters (`group:NAME`) are entries like any other.
"""

from __future__ import annotations

from collections.abc import Mapping

from swapper.core.events import DeviceReading
from swapper.core.registry import Bytes


class BrokenBooks(Exception):
    """The ledger was told something that cannot be; going on would over-commit."""


class Ledger:
    """Owner of all charges. Budgets and charges are bytes, or counts for `group:` entries."""

    def __init__(self, budgets: Bytes) -> None:
        self._budgets = dict(budgets)
        self._charges: dict[str, dict[str, int]] = {}  # by worker
        self._others: dict[str, int] = {}  # device -> bytes that other programs leave us

    def __repr__(self) -> str:
        rooms = ", ".join(
            f"{name}: {self.room(name)} of {self.capacity(name)}" for name in self._budgets
        )
        return f"<Ledger {rooms}>"

    def set_budgets(self, budgets: Bytes) -> None:
        """The configuration was read anew. What is charged stays, even where it is too much now."""
        self._budgets = dict(budgets)

    def budget(self, name: str) -> int:
        """What we may use at most; a device nobody set a budget for has none."""
        return self._budgets.get(name, 0)

    def capacity(self, name: str) -> int:
        """The budget, or what other programs leave of the device where that is less."""
        budget = self.budget(name)
        return min(budget, self._others.get(name, budget))

    def charged(self, name: str) -> int:
        """The sum of all workers' charges."""
        return sum(charge.get(name, 0) for charge in self._charges.values())

    def room(self, name: str) -> int:
        """What may still be given; negative when other programs took what we count on."""
        return self.capacity(name) - self.charged(name)

    def charge_of(self, worker_id: str) -> Bytes:
        """What is set aside for a worker; empty once it was released."""
        return self._charges.get(worker_id, {})

    def reserve(self, worker_id: str, needs: Bytes) -> None:
        """Set `needs` aside. Raises BrokenBooks when there is no room or the worker has a charge."""
        if worker_id in self._charges:
            raise BrokenBooks(f"{worker_id} has a charge already")
        short = {name: need for name, need in needs.items() if need > max(0, self.room(name))}
        if short:
            raise BrokenBooks(f"no room for {worker_id}: {short} in {self!r}")
        self._charges[worker_id] = dict(needs)

    def correct(self, worker_id: str, measured: Bytes) -> None:
        """Replace the charge on measured devices by the truth, even where it breaks a budget."""
        self._charges[worker_id].update(measured)

    def release(self, worker_id: str) -> None:
        """The worker is gone; its charge is free. Raises BrokenBooks when it had none."""
        if self._charges.pop(worker_id, None) is None:
            raise BrokenBooks(f"{worker_id} has no charge to release")

    def observe(self, readings: Mapping[str, DeviceReading]) -> None:
        """Take note of what other programs leave: the free part and what our workers hold."""
        self._others.update({name: r.free + r.ours for name, r in readings.items()})
