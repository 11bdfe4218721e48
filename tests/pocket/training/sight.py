"""Families with an image: its colour, what is left and what is right, and which shape stands in it."""

from __future__ import annotations

import base64
import io
from random import Random

from PIL import Image, ImageDraw

from tests.pocket.training.case import Case, Key, Message, Reply
from tests.pocket.training.words import COLOURS

_SIZES = ((56, 28), (28, 56), (56, 56), (84, 56), (56, 84), (84, 84), (112, 56), (112, 84), (112, 112))
_WIDE = tuple(size for size in _SIZES if size[0] >= 56)
_LARGE = tuple(size for size in _SIZES if min(size) >= 56)
_SHAPES = ("circle", "square", "triangle")
_COLOUR_QUESTIONS = ("What colour is this?", "Which colour do you see?", "Name the colour.", "The colour?")
_JITTER = 10

Rgb = tuple[int, int, int]


def colour(rng: Random) -> Case:
    name, size, question = rng.choice(list(COLOURS)), rng.choice(_SIZES), rng.choice(_COLOUR_QUESTIONS)
    image = Image.new("RGB", size, _shade(rng, name))
    return _case("colour", (name, *size, question), image, question, name)


def position(rng: Random) -> Case:
    (left, right), size = rng.sample(list(COLOURS), 2), rng.choice(_WIDE)
    image = Image.new("RGB", size, _shade(rng, left))
    image.paste(_shade(rng, right), (size[0] // 2, 0, *size))
    text = f"left is {left}, right is {right}"
    return _case("position", (left, right, *size), image, "What is left and what is right?", text)


def shape(rng: Random) -> Case:
    kind, size = rng.choice(_SHAPES), rng.choice(_LARGE)
    fore, back = (
        rng.choice([name for name in COLOURS if name not in ("black", "white")]),
        rng.choice(("black", "white")),
    )
    image = Image.new("RGB", size, _shade(rng, back))
    _draw(ImageDraw.Draw(image), kind, rng, size, _shade(rng, fore))
    return _case("shape", (kind, fore, back, *size), image, "Which shape is this, in which colour?", f"{fore} {kind}")


def _draw(canvas: ImageDraw.ImageDraw, kind: str, rng: Random, size: tuple[int, int], fill: Rgb) -> None:
    radius = round(min(size) * rng.uniform(0.40, 0.44))
    x, y = size[0] // 2 + rng.randint(-1, 1), size[1] // 2 + rng.randint(-1, 1)
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "circle":
        canvas.ellipse(box, fill=fill)
    elif kind == "square":
        canvas.rectangle(box, fill=fill)
    else:
        canvas.polygon(((x, box[1]), (box[0], box[3]), (box[2], box[3])), fill=fill)


def _shade(rng: Random, name: str) -> Rgb:
    red, green, blue = (min(255, max(0, part + rng.randint(-_JITTER, _JITTER))) for part in COLOURS[name])
    return red, green, blue


def _case(family: str, key: Key, image: Image.Image, question: str, answer: str) -> Case:
    file = io.BytesIO()
    image.save(file, "PNG")
    png = file.getvalue()
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
    message: Message = {"role": "user", "content": content}
    return Case(family, key, (message,), Reply(answer), images=(png,))
