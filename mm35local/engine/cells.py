"""Which sequences hold which KV cells. Sequences that were forked share the cells of their common beginning.

    root ── 0..1500 ──┬── 1500..1620  sequence 0        1,500 + 120 + 40 cells for 3,160 positions
                     └── 1500..1540  sequence 3

A node is a run of cells; a sequence is the node its last cell is in. Invariant: `num_users` of a node counts its
children and the sequences that end in it; a node without users does not exist; `num_used` is what all nodes hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Node:
    parent: _Node | None
    first: int
    """Position of its first cell."""
    end: int
    num_users: int = 1


class CellTree:
    """Counts only; the tokens in the cells are somebody else's business."""

    def __init__(self) -> None:
        self._tips: dict[int, _Node | None] = {}
        self._held: dict[tuple[int, ...], int] = {}
        """What `num_held` told since anything changed: a step asks it several times."""
        self.num_used = 0

    def num_tokens(self, sequence: int) -> int:
        tip = self._tips.get(sequence)
        return tip.end if tip else 0

    @property
    def num_shared(self) -> int:
        """Cells that more than one sequence holds: all but those that one holds for itself."""
        return self.num_used - sum(map(self.num_own, self._tips))

    def append(self, sequence: int, num_tokens: int) -> None:
        """The sequence takes `num_tokens` new cells."""
        if not num_tokens:
            return
        self._held.clear()
        tip = self._tips.get(sequence)
        self.num_used += num_tokens
        if tip is not None and tip.num_users == 1:
            tip.end += num_tokens
        else:  # the sequence's use of the old tip becomes the new node's
            first = tip.end if tip else 0
            self._tips[sequence] = _Node(tip, first, first + num_tokens)

    def fork(self, source: int, target: int, num_tokens: int) -> None:
        """`target`, which must be empty, shares the first `num_tokens` cells of `source`."""
        assert self._tips.get(target) is None, "a fork starts from an empty sequence"
        assert num_tokens <= self.num_tokens(source), "a fork shares what there is"
        self._held.clear()
        if num_tokens:
            node = self._node_ending_at(source, num_tokens)
            node.num_users += 1
            self._tips[target] = node

    def trim(self, sequence: int, num_tokens: int) -> None:
        """The sequence keeps its first `num_tokens` cells."""
        tip = self._tips.get(sequence)
        if tip is None or num_tokens >= tip.end:
            return
        self._held.clear()
        if tip.num_users == 1 and num_tokens > tip.first:
            self.num_used -= tip.end - num_tokens
            tip.end = num_tokens
            return
        kept = self._node_ending_at(sequence, num_tokens) if num_tokens else None
        if kept is not None:
            kept.num_users += 1
        self._tips[sequence] = kept
        self._drop(tip)

    def num_own(self, sequence: int) -> int:
        """Cells at its end that no other sequence holds."""
        end = node_end = self.num_tokens(sequence)
        for node in _path(self._tips.get(sequence)):
            if node.num_users > 1:
                break
            node_end = node.first
        return end - node_end

    def num_held(self, sequences: Iterable[int], hit: tuple[int, int] | None = None) -> int:
        """Cells that at least one of `sequences` holds, or that are among the first n of s for `hit` = (s, n)."""
        if hit is None:
            key = tuple(sequences)
            if key not in self._held:
                self._held[key] = self._count_held(key, set())
            return self._held[key]
        source, num_tokens = hit
        seen: set[int] = set()
        return self._count_held(sequences, seen) + sum(
            max(0, min(node.end, num_tokens) - node.first)
            for node in _path(self._tips.get(source))
            if id(node) not in seen
        )

    def _count_held(self, sequences: Iterable[int], seen: set[int]) -> int:
        """Adds the nodes of `sequences` to those that were seen, and tells the cells of the new ones."""
        num_cells = 0
        for sequence in sequences:
            for node in _path(self._tips.get(sequence)):
                if id(node) in seen:
                    break
                seen.add(id(node))
                num_cells += node.end - node.first
        return num_cells

    def fault(self) -> str | None:
        """What contradicts the invariant; None if nothing does."""
        users: dict[int, int] = {}
        nodes: dict[int, _Node] = {}
        for tip in self._tips.values():
            self._count(tip, users, nodes)
        for node in nodes.values():
            if node.first != (node.parent.end if node.parent else 0) or node.end <= node.first:
                return f"cells {node.first}..{node.end} do not go on where their parent ends"
            if node.num_users != users[id(node)]:
                return f"cells {node.first}..{node.end} have {users[id(node)]} users, {node.num_users} are booked"
        num_used = sum(node.end - node.first for node in nodes.values())
        return None if num_used == self.num_used else f"{num_used} cells are used, {self.num_used} are booked"

    def _count(self, tip: _Node | None, users: dict[int, int], nodes: dict[int, _Node]) -> None:
        for node in _path(tip):
            users[id(node)] = users.get(id(node), 0) + 1
            if id(node) in nodes:
                break
            nodes[id(node)] = node

    def _node_ending_at(self, sequence: int, num_tokens: int) -> _Node:
        """Splits the node of the sequence that position `num_tokens` lies within."""
        node = next(node for node in _path(self._tips[sequence]) if node.first < num_tokens)
        if node.end == num_tokens:
            return node
        upper = _Node(node.parent, node.first, num_tokens)
        node.parent, node.first = upper, num_tokens
        return upper

    def _drop(self, node: _Node | None) -> None:
        """One user less; what nobody uses any more is free."""
        while node is not None:
            node.num_users -= 1
            if node.num_users:
                return
            self.num_used -= node.end - node.first
            node = node.parent


def _path(tip: _Node | None) -> Iterator[_Node]:
    """From the last cells to the first."""
    while tip is not None:
        yield tip
        tip = tip.parent
