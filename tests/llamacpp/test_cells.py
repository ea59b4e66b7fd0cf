"""The cell books against a plain model: a set of cells for each slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.llamacpp.cells import CellLedger

SLOTS = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), SLOTS, st.integers(1, 20)),
        st.tuples(st.just("share"), SLOTS, SLOTS, st.floats(0, 1)),
        st.tuples(st.just("release"), SLOTS),
        st.tuples(st.just("rename"), SLOTS, SLOTS),
    ),
    max_size=60,
)


@given(STEPS)
def test_agrees_with_sets_of_cells(steps: list[tuple]) -> None:
    ledger, fresh = CellLedger(10_000), iter(range(10_000))
    model: dict[int, list[int]] = {slot: [] for slot in range(6)}
    for step in steps:
        match step:
            case ("extend", slot, count):
                ledger.extend(slot, count)
                model[slot] += [next(fresh) for _ in range(count)]
            case ("share", source, target, share):
                if source == target or model[target]:
                    continue
                length = int(share * len(model[source]))
                ledger.share(source, target, length)
                model[target] = model[source][:length]
            case ("release", slot):
                before = {cell for held in model.values() for cell in held}
                model[slot] = []
                after = {cell for held in model.values() for cell in held}
                assert ledger.release(slot) == len(before) - len(after)
            case ("rename", old, new):
                if old == new or model[new]:
                    continue
                ledger.rename(old, new)
                model[new], model[old] = model[old], []
        ledger.check_integrity()
        assert ledger.used == len({cell for held in model.values() for cell in held})
        for slot, cells in model.items():
            assert ledger.length(slot) == len(cells)
        assert ledger.held_by([0, 2, 4]) == len({*model[0], *model[2], *model[4]})
