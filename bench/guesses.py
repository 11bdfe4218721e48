"""How often guesses by lookup come true: `python -m bench.guesses [--model GGUF]`, SmolLM2 without one.

A model writes stories, lists, summaries and tests of code, greedily and drawn; at each token of its answers lookup is
asked, and what it guesses is compared with what came. `engine.speculation` begins with about these shares.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from bench.engine_runs import Workload, embedded, load, open_engine, run
from bench.results_file import write
from bench.workloads import words
from mm35local.engine.ngram import NgramIndex
from mm35local.engine.speculation import MAX_DRAFT, strength_of
from mm35local.types import SamplingParams

_ROOT = Path(__file__).parents[1]
_CHATML = "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n"
_NUM_CHARS = 3000
_NUM_TOKENS = 160
_FILES = ("mm35local/engine/cells.py", "mm35local/engine/pace.py", "mm35local/chat/stops.py", "bench/streams.py")
_SAMPLINGS = (
    SamplingParams(temperature=0, max_tokens=_NUM_TOKENS, ignore_eos=True),
    SamplingParams(temperature=0.7, seed=3, max_tokens=_NUM_TOKENS, ignore_eos=True),
)


@dataclass(slots=True)
class Share:
    """Of the guesses of one strength."""

    num_guesses: int = 0
    num_first: int = 0
    """Guesses whose first token came."""
    num_later: int = 0
    """Tokens that came behind the first."""
    num_tries: int = 0
    """Tokens behind one that came."""

    def add(self, num_guessed: int, num_right: int) -> None:
        self.num_guesses += 1
        self.num_first += num_right > 0
        self.num_later += max(0, num_right - 1)
        self.num_tries += min(num_right, num_guessed - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None)
    asyncio.run(_main(parser.parse_args().model or embedded()))


async def _main(model: Path) -> None:
    shares: dict[int, Share] = {}
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(model, Path(folder) / "engine.log", "off")
        try:
            await load(engine)
            for text in _texts():
                prompt = tuple(await engine.tokenize([_CHATML.format(text)]))
                for sampling in _SAMPLINGS:
                    answered = await run(engine, Workload("", prompt, sampling))
                    _compare(prompt, answered.answers[0], shares)
        finally:
            await engine.aclose()
    _report(model, shares)


def _texts() -> list[str]:
    rng = Random(5)
    readme = (_ROOT / "README.md").read_text()
    return [
        *(f"Write a long story with these words: {words(rng, 130)}." for _ in range(4)),
        *(f"Give a JSON list of things to buy with these words: {words(rng, 30)}." for _ in range(4)),
        *(f"Summarise this:\n{readme[start : start + _NUM_CHARS]}" for start in range(0, 4 * _NUM_CHARS, _NUM_CHARS)),
        *(f"Write tests for this file:\n```python\n{(_ROOT / f).read_text()[:_NUM_CHARS]}\n```" for f in _FILES),
    ]


def _compare(prompt: Sequence[int], answer: Sequence[int], shares: dict[int, Share]) -> None:
    tokens = [*prompt, answer[0]]
    index = NgramIndex(tokens)
    for position in range(1, len(answer)):
        guess, agreement = index.propose(min(MAX_DRAFT, len(answer) - position))
        if guess:
            came = answer[position : position + len(guess)]
            num_right = next((n for n, (a, b) in enumerate(zip(guess, came, strict=True)) if a != b), len(guess))
            shares.setdefault(strength_of(agreement), Share()).add(len(guess), num_right)
        tokens.append(answer[position])


def _report(model: Path, shares: dict[int, Share]) -> None:
    table = Table(title=f"guesses by lookup, {model.name}", box=None)
    for column in ("strength", "guesses", "first token comes", "each later one"):
        table.add_column(column, justify="right")
    rows = []
    for strength, share in sorted(shares.items()):
        first, later = share.num_first / share.num_guesses, share.num_later / max(1, share.num_tries)
        rows.append({"strength": strength, "guesses": share.num_guesses, "first": first, "later": later})
        table.add_row(str(strength), str(share.num_guesses), f"{first:.2f}", f"{later:.2f}")
    Console().print(table)
    write("guesses", {"model": model.name, "rows": rows})


if __name__ == "__main__":
    main()
