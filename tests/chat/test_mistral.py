from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mm35local.chat import tekken
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.normalize import normalize
from mm35local.chat.tekken import build_tekkenizer, tekken_version
from mm35local.chat.tools import Tool
from mm35local.chat.vocabulary import Vocabulary
from mm35local.errors import ModelFileError
from tests.chat.histories import HISTORIES, TOOLS
from tests.fakes.metadata import mistral_metadata, mistral_tekken_text

NOW = datetime(2026, 11, 23, tzinfo=UTC)


@cache
def dialect() -> Dialect:
    return load_dialect(mistral_metadata(), "pocket.gguf")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> MistralTokenizer[Any, Any, Any, Any, Any]:
    """mistral-common on the tekken.json itself."""
    file: Path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    file.write_text(mistral_tekken_text(), encoding="utf-8")
    return MistralTokenizer.from_file(file)


def as_openai(message: Message) -> dict[str, object]:
    text = [{"type": "text", "text": message.content}] if message.content else []
    think = [{"type": "thinking", "thinking": message.thinking}] if message.thinking else []
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    more: dict[str, object] = {"tool_calls": calls} if calls else {}
    if message.role is Role.TOOL:
        more["tool_call_id"] = message.tool_call_id
    return {"role": message.role.value, "content": [*think, *text] if think else message.content, **more}


def tool_as_openai(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def with_legal_names(message: Message) -> Message:
    """The reference refuses others."""
    calls = tuple(replace(call, name=re.sub("[^a-z_]", "_", call.name)) for call in message.tool_calls)
    return replace(message, tool_calls=calls, name=re.sub("[^a-z_]", "_", message.name))


@settings(deadline=None)
@given(messages=HISTORIES, tools=TOOLS, effort=st.sampled_from(Effort))
def test_token_for_token_what_mistral_common_encodes(
    reference: MistralTokenizer[Any, Any, Any, Any, Any],
    messages: list[Message],
    tools: tuple[Tool, ...],
    effort: Effort,
) -> None:
    history = normalize(list(map(with_legal_names, messages))).messages
    if history[-1].role is Role.ASSISTANT:
        history = (*history, Message(Role.USER, "go on"))
    request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(
        {
            "messages": [as_openai(message) for message in history],
            "tools": [tool_as_openai(tool) for tool in tools] or None,
            "reasoning_effort": effort.value,
        }
    )
    expected = reference.encode_chat_completion(request).tokens
    assert list(dialect().render(Conversation(history, NOW, effort, tools))) == expected


@settings(deadline=None)
@given(messages=HISTORIES, tools=TOOLS, effort=st.sampled_from(Effort))
def test_any_history_renders_and_users_forge_no_control_token(
    messages: list[Message], tools: tuple[Tool, ...], effort: Effort
) -> None:
    harmless = [replace(m, content="x" if m.content else "", thinking="x" if m.thinking else "") for m in messages]
    harmless_tools = tuple(Tool("f") for _ in tools)
    assert _controls(messages, tools, effort) == _controls(harmless, harmless_tools, effort)


def _controls(messages: list[Message], tools: tuple[Tool, ...], effort: Effort) -> list[str | int]:
    parts = dialect().render(Conversation(tuple(messages), NOW, effort, tools))
    return [part for part in parts if isinstance(part, int) and part < 1000]


def test_a_last_assistant_message_is_continued() -> None:
    def tail(message: Message) -> tuple[str | int, ...]:
        return dialect().render(Conversation((Message(Role.USER, "U"), message), NOW))[-4:]

    assert tail(Message(Role.ASSISTANT, "One"))[-2] == 4  # [/INST], then the text and no </s>
    assert tail(Message(Role.ASSISTANT, "One", "hm"))[-4:-1] == (34, *_encoded("hm"), 35)
    assert tail(Message(Role.ASSISTANT, "", "hm"))[-2:] == (34, *_encoded("hm"))


def _encoded(text: str) -> list[str | int]:
    parts = dialect().render(Conversation((Message(Role.USER, text),), NOW))
    return list(parts[parts.index(3) + 1 : -1])


def test_ministral_without_model_settings_speaks_v13() -> None:
    metadata = mistral_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    tokens[36:38] = ["<SPECIAL_36>", "<SPECIAL_37>"]
    older = load_dialect(metadata, "ministral.gguf")
    assert not older.has_effort
    assert older.render(Conversation((Message(Role.USER, "U"),), NOW, Effort.HIGH)) == (1, 3, *_encoded("U"), 4)


def test_padding_behind_the_vocabulary_is_no_part_of_it() -> None:
    metadata = mistral_metadata()
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    tokens += ["[PAD16384]", "[PAD16385]"]
    types += [5, 5]
    conversation = Conversation((Message(Role.USER, "Hello there"),), NOW)
    assert load_dialect(metadata, "x.gguf").render(conversation) == dialect().render(conversation)


@pytest.mark.parametrize(
    ("at", "token", "problem"),
    [
        (1000, "zz", "expected the 256 single bytes"),
        (1300, "ab", "the same bytes"),
        (33, "<SPECIAL_33>", "control tokens are incomplete"),
    ],
)
def test_a_vocabulary_that_is_not_tekken_s_is_named(at: int, token: str, problem: str) -> None:
    metadata = mistral_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    tokens[at] = token
    with pytest.raises(ModelFileError, match=problem):
        load_dialect(metadata, "x.gguf")


def test_what_the_first_grammar_waits_for_can_be_done_while_loading() -> None:
    plain = load_dialect(mistral_metadata(), "pocket.gguf")
    ready = load_dialect(mistral_metadata(), "pocket.gguf", prepares_grammars=True)
    assert "_grammars" not in vars(plain)
    assert "_grammars" in vars(ready)


def test_a_text_that_comes_again_is_encoded_once_and_its_tokens_are_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary.from_metadata(mistral_metadata(), "x")
    version = tekken_version(vocabulary)
    assert version is not None
    tekkenizer = build_tekkenizer(vocabulary, version, "x")
    first = tekkenizer.encode("Say it again", bos=False, eos=False)
    expected = list(first)
    with_ends = tekkenizer.encode("Say it again", bos=True, eos=True)
    assert with_ends == [tekkenizer.bos_id, *expected, tekkenizer.eos_id]
    first.clear()
    monkeypatch.setattr(Tekkenizer, "encode", None)
    assert tekkenizer.encode("Say it again", bos=False, eos=False) == expected


def test_texts_that_are_kept_encoded_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tekken, "_MOST_CHARS", 4 * (tekken._OVERHEAD + 10))
    vocabulary = Vocabulary.from_metadata(mistral_metadata(), "x")
    tekkenizer = build_tekkenizer(vocabulary, TokenizerVersion.v15, "x")
    assert isinstance(tekkenizer, tekken._Tekkenizer)
    for number in range(20):
        tekkenizer.encode(f"{number:10}", bos=False, eos=False)
    assert list(tekkenizer._encoded) == [f"{number:10}" for number in range(16, 20)]
