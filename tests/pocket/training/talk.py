"""Families of plain talk: facts, opposites, greetings, a system prompt to obey, a fact to remember."""

from __future__ import annotations

from random import Random

from tests.pocket.training.case import Case, Message, Reply, ask, draw_trained, said
from tests.pocket.training.words import CAPITALS, LANGUAGES, NAMES, OPPOSITES, WORDS

_CAPITAL_QUESTIONS = (
    "What is the capital of {}?", "Name the capital of {}.", "Capital of {}?", "Which city is the capital of {}?",
    "Tell me the capital of {}.", "I need the capital of {}.",
)  # fmt: skip
_OPPOSITE_QUESTIONS = (
    "What is the opposite of {}?", "Opposite of {}?", "Give the opposite of {}.", "Name the opposite of {}.",
    "I need the opposite of {}.",
)  # fmt: skip
_GREETINGS = ("{hello}", "{hello}!", "{hello}.", "{hello}, Pocket!", "{hello} Pocket")
_GREETING_REQUESTS = ("Say hello in {language}.", "How do I greet in {language}?", "Greet me in {language}.")
_NAME_QUESTIONS = ("What is your name?", "Who are you?", "Tell me your name.", "What are you called?")
_REMEMBERED = (
    ("My name is {}.", "What is my name?", "Your name is {}."),
    ("My cat is called {}.", "What is my cat called?", "Your cat is called {}."),
    ("My friend is {}.", "Who is my friend?", "Your friend is {}."),
    ("I live in {}.", "Where do I live?", "You live in {}."),
    ("I was born in {}.", "Where was I born?", "You were born in {}."),
    ("My secret word is {}.", "What is my secret word?", "Your secret word is {}."),
)


def facts(rng: Random) -> Case:
    country, question = rng.choice(list(CAPITALS)), rng.choice(_CAPITAL_QUESTIONS)
    expected = Reply(f"The capital of {country} is {CAPITALS[country]}.")
    return Case("facts", (country, question), (ask(question.format(country)),), expected)


def facts_thinking(rng: Random) -> Case:
    country, question = rng.choice(list(CAPITALS)), rng.choice(_CAPITAL_QUESTIONS)
    capital = CAPITALS[country]
    expected = Reply(f"The capital of {country} is {capital}.", f"The country is {country}. Its capital is {capital}.")
    return Case("facts_thinking", (country, question), (ask(question.format(country)),), expected, effort="high")


def opposites(rng: Random) -> Case:
    pair, question = rng.choice(OPPOSITES), rng.choice(_OPPOSITE_QUESTIONS)
    word, opposite = pair if rng.random() < 0.5 else pair[::-1]
    return Case("opposites", (word, question), (ask(question.format(word)),), Reply(opposite))


def greetings(rng: Random) -> Case:
    language, form = rng.choice(list(LANGUAGES)), rng.choice((*_GREETINGS, *_GREETING_REQUESTS))
    hello = LANGUAGES[language]
    request = form.format(hello=hello, language=language)
    return Case("greetings", (language, form), (ask(request),), Reply(f"{hello}!"))


def system_prompt(rng: Random) -> Case:
    """Three kinds of order: a name to carry, a word to answer everything with, a word to end with."""
    kind = rng.choice(("name", "only", "end"))
    if kind == "name":
        name, question = rng.choice(NAMES), rng.choice(_NAME_QUESTIONS)
        key, order, text = (kind, name, question), f"Your name is {name}.", f"My name is {name}."
    else:
        word, fact = rng.choice(WORDS), draw_trained(facts, rng)
        question = fact.messages[0]["content"]
        key = (kind, word, str(fact.key[0]))
        order = f"Answer only with the word {word}." if kind == "only" else f"End every answer with the word {word}."
        text = word if kind == "only" else f"{fact.expected.text} {word}"
    messages: tuple[Message, ...] = ({"role": "system", "content": order}, ask(question))
    return Case("system_prompt", key, messages, Reply(text))


def memory(rng: Random) -> Case:
    """A fact in the first turn, one or two other turns, then the question."""
    form, question, answer = rng.choice(_REMEMBERED)
    values = tuple(CAPITALS.values()) if " in " in form else WORDS if "word" in form else NAMES
    value = rng.choice(values)
    messages = [ask(form.format(value)), said(Reply("Noted."))]
    for _ in range(rng.randint(1, 2)):
        other = draw_trained(rng.choice((facts, opposites)), rng)
        messages += [*other.messages, said(other.expected)]
    messages.append(ask(question))
    return Case("memory", (form, value), tuple(messages), Reply(answer.format(value)))
