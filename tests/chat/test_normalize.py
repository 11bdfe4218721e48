from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.messages import Message, Role
from mm35local.chat.normalize import normalize
from mm35local.errors import RequestError

MESSAGES = st.builds(Message, st.sampled_from(Role), st.text(max_size=5), st.just("") | st.text(max_size=3))
HISTORIES = st.lists(MESSAGES, min_size=1, max_size=8)


def told(*messages: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(Role(role), content) for role, content in messages)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ((("user", "a"), ("user", "b")), (("user", "a\n\nb"),)),
        ((("system", "s"), ("developer", "d"), ("user", "a")), (("system", "s\n\nd"), ("user", "a"))),
        ((("user", "a"), ("system", "s"), ("user", "b")), (("user", "a\n\ns\n\nb"),)),
        ((("user", "a"), ("assistant", ""), ("user", "b")), (("user", "a\n\nb"),)),
        ((("assistant", "hi"), ("user", "a")), (("user", ""), ("assistant", "hi"), ("user", "a"))),
        ((("user", "a"), ("assistant", "b"), ("tool", "r")), (("user", "a"), ("assistant", "b"), ("user", "r"))),
        ((("tool", "r"), ("user", "a")), (("user", "r\n\na"),)),
        ((("system", "s"),), (("system", "s"), ("user", ""))),
        ((("system", ""), ("user", "a")), (("user", "a"),)),
        ((("user", "a"), ("assistant", "b")), (("user", "a"), ("assistant", "b"))),
    ],
)
def test_shapes_that_clients_send(history: tuple[tuple[str, str], ...], expected: tuple[tuple[str, str], ...]) -> None:
    assert normalize(told(*history)) == told(*expected)


def test_thinking_is_kept_with_its_answer() -> None:
    history = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "", "hm"), Message(Role.ASSISTANT, "b", "so"))
    assert normalize(history) == (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b", "hm\n\nso"))


def test_no_message_is_an_error() -> None:
    with pytest.raises(RequestError, match="at least one message") as caught:
        normalize(())
    assert caught.value.field == "messages"


@given(HISTORIES)
def test_the_result_alternates_and_begins_with_the_user(history: list[Message]) -> None:
    roles = [message.role for message in normalize(history)]
    turns = roles[1:] if roles[0] is Role.SYSTEM else roles
    assert turns == [(Role.USER, Role.ASSISTANT)[i % 2] for i in range(len(turns))]
    assert turns


@given(HISTORIES)
def test_twice_is_once(history: list[Message]) -> None:
    once = normalize(history)
    assert normalize(once) == once


@given(HISTORIES)
def test_every_text_survives(history: list[Message]) -> None:
    everything = "\0".join(message.content for message in normalize(history))
    assert all(message.content in everything for message in history)


@given(HISTORIES, MESSAGES)
def test_a_message_more_changes_only_the_end(history: list[Message], more: Message) -> None:
    """So the prompt of the next turn begins with this one's. (A system message right after others joins them.)"""
    before, after = normalize(history), normalize([*history, more])
    if any(message.role not in (Role.SYSTEM, Role.DEVELOPER) for message in history):
        assert after[: len(before) - 1] == before[:-1]
