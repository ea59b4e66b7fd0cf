"""How long a model keeps its place while others wait for it: the rule against thrashing.

Let C be the measured cost of one swap (the load of the one that goes, paid again when it comes back,
and the load of the one that comes). A worker that became ready at r

  1. keeps its place until r + QUANTUM * C while it answers, and
  2. while it is idle, for `hold` seconds after its last answer: a little more than the pauses that
     its clients were seen to make, if those are shorter than C, and
  3. has no claim after r + QUANTUM * C, nor when somebody has waited for `max_wait`.

So of the time that others wait, at most 1 / (1 + QUANTUM) is lost to swapping while anyone is busy,
and nobody waits for one model longer than QUANTUM * C and its longest answer. A model that nobody
waits for keeps its place anyway: then nothing of this is asked.
"""

from __future__ import annotations

from swapper.core.demand import Demand
from swapper.core.worker import Worker

QUANTUM = 1.0  # of the swap's cost, out and back
SHORTEST_HOLD = 0.02  # of the swap's cost: what is held before any pause was seen
GAP_MARGIN = 1.25


def swap_cost_s(resident: Demand, waiting: Demand) -> float:
    """Seconds lost by letting `waiting` in and `resident` back later."""
    return resident.load_s + waiting.load_s


def movable_at(worker: Worker, resident: Demand, waiting: Demand) -> float:
    """From when on a READY worker may be moved out for `waiting`, as things stand."""
    ready_at = worker.ready_at or worker.started_at
    cost = swap_cost_s(resident, waiting)
    claim_ends = ready_at + QUANTUM * cost
    if waiting.spec.max_wait_s is not None and waiting.waits_since is not None:
        claim_ends = min(claim_ends, waiting.waits_since + waiting.spec.max_wait_s)
    if worker.idle_since is None:
        return claim_ends
    return min(claim_ends, worker.idle_since + hold_s(resident, cost))


def hold_s(resident: Demand, cost_s: float) -> float:
    """How long an idle worker is held for the next request of clients that pause."""
    return max(SHORTEST_HOLD * cost_s, GAP_MARGIN * resident.gap_s)
