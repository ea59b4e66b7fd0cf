"""Memory that is lent to other programs for a while: asked for, waited for, taken back.

Which loans there are is in the scheduler's books, as everything that is charged; here it is waited
until a loan's memory is free.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

from swapper.core import events as ev
from swapper.core.books import Books
from swapper.runtime.crew import Crew

LOOK_EVERY_S = 0.1  # at whether lent memory is free: devices tell by their readings


class Loans:
    """Lends, and takes back."""

    def __init__(
        self, books: Books, crew: Crew, tell: Callable[[ev.Event], None], clock: Callable[[], float]
    ) -> None:
        self._books = books
        self._crew = crew
        self._tell = tell
        self._clock = clock

    async def lend(self, memory: Mapping[str, int], for_s: float, within_s: float) -> str | None:
        """Give up so many bytes by device for a while; returns the loan's id as soon as they are free,
        and None, with nothing lent, if that takes longer. Raises ValueError on an unknown device."""
        if unknown := memory.keys() - self._books.registry.budgets.keys():
            raise ValueError(f"there is no device {', '.join(sorted(unknown))}")
        loan, deadline = secrets.token_hex(8), self._clock() + within_s
        self._tell(ev.MemoryLent(loan, memory, self._clock() + for_s))
        try:
            while any(self._books.ledger.room(name) < 0 for name in memory):
                left = deadline - self._clock()
                if left <= 0:
                    self.take_back(loan)
                    return None
                await self._crew.changed(min(left, LOOK_EVERY_S))
        except asyncio.CancelledError:  # whoever asked has gone, and knows no id to give it back by
            self.take_back(loan)
            raise
        return loan

    def take_back(self, loan: str) -> bool:
        """The loan is over; False if there is none of that id."""
        is_known = loan in self._books.loans
        self._tell(ev.MemoryTakenBack(loan))
        return is_known
