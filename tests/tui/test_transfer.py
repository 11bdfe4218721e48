"""Conversations out of the chat and into it: export, and the exports of other programs."""

from __future__ import annotations

import json
import resource
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.errors import UsageError
from mm35local.tui.attachments import fenced
from mm35local.tui.branches import Branches
from mm35local.tui.export import as_json, as_markdown, tree_as_json, write_new
from mm35local.tui.imports import read_export
from mm35local.tui.records import Attachment, Message, MessageState, Outcome, Role, ToolCall, as_path
from mm35local.types import Usage

OUTCOME = Outcome(MessageState.STOPPED, Usage(1, 2, 0), 1.5, "?", True)
PATH = as_path(
    [
        Message(Role.USER, "Look:", attachments=(Attachment("a.py", "text/plain", "print('```')\n"),), created_at=5.0),
        Message(Role.ASSISTANT, "It prints.\n", "hm\n\nah", "m", OUTCOME, created_at=6.0),
        Message(Role.ASSISTANT, "", tool_calls=(ToolCall("look", '{"x": 1}', "abc"),), created_at=7.0),
    ]
)

CHATGPT = [
    {
        "title": "Cats",
        "create_time": 100.0,
        "update_time": 200.0,
        "current_node": "d",
        "mapping": {
            "root": {"id": "root", "parent": None, "message": None},
            "s": {"parent": "root", "message": {"author": {"role": "system"}, "content": {"parts": [""]}}},
            "a": {
                "parent": "s",
                "message": {
                    "author": {"role": "user"},
                    "create_time": 101.5,
                    "content": {"content_type": "multimodal_text", "parts": [{"asset_pointer": "x"}, "cats\ud800?"]},
                },
            },
            "b": {"parent": "a", "message": {"author": {"role": "assistant"}, "content": {"parts": ["old"]}}},
            "c": {
                "parent": "a",
                "message": {"author": {"role": "tool"}, "content": {"content_type": "code", "text": "x"}},
            },
            "d": {
                "parent": "c",
                "message": {
                    "author": {"role": "assistant"},
                    "create_time": 102.0,
                    "metadata": {"model_slug": "other-4"},
                    "content": {"content_type": "text", "parts": ["new"]},
                },
            },
        },
    },
    {"title": "empty", "mapping": {}},
]

LE_CHAT = [
    {
        "id": "2",
        "chatId": "c",
        "role": "assistant",
        "content": "",
        "contentChunks": [{"type": "text", "text": "Bon"}, {"type": "text", "text": "jour."}, {"type": "image"}],
        "createdAt": "2025-03-01T10:00:05.000Z",
    },
    {"id": "1", "chatId": "c", "role": "user", "content": "Dis bonjour.", "createdAt": "2025-03-01T10:00:00.000Z"},
]


def _own(**fields: object) -> str:
    said = [{"role": "user", "content": "?"}]
    return json.dumps({"format": "mm35local-conversation", "version": 2, "messages": said, **fields})


def _written(tmp_path: Path, document: object, name: str = "x.json") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return path


def test_our_own_json_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_new(path, as_json("The [title]", PATH))
    [back] = read_export(path)
    assert (back.title, back.messages, back.at) == ("The [title]", PATH, 7.0)
    with pytest.raises(UsageError, match="File exists"):
        write_new(path, "again")


def test_a_full_disk_leaves_no_half_of_an_export(tmp_path: Path) -> None:
    path = tmp_path / "out.md"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(UsageError, match="too large"):
            write_new(path, "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not path.exists()


@given(st.data())
def test_all_branches_come_back(data: st.DataObject) -> None:
    parents = [data.draw(st.integers(0, place)) for place in range(data.draw(st.integers(1, 12)))]
    ids = [3 * place + 5 for place in range(len(parents))]
    tree = [
        Message(Role.USER, f"m{place}", id=ids[place], parent_id=ids[parent - 1] if parent else 0)
        for place, parent in enumerate(parents)
    ]
    shown = data.draw(st.sampled_from(tree))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tree.json"
        write_new(path, tree_as_json("t", tree, shown.id))
        [back] = read_export(path)
    assert [m.content for m in back.messages] == [m.content for m in tree]
    branches, again = Branches(tree), Branches(back.messages)
    assert [m.content for m in again.path(back.shown_id)] == [m.content for m in branches.path(shown.id)]
    for old, new in zip(tree, back.messages, strict=True):
        assert [m.content for m in again.path(new.id)] == [m.content for m in branches.path(old.id)]


def test_markdown_reads_well() -> None:
    assert as_markdown("Title", PATH).startswith(
        "# Title\n\n## You\n\na.py\n````python\nprint('```')\n````\n\nLook:\n\n## m\n\n> hm\n>\n> ah\n\n"
    )
    assert '```json\n{"x": 1}\n```' in as_markdown("Title", PATH)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_text_ends_its_own_fence(text: str) -> None:
    lines = fenced(Attachment("a", "text/plain", text)).split("\n")
    fence = lines[1]
    assert lines[-1] == fence
    assert fence not in "\n".join(lines[2:-1])


def test_chatgpt(tmp_path: Path) -> None:
    for path in (_written(tmp_path, CHATGPT), _zipped(tmp_path, "export/conversations.json", CHATGPT)):
        [cats] = read_export(path)
        assert (cats.title, cats.at) == ("Cats", 200.0)
        assert [(m.role, m.content, m.model, m.created_at) for m in cats.messages] == [
            (Role.USER, "cats??", "", 101.5),
            (Role.ASSISTANT, "new", "other-4", 102.0),
        ]


def test_le_chat(tmp_path: Path) -> None:
    for path in (_written(tmp_path, LE_CHAT), _zipped(tmp_path, "chat-1234.json", LE_CHAT)):
        [chat] = read_export(path)
        assert chat.title == "Dis bonjour."
        assert [(m.role, m.content) for m in chat.messages] == [
            (Role.USER, "Dis bonjour."),
            (Role.ASSISTANT, "Bonjour."),
        ]


def _zipped(tmp_path: Path, name: str, document: object) -> Path:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("user.json", "{}")
        archive.writestr(name, json.dumps(document))
    return path


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", "{}", '[{"mapping": 3}]', '{"format": "mm35local-conversation"}', "\xff"),
        *(_own(version=3), _own(parents=[]), _own(parents=[0]), _own(parents=[-1]), _own(shown=1)),
    ],
)
def test_what_is_no_export_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_export(path)
    assert "can be imported" in caught.value.hint


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_export(tmp_path / "nothing.json")
