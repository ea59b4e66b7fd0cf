"""What one pass of the decision tree has to give: room that is there, and room that is coming.

Made for one pass and thrown away. Claims are made in the order of turns, so what is claimed for the
first cannot be taken by those behind it.
"""

from __future__ import annotations

from collections.abc import Iterable

from swapper.core.ledger import Ledger
from swapper.core.registry import Bytes
from swapper.core.worker import Worker


class Room:
    """Owner of one pass's claims."""

    def __init__(self, ledger: Ledger, workers: Iterable[Worker]) -> None:
        self._ledger = ledger
        self._claimed: dict[str, int] = {}
        self._coming: dict[str, int] = {}  # with workers that leave
        for worker in workers:
            if worker.is_leaving:
                self.expect(ledger.charge_of(worker.id), worker.asleep)

    def expect(self, holds: Bytes, keeps: Bytes) -> None:
        """A worker that holds so much is on its way out; this it keeps, where it goes to sleep."""
        for name, size in holds.items():
            self._coming[name] = self._coming.get(name, 0) + size - keeps.get(name, 0)

    def claim(self, needs: Bytes) -> None:
        """Set so much aside for the model whose turn it was, started or not."""
        for name, size in needs.items():
            self._claimed[name] = self._claimed.get(name, 0) + size

    def fits(self, needs: Bytes) -> bool:
        """Whether a worker may start now."""
        return all(need <= self.now(name) for name, need in needs.items())

    def missing(self, needs: Bytes) -> dict[str, int]:
        """What will still be short when all that leave are gone; empty when it is only a wait."""
        lacks = {name: need - self.now(name) - self._later(name) for name, need in needs.items()}
        return {name: lack for name, lack in lacks.items() if lack > 0}

    def now(self, name: str) -> int:
        """What of a device may be given now."""
        return self._ledger.room(name) - self._claimed.get(name, 0)

    def _later(self, name: str) -> int:
        return self._coming.get(name, 0) + self._ledger.returning(name)
