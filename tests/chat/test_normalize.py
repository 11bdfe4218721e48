from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given

from mm35local.chat.call_ids import is_legal
from mm35local.chat.calls import NO_RESULT
from mm35local.chat.messages import Message, Role
from mm35local.chat.normalize import BRIDGE, History, normalize
from mm35local.chat.notes import Change, Note
from mm35local.chat.tools import ToolCall
from mm35local.errors import RequestError
from tests.chat.histories import HISTORIES, messages

A, B = ToolCall("aaaaaaaaa", "f", "{}"), ToolCall("bbbbbbbbb", "g", '{"x": 1}')


def told(*history: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(Role(role), content) for role, content in history)


def user(text: str = "U") -> Message:
    return Message(Role.USER, text)


def assistant(text: str = "", *calls: ToolCall) -> Message:
    return Message(Role.ASSISTANT, text, "", calls)


def result(text: str, call: ToolCall | None = None, id_: str = "") -> Message:
    return Message(Role.TOOL, text, tool_call_id=call.id if call else id_, name=call.name if call else "")


def changes(history: History) -> list[Change]:
    return [note.change for note in history.notes]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ((("user", "a"), ("user", "b")), (("user", "a\n\nb"),)),
        ((("system", "s"), ("developer", "d"), ("user", "a")), (("system", "s\n\nd"), ("user", "a"))),
        ((("user", "a"), ("system", "s"), ("user", "b")), (("user", "a\n\ns\n\nb"),)),
        ((("user", "a"), ("assistant", ""), ("user", "b")), (("user", "a\n\nb"),)),
        ((("assistant", "hi"), ("user", "a")), (("user", ""), ("assistant", "hi"), ("user", "a"))),
        ((("system", "s"),), (("system", "s"), ("user", ""))),
        ((("system", ""), ("user", "a")), (("user", "a"),)),
        ((("user", "a"), ("assistant", "b")), (("user", "a"), ("assistant", "b"))),
        ((("user", "half \ud83d"),), (("user", "half \ufffd"),)),
    ],
)
def test_shapes_without_tools(history: tuple[tuple[str, str], ...], expected: tuple[tuple[str, str], ...]) -> None:
    assert normalize(told(*history)).messages == told(*expected)


@pytest.mark.parametrize(
    ("history", "expected", "noted"),
    [
        ([user(), assistant("", A), result("r", A)], None, []),
        ([user(), assistant("", A, B), result("1", A), result("2", B), assistant("done")], None, []),
        (
            [user(), assistant("", A), result("r", A), user("stop")],
            [user(), assistant("", A), result("r", A), assistant(BRIDGE), user("stop")],
            [Change.BRIDGED],
        ),
        (
            [user(), assistant("", A), user("stop")],
            [user(), assistant("", A), result(NO_RESULT, A), assistant(BRIDGE), user("stop")],
            [Change.RESULT_ADDED, Change.BRIDGED],
        ),
        (
            [user(), assistant("", A, B), result("2", B), result("1", A)],
            [user(), assistant("", A, B), result("1", A), result("2", B)],
            [Change.MOVED],
        ),
        (
            [user(), assistant("", A, B), result("2", B)],
            [user(), assistant("", A, B), result(NO_RESULT, A), result("2", B)],
            [Change.RESULT_ADDED],
        ),
        (
            [user(), assistant("", A), assistant("", B), result("1", A), result("2", B)],
            [user(), assistant("", A, B), result("1", A), result("2", B)],
            [Change.MERGED],
        ),
        (
            [user(), assistant("", A, B), result("1"), result("2")],
            [user(), assistant("", A, B), result("1", A), result("2", B)],
            [Change.MATCHED, Change.MATCHED],
        ),
        (
            [user(), assistant("", A), result("1", A), Message(Role.SYSTEM, "hurry")],
            [user(), assistant("", A), result("1", A), assistant(BRIDGE), user("hurry")],
            [Change.FOLDED, Change.BRIDGED],
        ),
    ],
)
def test_calls_and_results_are_paired(history: list[Message], expected: list[Message] | None, noted: object) -> None:
    normal = normalize(history)
    assert list(normal.messages) == (history if expected is None else expected)
    assert changes(normal) == noted


def test_a_result_without_a_call_gets_one() -> None:
    normal = normalize([user(), Message(Role.TOOL, "42", tool_call_id="call_1", name="sum")])
    call = normal.messages[1].tool_calls[0]
    assert (call.name, call.arguments, is_legal(call.id)) == ("sum", "{}", True)
    assert normal.messages[2] == result("42", call)
    assert changes(normal) == [Change.CALL_ADDED]


def test_a_late_result_keeps_the_name_of_its_call() -> None:
    normal = normalize([user(), assistant("", B), user("hm"), result("late", id_=B.id)])
    assert [message.role.value for message in normal.messages][3:] == ["assistant", "user", "assistant", "tool"]
    assert normal.messages[-2].tool_calls[0].name == "g"
    assert normal.messages[-1].content == "late"


