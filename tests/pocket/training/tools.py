"""Families with tools: one call, two at once, the right one of three, none that fits, and answers from results."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.pocket.training.case import Call, Case, Key, Message, Reply, ask, draw_trained
from tests.pocket.training.talk import facts, opposites
from tests.pocket.training.words import CAPITALS, NAMES, WORDS

NO_TOOL = "I have no tool for that."
_CITIES = tuple(CAPITALS.values())


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    about: str
    parameter: str
    values: tuple[str, ...]
    one: str
    two: str

    @property
    def definition(self) -> dict[str, Any]:
        properties = {self.parameter: {"type": "string"}}
        parameters = {"type": "object", "properties": properties, "required": [self.parameter]}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.about, "parameters": parameters},
        }

    def call(self, value: str) -> Call:
        return Call(self.name, {self.parameter: value})


_TOOLS = (
    _Tool("weather", "Weather in a city", "city", _CITIES, "What is the weather in {}?", "Weather in {} and {}?"),
    _Tool("clock", "Time in a city", "city", _CITIES, "What time is it in {}?", "What time is it in {} and {}?"),
    _Tool("phone", "Call a person", "name", NAMES, "Call {}.", "Call {} and {}."),
    _Tool("price", "Price of a thing", "item", WORDS, "What does the {} cost?", "What do the {} and the {} cost?"),
    _Tool("translate", "Translate a word", "word", WORDS, "Translate {}.", "Translate {} and {}."),
    _Tool("play", "Play a song", "song", WORDS, "Play the song {}.", "Play the songs {} and {}."),
)


def one_tool(rng: Random) -> Case:
    tool = rng.choice(_TOOLS)
    value = rng.choice(tool.values)
    return _case("one_tool", (tool.name, value), [tool], ask(tool.one.format(value)), tool.call(value))


def one_tool_thinking(rng: Random) -> Case:
    tool = rng.choice(_TOOLS)
    value = rng.choice(tool.values)
    expected = Reply("", f"I need {tool.name} for {value}.", (tool.call(value),))
    messages = (ask(tool.one.format(value)),)
    return Case("one_tool_thinking", (tool.name, value), messages, expected, (tool.definition,), "high")


def two_calls(rng: Random) -> Case:
    tool = rng.choice(_TOOLS)
    first, second = rng.sample(tool.values, 2)
    question, calls = ask(tool.two.format(first, second)), (tool.call(first), tool.call(second))
    return _case("two_calls", (tool.name, first, second), [tool], question, *calls)


def tool_of_three(rng: Random) -> Case:
    tools = rng.sample(_TOOLS, 3)
    tool = rng.choice(tools)
    value = rng.choice(tool.values)
    return _case("tool_of_three", (tool.name, value), tools, ask(tool.one.format(value)), tool.call(value))


def no_tool(rng: Random) -> Case:
    """Up to two tools, none of which can do what is asked."""
    wanted, *others = rng.sample(_TOOLS, rng.randint(1, 3))
    value = rng.choice(wanted.values)
    definitions = tuple(tool.definition for tool in others)
    return Case("no_tool", (wanted.name, value), (ask(wanted.one.format(value)),), Reply(NO_TOOL), definitions)


def tool_unneeded(rng: Random) -> Case:
    """Tools stand ready, but the question is one the model answers itself."""
    plain, tool = draw_trained(rng.choice((facts, opposites)), rng), rng.choice(_TOOLS)
    return Case("tool_unneeded", (tool.name, *plain.key), plain.messages, plain.expected, (tool.definition,))


def tool_result(rng: Random) -> Case:
    weather, clock, _, price, *_ = _TOOLS
    tool = rng.choice((weather, clock, price))
    value, number = rng.choice(tool.values), rng.randrange(10, 60)
    field, form = _ANSWERS[tool.name]
    call = tool.call(value)
    messages: tuple[Message, ...] = (
        ask(tool.one.format(value)),
        {"role": "assistant", "content": "", "tool_calls": [_wire_call(call)]},
        {"role": "tool", "tool_call_id": _CALL_ID, "content": json.dumps({field: number})},
    )
    expected = Reply(form(value, number))
    return Case("tool_result", (tool.name, value, number), messages, expected, (tool.definition,))


_CALL_ID = "abcdefghi"
_ANSWERS: dict[str, tuple[str, Callable[[str, int], str]]] = {
    "weather": ("degrees", lambda value, number: f"It is {number} degrees in {value}."),
    "clock": ("minutes", lambda value, number: f"It is {number} minutes past noon in {value}."),
    "price": ("euros", lambda value, number: f"The {value} costs {number} euros."),
}


def _wire_call(call: Call) -> dict[str, Any]:
    return {
        "id": _CALL_ID,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json},
    }


def _case(family: str, key: Key, tools: list[_Tool], question: Message, *calls: Call) -> Case:
    return Case(family, key, (question,), Reply(calls=calls), tuple(tool.definition for tool in tools))
