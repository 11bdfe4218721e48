"""The messages of one conversation as a tree: editing a question or asking again opens a branch beside the old one.

Pure: the history stores what this computes. Ids grow with time, so the newest of several is the largest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from mm35local.tui.records import Message


class Branches:
    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._messages: dict[int, Message] = {}
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> None:
        """Put it after its parent; a message that is known is replaced in its place."""
        if message.id not in self._messages:
            self._children[message.parent_id].append(message.id)
        self._messages[message.id] = message

    @property
    def messages(self) -> list[Message]:
        """All of them, each after its parent."""
        return sorted(self._messages.values(), key=lambda message: message.id)

    def path(self, leaf_id: int) -> list[Message]:
        """From the first message to `leaf_id`; of an unknown one, the newest path."""
        at = leaf_id if leaf_id in self._messages else self.newest_leaf(0)
        steps: list[Message] = []
        while message := self._messages.get(at):
            steps.append(message)
            at = message.parent_id
        return steps[::-1]

    def siblings(self, message_id: int) -> list[int]:
        """The messages that stand at this place, oldest first; itself among them."""
        message = self._messages.get(message_id)
        return list(self._children[message.parent_id]) if message else []

    def newest_leaf(self, message_id: int) -> int:
        """The end of the newest branch below a message (0: of the whole conversation)."""
        while children := self._children.get(message_id):
            message_id = max(children)
        return message_id

    def beside(self, message_id: int, step: int) -> int | None:
        """The sibling `step` further on; None past either end."""
        siblings = self.siblings(message_id)
        if message_id not in siblings:
            return None
        place = siblings.index(message_id) + step
        return siblings[place] if 0 <= place < len(siblings) else None

    def __len__(self) -> int:
        return len(self._messages)
