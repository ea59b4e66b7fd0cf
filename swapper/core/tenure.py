"""How long a model keeps its place while others wait for it: the rule against thrashing.

A place changes hands when staying has cost as much as changing. Let C be the measured cost of a swap
out and back: the load of the one that comes, and of the one that goes, paid again when it returns.
From the moment on at which a worker is ready and somebody waits for its room, it

  1. keeps its place for QUANTUM * C while it answers; then it drains, and takes nothing new;
  2. between answers, is held as long as would have cost least over the last pauses of its clients: a
     second of holding costs a second to each who waits, a client missed costs a load. Where that
     would outlast the quantum it goes at once, for a pause half held is lost twice;
  3. has no claim when somebody will have waited for `max_wait` by the time that it is gone, its
     answers as long as they are lately.

Of two priorities the higher has the quanta of both, the lower none: it answers, once it is up, those
who have waited for it, and drains as soon as the higher is asked for.

One who waits for any of several places lets each of them have its quantum, one after the other, so
that a place that is about to fall idle is found before another has to drain.

So every load buys a residency of twice its cost while anyone is busy, and nobody waits for another
longer than its load, its quanta, its longest answer and its stop. A model that nobody waits for
keeps its place anyway: then nothing of this is asked.
"""

from __future__ import annotations

from swapper.core.demand import Demand
from swapper.core.worker import Worker

QUANTUM = 1.0  # of the swap's cost: staying may cost one who waits as much as the swap, no more
MARGIN = 1.25  # clients are not clocks: a pause is expected to be so much longer than it was
BRIEF = 0.01  # of the swap's cost: too little to matter, so that much is held for any pause


def swap_cost_s(resident: Demand, waiting: Demand) -> float:
    """Seconds lost by letting `waiting` in and `resident` back later. A model of which nothing is
    known is taken to load like the one that is there."""
    back_s = resident.load_or()
    return back_s + waiting.load_or(back_s)


def movable_at(worker: Worker, resident: Demand, waiting: Demand, num_places: int) -> float:
    """From when on a READY worker may be moved out for `waiting`, as things stand.

    `num_places`: of how many workers any one may go for it.
    """
    cost_s = swap_cost_s(resident, waiting)
    ready_at = worker.ready_at or worker.started_at
    waits_since = ready_at if waiting.waits_since is None else waiting.waits_since
    claim_s = QUANTUM * cost_s * quanta(worker, resident, waiting)
    claim_ends = max(ready_at, waits_since) + claim_s * num_places
    if waiting.spec.max_wait_s is not None:
        leaving_s = resident.answer_s + resident.stop_s
        claim_ends = min(claim_ends, waits_since + waiting.spec.max_wait_s - leaving_s)
    if worker.idle_since is None:
        return claim_ends
    hold_ends = worker.idle_since + hold_s(resident, waiting)
    return hold_ends if hold_ends <= claim_ends else worker.idle_since


def quanta(worker: Worker, resident: Demand, waiting: Demand) -> int:
    """How many of the pair's two the resident has: both before a lower priority, none before a
    higher one."""
    urgency = worker.urgency
    if resident.queue:
        urgency = max(urgency, resident.queue.priority)
    ahead = resident.spec.priority + urgency - waiting.priority
    return 1 if ahead == 0 else 2 if ahead > 0 else 0


def hold_s(resident: Demand, waiting: Demand) -> float:
    """How long to hold an idle worker for its next client: what the last pauses say would be best."""
    brief_s = BRIEF * swap_cost_s(resident, waiting)
    pauses = [max(brief_s, MARGIN * pause_s) for pause_s in resident.pauses]
    num_waiting = max(1, len(waiting.queue))

    def cost_s(hold_s: float) -> float:
        held_s = sum(min(pause_s, hold_s) for pause_s in pauses)
        missed = sum(pause_s > hold_s for pause_s in pauses)
        return num_waiting * held_s + missed * resident.load_or()

    return min((0.0, *pauses), key=cost_s)
