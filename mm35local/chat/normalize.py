"""Any history a client can send becomes one every model knows: [system] user (assistant user)* [assistant].

Deterministic, idempotent, and append-only where the history is: a message added at the end leaves everything
before it as it was, so the engine's prefix cache stays valid.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm35local.chat.messages import Message, Role
from mm35local.errors import RequestError

_SYSTEM = (Role.SYSTEM, Role.DEVELOPER)
_JOINT = "\n\n"


def normalize(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Leading system and developer messages become one, later ones and tool results are read as the user's words.

    Neighbours of one role are joined by a blank line; assistant messages that say nothing are left out; a history
    that begins with the assistant gets an empty user message before it. A last assistant message stays: the model
    continues it. Raises RequestError if there is no message at all.
    """
    if not messages:
        raise RequestError("expected at least one message, found none", "messages", hint="send a user message")
    num_system = next((i for i, message in enumerate(messages) if message.role not in _SYSTEM), len(messages))
    system = _joined([Message(Role.SYSTEM, message.content) for message in messages[:num_system]])
    turns = _turns(messages[num_system:])
    if not turns or turns[0].role is Role.ASSISTANT:
        turns.insert(0, Message(Role.USER, ""))
    return ((system,) if system is not None and system.content else ()) + tuple(turns)


def _turns(messages: Sequence[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in messages:
        if message.role is Role.ASSISTANT:
            if not (message.content or message.thinking):
                continue
            turn = message
        else:
            turn = Message(Role.USER, message.content)
        if turns and turns[-1].role is turn.role:
            turns[-1] = _join(turns[-1], turn)
        else:
            turns.append(turn)
    return turns


def _joined(messages: Sequence[Message]) -> Message | None:
    if not messages:
        return None
    joined = messages[0]
    for message in messages[1:]:
        joined = _join(joined, message)
    return joined


def _join(first: Message, second: Message) -> Message:
    return Message(
        first.role,
        _JOINT.join(filter(None, (first.content, second.content))),
        _JOINT.join(filter(None, (first.thinking, second.thinking))),
    )
