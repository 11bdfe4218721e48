from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm35local.chat.dialect import load_dialect
from mm35local.chat.messages import Conversation, Effort, Message, Role
from mm35local.chat.tools import Tool, ToolCall
from mm35local.errors import ModelFileError, RequestError
from tests.fakes.metadata import CHATML, chatml_metadata

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
BOS, START, END = 3, 1, 2
TRAP = st.sampled_from(
    ["<|im_end|>", "<|im_start|>system", "<|im_", "end|>", "<", "|>", "<s>", "\ue000", " ", "\n", "é"]
)
HOSTILE = st.lists(TRAP | st.text(max_size=4), max_size=6).map("".join)


def conversation(*messages: tuple[str, str], effort: Effort = Effort.NONE) -> Conversation:
    return Conversation(tuple(Message(Role(role), content) for role, content in messages), NOW, effort)


def render(template: str, *messages: tuple[str, str], **metadata: object) -> tuple[str | int, ...]:
    dialect = load_dialect(chatml_metadata(template, **metadata), "x.gguf")
    return dialect.render(conversation(*messages or (("user", "Hi"),)))


def test_control_tokens_are_ids_and_the_rest_is_text() -> None:
    parts = render(CHATML, ("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))
    said = [part for part in parts if isinstance(part, str)]
    assert said == ["system\nS", "\n", "user\nU", "\n", "assistant\nA", "\n", "user\nV", "\n", "assistant\n"]
    assert [part for part in parts if isinstance(part, int)] == [START, END] * 4 + [START]


@given(st.lists(HOSTILE, min_size=1, max_size=4))
def test_users_cannot_forge_control_tokens(contents: list[str]) -> None:
    roles = [("user", "assistant")[i % 2] for i in range(len(contents))]
    told = [(role, content) for role, content in zip(roles, contents, strict=True) if content]
    parts = render(CHATML, *told) if told else render(CHATML)
    harmless = render(CHATML, *((role, "x") for role, _ in told)) if told else render(CHATML)
    assert [p for p in parts if isinstance(p, int)] == [p for p in harmless if isinstance(p, int)]
    assert all(content in "".join(map(str, parts)) for _, content in told[:-1])


TOOLS = (
    "{% if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name + '=' + (c.function.arguments | tojson) }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{{ '<|im_start|>assistant\n' }}"
)


def with_call(content: str) -> Conversation:
    call = ToolCall("123456789", "f", json.dumps({content: [content]}))
    messages = (Message(Role.USER, "U"), Message(Role.ASSISTANT, "", "", (call,)), Message(Role.TOOL, content))
    return Conversation(messages, NOW, tools=(Tool("f", content, {"title": content}),))


def test_tools_calls_and_results_are_in_the_prompt() -> None:
    dialect = load_dialect(chatml_metadata(TOOLS), "x.gguf")
    assert dialect.has_tools
    assert [part for part in dialect.render(with_call("é")) if isinstance(part, str)] == [
        'tools\n[{"type": "function", "function": {"name": "f", "description": "é", "parameters": {"title": "é"}}}]',
        "\n",
        "user\nU",
        "\n",
        'assistant\nf={"é": ["é"]}',
        "\n",
        "tool\né",
        "\n",
        "assistant\n",
    ]


@given(HOSTILE)
def test_tools_forge_no_control_tokens(content: str) -> None:
    dialect = load_dialect(chatml_metadata(TOOLS), "x.gguf")
    parts = dialect.render(with_call(content))
    assert [part for part in parts if isinstance(part, int)] == [START, END] * 4 + [START]
    assert "".join(map(str, parts)).count(json.dumps(content, ensure_ascii=False)) == 4


def test_a_template_without_tools_gets_them_as_words() -> None:
    dialect = load_dialect(chatml_metadata(), "x.gguf")
    assert not dialect.has_tools
    said = [part for part in dialect.render(with_call("é")) if isinstance(part, str)]
    assert said == [
        "user\nU",
        "\n",
        'assistant\nf({"\\u00e9": ["\\u00e9"]})',
        "\n",
        "user\nResult of f:\né",
        *said[-2:],
    ]
    assert said[-2:] == ["\n", "assistant\n"]


def test_white_space_control_is_that_of_the_reference_implementation() -> None:
    template = "{% if true %}\n  {% set x = 1 %}\nA\n{% endif %}\nB"
    assert render(template) == ("A\nB",)


def test_a_begin_token_is_there_once() -> None:
    with_bos = "{{ bos_token }}{{ messages[0].content }}"
    assert render(with_bos, **{"tokenizer.ggml.add_bos_token": True}) == (BOS, "Hi")
    assert render(with_bos) == (BOS, "Hi")
    assert render("{{ messages[0].content }}", **{"tokenizer.ggml.add_bos_token": True}) == (BOS, "Hi")
    assert render("{{ messages[0].content }}") == ("Hi",)


def test_a_last_assistant_message_is_continued() -> None:
    assert render(CHATML, ("user", "U"), ("assistant", "One, <|im_end|>"))[-3:] == (
        START,
        "assistant\n",
        "One, <|im_end|>",
    )


def test_what_templates_may_use() -> None:
    template = "{{ strftime_now('%d %b %Y') }} {{ {'é': '<b>'} | tojson }}{% for i in [1, 2] %}{% break %}{% endfor %}"
    assert render(template) == ('23 Nov 2026 {"é": "<b>"}',)


def test_a_template_without_system_role_gets_it_in_the_first_user_message() -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
    assert render(template, ("system", "S"), ("user", "U"))[1] == "user\nS\n\nU"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('roles must rhyme') }}", "roles must rhyme"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages[7].content.nope }}", "has no element 7"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
    ],
)
def test_a_template_that_fails_is_a_request_s_error(template: str, problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        render(template)


def test_a_template_that_does_not_parse_is_the_file_s_error() -> None:
    with pytest.raises(ModelFileError, match=r"x\.gguf: line 1 of its chat template"):
        render("{% if %}")


def test_effort_is_a_variable_of_the_template() -> None:
    template = "{{ reasoning_effort }} {{ enable_thinking }}"
    dialect = load_dialect(chatml_metadata(template), "x.gguf")
    assert dialect.has_effort
    assert dialect.render(conversation(("user", "U"), effort=Effort.HIGH)) == ("high True",)
    assert not load_dialect(chatml_metadata(), "x.gguf").has_effort
