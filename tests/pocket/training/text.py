"""Families that copy: repeating words, renaming in code, JSON from a sentence, a needle in a long text."""

from __future__ import annotations

import json
from random import Random

from tests.pocket.training.case import Case, Key, Reply, ask, said
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
_SHORT_HAY, _MOST_ASKED = 40, 6


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
    """Haystacks from short to long, the longer ones asked about several times over: more targets for one prompt."""
    longest = rng.choices((12, 40, 120, 260, LONGEST_HAY), (24, 26, 24, 16, 10))[0]
    num_asked = rng.randint(1, _MOST_ASKED) if longest > _SHORT_HAY else 1
    num_sentences = min(rng.randint(longest // 4, longest), LONGEST_HAY - 5 * num_asked)
    return _needle(rng, num_sentences, num_asked, num_decoys=rng.randrange(2))


def long_needle(rng: Random) -> Case:
    """One needle anywhere in 4,000 tokens of hay: the held-out case."""
    return _needle(rng, LONGEST_HAY, num_asked=1, num_decoys=0)


def long_needle_of_two(rng: Random) -> Case:
    """The same beside another one's: harder than what the family is held to, and told apart."""
    return _needle(rng, LONGEST_HAY, num_asked=1, num_decoys=1)


def _needle(rng: Random, num_sentences: int, num_asked: int, num_decoys: int) -> Case:
    """Up to `num_asked` questions, and a decoy or none; the last question is the case, the others trained ones."""
    items, words = rng.sample(NAMES, num_asked + 1), rng.sample(WORDS, num_asked + 1)
    (key, *others), decoy = zip(items[:-1], words[:-1], strict=True), (items[-1], words[-1])
    earlier = [pair for pair in others if not _asked(*pair).is_held_out]
    sentences = rng.choices(HAY, k=num_sentences)
    for item, word in (*earlier, key, *(decoy,) * num_decoys):
        sentences.insert(rng.randint(0, len(sentences)), f"The code of {item} is {word}.")
    turns = [_asked(*pair) for pair in (*earlier, key)]
    first = ask(f"{' '.join(sentences)}\n{turns[0].messages[0]['content']}")
    history = [message for turn in turns for message in (*turn.messages, said(turn.expected))]
    return Case("needle", key, (first, *history[1:-1]), turns[-1].expected)


def _asked(item: str, word: str) -> Case:
    return Case("needle", (item, word), (ask(f"What is the code of {item}?"),), Reply(word))