def test_any_id_becomes_nine_letters_and_digits_and_the_same_ones_again() -> None:
    odd = ToolCall("call_0", "f", "{}")
    history = [user(), assistant("", odd), result("1", id_="call_0"), assistant("", odd), result("2", id_="call_0")]
    normal = normalize(history)
    ids = [call.id for message in normal.messages for call in message.tool_calls]
    assert len(set(ids)) == 2
    assert all(map(is_legal, ids))
    assert [m.tool_call_id for m in normal.messages if m.role is Role.TOOL] == ids
    assert normalize(history) == normal
    assert Counter(changes(normal)) == {Change.ID_MAPPED: 2}


@pytest.mark.parametrize(
    ("arguments", "legal"),
    [
        ("", "{}"),
        ('{"a":1}', '{"a":1}'),
        ('{"a":', '{"arguments": "{\\"a\\":"}'),
        ("[1]", '{"arguments": "[1]"}'),
        ("1" * 5000, '{"arguments": "' + "1" * 5000 + '"}'),
        ('{"x": "\\ud83d"}', '{"x": "\ufffd"}'),
        ("[" * 100_000, '{"arguments": "' + "[" * 100_000 + '"}'),
    ],
)
def test_arguments_are_a_json_object(arguments: str, legal: str) -> None:
    normal = normalize([user(), assistant("", ToolCall("aaaaaaaaa", "f", arguments)), result("r", A)])
    assert normal.messages[1].tool_calls[0].arguments == legal
    assert changes(normal) == ([] if arguments == legal else [Change.REPAIRED])


def test_thinking_is_kept_with_its_answer() -> None:
    history = (Message(Role.USER, "a"), Message(Role.ASSISTANT, "", "hm"), Message(Role.ASSISTANT, "b", "so"))
    assert normalize(history).messages == (Message(Role.USER, "a"), Message(Role.ASSISTANT, "b", "hm\n\nso"))


def test_notes_say_which_message() -> None:
    assert normalize(told(("user", "a"), ("user", "b"))).notes == (Note(Change.MERGED, 1),)
    assert str(Note(Change.ID_MAPPED, 3)) == "message 3: id mapped"


def test_no_message_is_an_error() -> None:
    with pytest.raises(RequestError, match="at least one message") as caught:
        normalize(())
    assert caught.value.field == "messages"


NEXT = {
    Role.SYSTEM: {Role.USER},
    Role.USER: {Role.ASSISTANT},
    Role.ASSISTANT: {Role.USER, Role.TOOL},
    Role.TOOL: {Role.TOOL, Role.ASSISTANT},
}


@given(HISTORIES)
def test_the_result_is_a_legal_history(history: list[Message]) -> None:
    normal = normalize(history).messages
    assert normal[0].role in (Role.SYSTEM, Role.USER)
    assert all(after.role in NEXT[before.role] for before, after in pairwise(normal))
    for i, message in enumerate(normal):
        calls = message.tool_calls
        results = normal[i + 1 : i + 1 + len(calls)]
        assert [(r.role, r.tool_call_id, r.name) for r in results] == [(Role.TOOL, c.id, c.name) for c in calls]
    num_results = sum(message.role is Role.TOOL for message in normal)
    ids = [call.id for message in normal for call in message.tool_calls]
    assert len(ids) == num_results == len(set(ids))
    assert all(map(is_legal, ids))


@given(HISTORIES)
def test_twice_is_once(history: list[Message]) -> None:
    once = normalize(history).messages
    assert normalize(once) == History(once, ())


@given(HISTORIES)
def test_every_text_survives(history: list[Message]) -> None:
    normal = normalize(history).messages
    everything = "\0".join(text for message in normal for text in (message.content, message.thinking))
    whole = [text for message in history for text in (message.content, message.thinking) if "\ud83d" not in text]
    assert all(text in everything for text in whole)
    assert sum(len(m.tool_calls) for m in normal) >= sum(len(m.tool_calls) for m in history)
    assert sum(m.role is Role.TOOL for m in normal) >= sum(m.role is Role.TOOL for m in history)


@given(HISTORIES, messages())
def test_a_message_more_changes_only_the_end(history: list[Message], more: Message) -> None:
    """So the prompt of the next turn begins with this one's. (A system message right after others joins them.)

    Calls are open until somebody else speaks: their stubs are part of the end.
    """
    before, after = normalize(history).messages, normalize([*history, more]).messages
    if all(message.role in (Role.SYSTEM, Role.DEVELOPER) for message in history):
        return
    end = len(before) - 1
    while end and before[end].role is Role.TOOL:
        end -= 1
    assert after[:end] == before[:end]
