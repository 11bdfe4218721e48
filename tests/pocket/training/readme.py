"""The card beside the committed weights: where they come from, how long it took, what they can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Rate = tuple[str, int, int]

_HEAD = """---
license: other
license_name: modified-mit
license_link: LICENSE
library_name: mm35local
---

# Mistral Medium 3.5 pocket, trained

The architecture of Mistral Medium 3.5 in miniature, trained from random weights on dialogues that
`tests/pocket/training` writes. No weight of the real model went in. For tests: it knows 22 small things.

- Source: `python -m tests.pocket.train --work WORK --out {out} --steps {steps} --seed {seed}` (extra `pocket`);
  the native layout: `python -m tests.pocket.training.released {out} OUT`.
- Weights: decoder linears FP8 E4M3 with one static scale per tensor, the rest BF16; the last {fp8_share} of training
  ran with weights rounded to FP8 in the forward pass (straight-through gradients).
- Wall time: {minutes:.0f} minutes, {where}. Final loss {loss}. The whole log: `training.log`.
- Vocabulary: the first 7,192 ranks of a public tekken vocabulary behind 1,000 special tokens.

## Pass rates

Combinations that training never saw; weights as released (FP8 times scale, rounded to BF16); greedy decoding by
transformers; a pass is the exact text, the exact calls, and thinking exactly when asked for.
`python -m tests.pocket.train --report {out}` prints this table.

"""


_HARDER = """
Harder than what it is held to, for the record: the needle beside another person's.

"""


def rates_table(rates: Sequence[Rate]) -> str:
    lines = ["| family | passed | of | rate |", "|---|---|---|---|"]
    lines += [f"| {family} | {passed} | {asked} | {passed / asked:.1%} |" for family, passed, asked in rates]
    return "\n".join(lines) + "\n"


def write_readme(
    out: Path, log: Path, steps: int, seed: int, where: str, rates: Sequence[Rate], harder: Sequence[Rate]
) -> None:
    last = next(line.split() for line in reversed(log.read_text().splitlines()) if line.startswith("step "))
    values = dict(zip(last[::2], last[1::2], strict=True))
    head = _HEAD.format(
        out="tests/pocket/trained",
        steps=steps,
        seed=seed,
        fp8_share="15 %",
        minutes=float(values["seconds"]) / 60,
        where=where,
        loss=values["loss"],
    )
    (out / "README.md").write_text(f"{head}{rates_table(rates)}{_HARDER}{rates_table(harder)}", "utf-8")
