"""The books of everything that is limited: bytes per device, and how many models a group may load.

A worker's charge is set aside before it starts and stays until its processes are gone, so the sum of
charges never passes a budget by the scheduler's doing. What other programs hold of a device, as last
read, comes off its budget too. Counters (`group:NAME`) are entries like any other.

A GPU gives the memory of a process back some time after the process is gone. So what a worker held
of one is *returning* when its charge is released: it is given to nobody before the device was read
and shows it free. What is not back after `RETURN_S` is taken for another program's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from swapper.core.events import DevicesRead
from swapper.core.registry import Bytes, is_gpu

RETURN_S = 5.0


class BrokenBooks(Exception):
    """The ledger was told something that cannot be; going on would over-commit."""


@dataclass(slots=True)
class _Returning:
    """Memory of one GPU, held by workers that are gone."""

    whole: int  # what the device leaves us when all of it is back
    until: float = -math.inf
    unread: list[tuple[float, int]] = field(default_factory=list)  # when, and how many bytes


@dataclass(frozen=True, slots=True)
class _Loan:
    """Memory promised to another program, and what we could have had when that was promised."""

    memory: Bytes
    unlent: Bytes


class Ledger:
    """Owner of all charges. Budgets and charges are bytes, or counts for `group:` entries."""

    def __init__(self, budgets: Bytes) -> None:
        self._budgets = dict(budgets)
        self._charges: dict[str, dict[str, int]] = {}  # by worker
        self._left: dict[str, int] = {}  # by device: bytes that other programs leave us, as read
        self._returning: dict[str, _Returning] = {}  # by device
        self._loans: dict[str, _Loan] = {}

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

    def lend(self, loan: str, memory: Bytes) -> None:
        """From now on so much of what could be ours is not, whether workers hold it or not."""
        unlent = {name: self._unlent(name) for name in memory}
        self._loans[loan] = _Loan(dict(memory), unlent)

    def take_back(self, loan: str) -> None:
        """The loan is over. Ending one twice is nothing."""
        self._loans.pop(loan, None)

    def lent(self, name: str) -> int:
        """How much of a device is lent."""
        return sum(loan.memory.get(name, 0) for loan in self._loans.values())

    def capacity(self, name: str) -> int:
        """The budget, or what other programs leave of the device where that is less; what is
        returning is nobody's, and what is lent is not ours.

        Whoever has borrowed is one of the other programs once it takes what it was lent, so that what
        the others left when it was lent counts, less the loan, until they leave less.
        """
        unlent = self._unlent(name)
        before = [loan.unlent[name] for loan in self._loans.values() if name in loan.unlent]
        if not before:
            return unlent
        return max(0, min(unlent, min(before) - self.lent(name)))

    def _unlent(self, name: str) -> int:
        budget = self.budget(name)
        left = self._left.get(name, budget)
        if (returning := self._returning.get(name)) is not None:
            left -= sum(size for _, size in returning.unread)
        return min(budget, left)

    def overdrawn(self, name: str) -> int:
        """What is charged of a device beyond what other programs leave of it."""
        left = self._left.get(name)
        return 0 if left is None else max(0, self.charged(name) - left)

    def returning(self, name: str) -> int:
        """Bytes of a device that are expected back any moment."""
        returning = self._returning.get(name)
        whole = 0 if returning is None else min(self.budget(name), returning.whole)
        return max(0, whole - self._unlent(name))

    @property
    def returns_until(self) -> float:
        """When the first device is no longer waited for; infinity when nothing is returning."""
        if not self._returning:  # as a rule; this is asked for at every event
            return math.inf
        return min(r.until for r in self._returning.values())

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
        self._charges[worker_id] = {}
        self.grow(worker_id, needs)

    def grow(self, worker_id: str, needs: Bytes) -> None:
        """Set aside what the worker's charge falls short of `needs`. Raises BrokenBooks when there is
        no room for it."""
        charge = self._charges[worker_id]
        more = {name: need - charge.get(name, 0) for name, need in needs.items()}
        short = {name: size for name, size in more.items() if size > max(0, self.room(name))}
        if short:
            raise BrokenBooks(f"no room for {worker_id}: {short} in {self!r}")
        charge.update({name: max(need, charge.get(name, 0)) for name, need in needs.items()})

    def correct(self, worker_id: str, measured: Bytes) -> None:
        """Replace the charge on measured devices by the truth, even where it breaks a budget."""
        self._charges[worker_id].update(measured)

    def shrink(self, worker_id: str, holds: Bytes, now: float) -> None:
        """The worker is still there and holds no more than this. What it gave back is free, or
        returning where it is of a GPU that is read."""
        self._give_back(self._charges[worker_id], holds, now)
        self._charges[worker_id] = dict(holds)

    def release(self, worker_id: str, now: float) -> None:
        """The worker is gone; as `shrink` to nothing. Raises BrokenBooks when it had no charge."""
        charge = self._charges.pop(worker_id, None)
        if charge is None:
            raise BrokenBooks(f"{worker_id} has no charge to release")
        self._give_back(charge, {}, now)

    def _give_back(self, charge: Bytes, holds: Bytes, now: float) -> None:
        for name, size in charge.items():
            freed = size - holds.get(name, 0)
            if freed > 0 and is_gpu(name) and name in self._left:
                returning = self._returning.setdefault(name, _Returning(self._left[name]))
                returning.unread.append((now, freed))
                returning.until = now + RETURN_S

    def observe(self, read: DevicesRead) -> None:
        """Take note of what other programs leave: the free part and what our workers hold, as far as it
        is charged to them. What they hold beyond that is given to nobody either."""
        for name, reading in read.readings.items():
            ours = min(reading.ours, self.charged(name)) if is_gpu(name) else reading.ours
            self._left[name] = reading.free + ours
            if (returning := self._returning.get(name)) is not None:
                # A reading begun before a worker's end may count its memory as ours still.
                returning.unread = [(t, n) for t, n in returning.unread if t >= read.began_at]
                if not returning.unread and self._left[name] >= returning.whole:
                    del self._returning[name]

    def stop_waiting(self, now: float) -> None:
        """What has not come back in time is not waited for any longer."""
        if self.returns_until <= now:
            kept = {n: r for n, r in self._returning.items() if r.until > now}
            self._returning = kept
