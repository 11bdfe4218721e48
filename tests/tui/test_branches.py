from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mm35local.tui.branches import Branches
from mm35local.tui.records import Message, Role


def _message(number: int, parent: int) -> Message:
    return Message(Role.USER, str(number), id=number, parent_id=parent)


def test_versions_stand_side_by_side() -> None:
    tree = Branches([_message(1, 0), _message(2, 1), _message(3, 2), _message(4, 1), _message(5, 4), _message(6, 4)])
    assert [m.id for m in tree.path(3)] == [1, 2, 3]
    assert [m.id for m in tree.path(0)] == [1, 4, 6]
    assert tree.siblings(2) == tree.siblings(4) == [2, 4]
    assert tree.beside(2, 1) == 4
    assert tree.beside(2, -1) is tree.beside(4, 1) is None
    assert tree.newest_leaf(2) == 3
    assert tree.siblings(99) == []


@given(st.lists(st.integers(0, 1000), max_size=60))
def test_every_message_is_on_the_path_that_ends_with_it(choices: list[int]) -> None:
    tree = Branches()
    for number, choice in enumerate(choices, start=1):
        tree.add(_message(number, choice % number))
    for number in range(1, len(choices) + 1):
        path = [m.id for m in tree.path(number)]
        assert path[-1] == number
        assert path == sorted(path)
        assert number in tree.siblings(number)
        assert number in [m.id for m in tree.path(tree.newest_leaf(number))]
    assert len(tree) == len(choices)
