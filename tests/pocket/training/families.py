"""Every family by name, how often training draws it, and the line between trained and held-out combinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.pocket.training import sight, sums, talk, text, tools
from tests.pocket.training.case import Case, Message, draw_trained, said

Draw = Callable[[Random], Case]
_MOST_DRAWS = 20_000
_LONGEST_CHAIN = 6


@dataclass(frozen=True, slots=True)
class Family:
    draw: Draw
    weight: float
    exam: Draw | None = None
    """Draws the held-out cases where they are to be harder than most of training."""
    is_chained: bool = False
    """Training joins several of these into one dialogue: more targets for the same prompt."""


FAMILIES = {
    "facts": Family(talk.facts, 4, is_chained=True),
    "facts_thinking": Family(talk.facts_thinking, 2, is_chained=True),
    "opposites": Family(talk.opposites, 4, is_chained=True),
    "sums": Family(sums.sums, 14, is_chained=True),
    "sums_thinking": Family(sums.sums_thinking, 6, is_chained=True),
    "one_tool": Family(tools.one_tool, 6),
    "one_tool_thinking": Family(tools.one_tool_thinking, 3),
    "two_calls": Family(tools.two_calls, 6),
    "tool_of_three": Family(tools.tool_of_three, 4),
    "no_tool": Family(tools.no_tool, 4),
    "tool_unneeded": Family(tools.tool_unneeded, 2),
    "tool_result": Family(tools.tool_result, 5),
    "json_object": Family(text.json_object, 6, is_chained=True),
    "repeat": Family(text.repeat, 10, is_chained=True),
    "code_edit": Family(text.code_edit, 5),
    "system_prompt": Family(talk.system_prompt, 6),
    "memory": Family(talk.memory, 5),
    "greetings": Family(talk.greetings, 4, is_chained=True),
    "colour": Family(sight.colour, 4),
    "position": Family(sight.position, 7),
    "shape": Family(sight.shape, 20),
    "needle": Family(text.needle, 9, exam=text.long_needle),
}


HARDER = {"needle_of_two": Family(text.needle, 0, exam=text.long_needle_of_two)}
"""Asked for the record, and held to nothing."""


def training_case(family: str, rng: Random) -> Case:
    """A case whose combination is not held out; chained families come as dialogues of one to six turns."""
    case = draw_trained(FAMILIES[family].draw, rng)
    if not FAMILIES[family].is_chained:
        return case
    history: list[Message] = []
    for _ in range(rng.randrange(_LONGEST_CHAIN)):
        earlier = draw_trained(FAMILIES[_companion(family, case, rng)].draw, rng)
        history += [*earlier.messages, said(earlier.expected)]
    return replace(case, messages=(*history, *case.messages))


def held_out_cases(family: str, count: int) -> list[Case]:
    """Up to `count` cases with as many different combinations that training never saw; the same on every call."""
    rng = Random(f"held out {family}")
    found: dict[tuple[str | int, ...], Case] = {}
    lesson = (FAMILIES | HARDER)[family]
    draw = lesson.exam or lesson.draw
    for _ in range(_MOST_DRAWS):
        case = draw(rng)
        if case.is_held_out:
            found.setdefault(case.key, case)
        if len(found) == count:
            break
    return list(found.values())


def _companion(family: str, case: Case, rng: Random) -> str:
    """A family for an earlier turn of the same dialogue: usually its own, else one of the same effort."""
    if case.effort == "high":
        return rng.choice(("facts_thinking", "sums_thinking"))
    others = ("facts", "opposites", "sums", "greetings", "json_object", "repeat")
    return family if rng.random() < 0.7 else rng.choice(others)
