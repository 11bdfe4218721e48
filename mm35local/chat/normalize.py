"""Any history a client can send becomes one every model knows:

    [system] user (assistant (result+ assistant)* user)* [result+ | assistant]

where results answer all the calls of the assistant before them, in order. Deterministic, idempotent, and append-only
where the history is: a message added at the end leaves everything before the last one as it was, so the engine's
prefix cache stays valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mm35local.chat.call_ids import CallIds
from mm35local.chat.calls import UNKNOWN, OpenCalls, legal_call
from mm35local.chat.messages import ImageAt, Message, Role, shifted
from mm35local.chat.notes import Change, Note
from mm35local.chat.tools import ToolCall
from mm35local.chat.unicode import without_half_characters
from mm35local.errors import RequestError
from mm35local.types import Image

BRIDGE = "Understood."
_SYSTEM = (Role.SYSTEM, Role.DEVELOPER)
_JOINT = "\n\n"


@dataclass(frozen=True, slots=True)
class History:
    messages: tuple[Message, ...]
    notes: tuple[Note, ...]
    """Empty if nothing had to be changed."""


def normalize(messages: Sequence[Message]) -> History:
    """See `notes.Change` for what is done. A last assistant message without calls stays: the model continues it.

    Raises RequestError if there is no message at all.
    """
    if not messages:
        raise RequestError("expected at least one message, found none", "messages", hint="send a user message")
    num_system = next((i for i, message in enumerate(messages) if message.role not in _SYSTEM), len(messages))
    reader = _Reader()
    for i, message in enumerate(messages):
        reader.index = i
        if i < num_system:
            reader.system(message)
        else:
            reader.read(message)
    return reader.end()


class _Reader:
    """Reads a history message by message; `index` is the one it is at."""

    def __init__(self) -> None:
        self.index = 0
        self._system: list[str] = []
        self._turns: list[Message] = []
        self._notes: list[Note] = []
        self._ids = CallIds()
        self._names: dict[str, str] = {}
        """Of every call so far, by the id the client gave it."""
        self._open: OpenCalls | None = None
        """Results still to come; they are not yet among the turns."""
        self._carried: list[Image] = []
        """Images on the way to the next user message."""

    def system(self, message: Message) -> None:
        text = message.content
        self._carry(message)
        if text:
            self._system.append(self._whole(text))
        if len(self._system) > 1 and text:
            self._note(Change.MERGED)

    def read(self, message: Message) -> None:
        match message.role:
            case Role.ASSISTANT:
                self._assistant(message)
            case Role.TOOL:
                self._result(message)
            case _:
                self._user(message)

    def end(self) -> History:
        self._close()
        if not self._turns or self._carried:
            self._user(Message(Role.USER))
        system = (Message(Role.SYSTEM, _JOINT.join(self._system)),) if self._system else ()
        return History((*system, *self._turns), tuple(self._notes))

    def _user(self, message: Message) -> None:
        self._close()
        if message.role in _SYSTEM:
            self._note(Change.FOLDED)
        if self._last_role is Role.TOOL:
            self._turns.append(Message(Role.ASSISTANT, BRIDGE))
            self._note(Change.BRIDGED)
        carried = tuple(ImageAt(0, image) for image in self._carried)
        self._carried.clear()
        turn = self._whole_message(message)
        self._append(Message(Role.USER, turn.content, images=(*carried, *turn.images)))

    def _carry(self, message: Message) -> None:
        if message.images:
            self._carried += [each.image for each in message.images]
            self._note(Change.IMAGE_MOVED)

    def _assistant(self, message: Message) -> None:
        self._carry(message)
        if not (message.content or message.thinking or message.tool_calls):
            self._note(Change.LEFT_OUT)
            return
        if self._open and self._open.results:
            self._close()
        self._append(Message(Role.ASSISTANT, self._whole(message.content), self._whole(message.thinking)))
        for call in message.tool_calls:
            self._call(call)

    def _call(self, call: ToolCall) -> None:
        """Adds to the last turn, which is an assistant's."""
        legal = legal_call(call, self._ids.take(call.id))
        if legal.id != call.id:
            self._note(Change.ID_MAPPED)
        if (legal.name, legal.arguments) != (call.name, call.arguments):
            self._note(Change.REPAIRED)
        self._turns[-1] = replace(self._turns[-1], tool_calls=(*self._turns[-1].tool_calls, legal))
        self._open = self._open or OpenCalls()
        self._open.add(legal, call.id)
        self._names[call.id] = legal.name

    def _result(self, message: Message) -> None:
        place = self._place(message)
        if place is None:
            place = self._call_for(message)
        assert self._open is not None, "the result's call is open"
        self._open.answer(place, self._whole_message(message))

    def _place(self, message: Message) -> int | None:
        """Of the call that the result answers; None where there is none."""
        if self._open is None:
            return None
        place = self._open.unanswered(message.tool_call_id)
        if place is None and not (message.tool_call_id and message.tool_call_id in self._names):
            place = self._open.first_unanswered
            if place is not None:
                self._note(Change.MATCHED)
        return place

    def _call_for(self, message: Message) -> int:
        """A result that came without a call, or too late, gets one."""
        self._close()
        self._note(Change.CALL_ADDED)
        name = self._names.get(message.tool_call_id) or message.name or UNKNOWN
        if self._last_role is not Role.ASSISTANT:
            self._append(Message(Role.ASSISTANT))
        legal = legal_call(ToolCall("", name, ""), self._ids.take(message.tool_call_id))
        self._turns[-1] = replace(self._turns[-1], tool_calls=(legal,))
        self._open = OpenCalls()
        self._open.add(legal, message.tool_call_id)
        return 0

    def _close(self) -> None:
        """No more results for the open calls: those that came become turns."""
        if self._open is None:
            return
        for _ in range(len(self._open.calls) - len(self._open.results)):
            self._note(Change.RESULT_ADDED)
        if self._open.is_moved:
            self._note(Change.MOVED)
        self._turns += self._open.in_order()
        self._open = None

    def _append(self, turn: Message) -> None:
        if not self._turns and turn.role is Role.ASSISTANT:
            self._turns.append(Message(Role.USER))
            self._note(Change.USER_ADDED)
        if self._last_role is turn.role:
            self._turns[-1] = _join(self._turns[-1], turn)
            self._note(Change.MERGED)
        else:
            self._turns.append(turn)

    @property
    def _last_role(self) -> Role | None:
        return self._turns[-1].role if self._turns else None

    def _whole(self, text: str) -> str:
        whole = without_half_characters(text)
        if whole != text:
            self._note(Change.REPAIRED)
        return whole

    def _whole_message(self, message: Message) -> Message:
        """Images stay where they are between the words, however those are repaired."""
        if not message.images:
            return replace(message, content=self._whole(message.content))
        content = ""
        images: list[ImageAt] = []
        for part in message.parts:
            if isinstance(part, Image):
                images.append(ImageAt(len(content), part))
            else:
                content += self._whole(part)
        return replace(message, content=content, images=tuple(images))

    def _note(self, change: Change) -> None:
        self._notes.append(Note(change, self.index))


def _join(first: Message, second: Message) -> Message:
    """A blank line stands between two texts that would else touch."""
    is_parted = any(each.offset == len(first.content) for each in first.images) or any(
        each.offset == 0 for each in second.images
    )
    joint = _JOINT if first.content and second.content and not is_parted else ""
    content = first.content + joint + second.content
    shift = len(content) - len(second.content)
    return replace(
        first,
        content=content,
        thinking=_JOINT.join(filter(None, (first.thinking, second.thinking))),
        images=first.images + shifted(second.images, shift),
    )
