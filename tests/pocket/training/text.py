"""Families that copy: repeating words, renaming in code, JSON from a sentence, a needle in a long text."""

from __future__ import annotations

import json
from random import Random

from tests.pocket.training.case import Case, Key, Reply, ask
from tests.pocket.training.words import CAPITALS, HAY, NAMES, WORDS

_VARIABLES = ("total", "result", "value", "count", "index", "price", "name", "size", "left", "right", "first", "last")
_FUNCTIONS = ("load", "scale", "merge", "update", "compute", "shift")
_CODE = (
    "def {f}(a, b):\n    {v} = a + b\n    return {v}",
    "def {f}({v}):\n    return {v} * 2",
    "def {f}(items):\n    {v} = 0\n    for item in items:\n        {v} += item\n    return {v}",
    "def {f}(text):\n    {v} = len(text)\n    print({v})\n    return {v}",
    "for {v} in range(10):\n    {f}({v})",
    "if {v} > 0:\n    {f}({v})",
)
_JSON = (("name", "age", NAMES), ("city", "degrees", tuple(CAPITALS.values())), ("item", "price", WORDS))
LONGEST_HAY = 475
"""Sentences that, with question and frame, stay below 4,096 tokens of the miniature's vocabulary."""


def repeat(rng: Random) -> Case:
    words = tuple(rng.choices(WORDS, k=rng.randint(2, 8)))
    text = " ".join(words)
    return Case("repeat", words, (ask(f"Repeat: {text}"),), Reply(text))


def code_edit(rng: Random) -> Case:
    """The whole listing again with one name changed: nearly all of it is a copy, which speculation likes."""
    template, function = rng.randrange(len(_CODE)), rng.choice(_FUNCTIONS)
    old, new = rng.sample(_VARIABLES, 2)
    before, after = (_CODE[template].format(f=function, v=name) for name in (old, new))
    key: Key = (template, function, old, new)
    return Case("code_edit", key, (ask(f"Rename {old} to {new}:\n{before}"),), Reply(after))


def json_object(rng: Random) -> Case:
    first, second, values = rng.choice(_JSON)
    value, number = rng.choice(values), rng.randrange(10, 100)
    question = f"Give me JSON: {first} {value}, {second} {number}."
    expected = json.dumps({first: value, second: number}, ensure_ascii=False)
    return Case("json_object", (first, value, number), (ask(question),), Reply(expected))


def needle(rng: Random) -> Case:
    """Mostly short haystacks, a few long ones: what training can afford."""
    longest = rng.choices((12, 40, 120, 260, LONGEST_HAY), (28, 30, 24, 12, 6))[0]
    return _needle(rng, rng.randint(longest // 4, longest))


def long_needle(rng: Random) -> Case:
    """4,000 tokens of hay: the held-out question."""
    return _needle(rng, LONGEST_HAY)


def _needle(rng: Random, num_sentences: int) -> Case:
    (item, other), (word, decoy) = rng.sample(NAMES, 2), rng.sample(WORDS, 2)
    sentences = rng.choices(HAY, k=num_sentences)
    sentences.insert(rng.randint(0, num_sentences), f"The code of {item} is {word}.")
    if rng.random() < 0.5:
        sentences.insert(rng.randint(0, num_sentences + 1), f"The code of {other} is {decoy}.")
    text = " ".join(sentences)
    return Case("needle", (item, word), (ask(f"{text}\nWhat is the code of {item}?"),), Reply(word))
