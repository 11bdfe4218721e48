"""Cells that forks share are counted once: held against a model where every cell has a number."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine.cells import CellTree

NUM_SEQUENCES = 5
operations = st.lists(
    st.tuples(
        st.sampled_from(["append", "fork", "trim"]),
        st.integers(0, NUM_SEQUENCES - 1),
        st.integers(0, NUM_SEQUENCES - 1),
        st.integers(0, 12),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(operations)
def test_shared_cells_are_counted_once(operations: list[tuple[str, int, int, int]]) -> None:
    tree = CellTree()
    model: list[list[int]] = [[] for _ in range(NUM_SEQUENCES)]
    num_made = 0
    for name, sequence, other, number in operations:
        if name == "append":
            tree.append(sequence, number)
            model[sequence] += range(num_made, num_made + number)
            num_made += number
        elif name == "trim" or sequence == other:
            tree.trim(sequence, number)
            del model[sequence][number:]
        else:
            tree.trim(other, 0)
            num_shared = min(number, len(model[sequence]))
            tree.fork(sequence, other, num_shared)
            model[other] = model[sequence][:num_shared]
        assert tree.fault() is None
        check(tree, model)


def check(tree: CellTree, model: list[list[int]]) -> None:
    assert tree.num_used == len({cell for cells in model for cell in cells})
    every = [cell for cells in model for cell in cells]
    assert tree.num_shared == sum(every.count(cell) > 1 for cell in set(every))
    for sequence, cells in enumerate(model):
        others = {cell for other, held in enumerate(model) if other != sequence for cell in held}
        assert tree.num_tokens(sequence) == len(cells)
        assert tree.num_own(sequence) == len(set(cells) - others)
        held = {*cells, *model[0]}
        assert tree.num_held([sequence, 0]) == len(held)
        half = len(model[1]) // 2
        assert tree.num_held([sequence, 0], (1, half)) == len({*held, *model[1][:half]})


def test_a_broken_count_is_told() -> None:
    tree = CellTree()
    tree.append(0, 5)
    tree.fork(0, 1, 3)
    assert tree.fault() is None
    tree.num_used += 1
    assert tree.fault() == "5 cells are used, 6 are booked"
