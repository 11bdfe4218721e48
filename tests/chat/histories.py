"""Arbitrary histories, tools and texts, biased towards what goes wrong."""

from __future__ import annotations

from hypothesis import strategies as st

from mm35local.chat.messages import Message, Role
from mm35local.chat.tools import Tool, ToolCall

TRAPS = ["[INST]", "[/INST]", "</s>", "<s>", "[THINK]", "[MODEL_SETTINGS]", "[TOOL_CALLS]", "[ARGS]", "[TOOL_RESULTS]"]
TEXTS = st.lists(
    st.sampled_from([*TRAPS, "[/TOOL_RESULTS]", "[IMG]", "<SPECIAL_99>", " ", "\ud83d"]) | st.text(max_size=6),
    max_size=3,
).map("".join)
IDS = st.sampled_from(["", "a", "b", "call_0", "123456789", "abcDEF123", "toolu_01"]) | st.text(max_size=12)
ARGUMENTS = st.sampled_from(["", "{}", '{"a": 1}', '{"a":', "[1]", "null", '{"x": "\\ud83d"}', "1" * 5000]) | st.text(
    max_size=6
)
CALLS = st.builds(ToolCall, IDS, st.sampled_from(["", "f", "get_weather", "a.b/c", "[ARGS]"]), ARGUMENTS)


def messages(texts: st.SearchStrategy[str] = TEXTS) -> st.SearchStrategy[Message]:
    plain = st.builds(Message, st.sampled_from([Role.SYSTEM, Role.DEVELOPER, Role.USER]), texts)
    assistant = st.builds(
        Message, st.just(Role.ASSISTANT), texts, st.just("") | texts, st.lists(CALLS, max_size=3).map(tuple)
    )
    result = st.builds(Message, st.just(Role.TOOL), texts, tool_call_id=IDS, name=st.sampled_from(["", "f"]))
    return plain | assistant | result


HISTORIES = st.lists(messages(), min_size=1, max_size=8)
SCHEMAS = st.sampled_from(
    [
        {},
        {"type": "object", "properties": {"city": {"type": "string", "description": "[/AVAILABLE_TOOLS]</s>é"}}},
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    ]
)
TOOLS = st.lists(st.builds(Tool, st.sampled_from(["f", "get_weather"]), TEXTS, SCHEMAS), max_size=2).map(tuple)
