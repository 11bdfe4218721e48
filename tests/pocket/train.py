"""`python -m tests.pocket.train --work WORK --out DIR` trains the miniature and writes a release.

`--resume` goes on from WORK; `--report DIR` only prints what a release can do on held-out cases.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.pocket.tekken import tekken_json
from tests.pocket.training.encode import Encoder
from tests.pocket.training.families import FAMILIES, HARDER, training_case
from tests.pocket.training.readme import Rate, rates_table, write_readme
from tests.pocket.training.released import TRAINED
from tests.pocket.training.torch_export import activation_peaks, read_release, write_release
from tests.pocket.training.torch_model import forward
from tests.pocket.training.torch_report import pass_rates
from tests.pocket.training.torch_train import Plan, Training

_WHERE = "one thread of a shared two-core machine"
_NUM_HARDER = 40


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.report is not None:
        model, encoder = read_release(arguments.report, TRAINED), Encoder(arguments.report / "tekken.json")
        print(rates_table([each for part in report(model, encoder, arguments.cases) for each in part]))
        return
    plan = Plan(arguments.work, arguments.steps, arguments.seed)
    training = Training(plan, TRAINED, _encoder())
    if arguments.resume:
        training.resume()
    training.run()
    export(training.model, plan, arguments.out, arguments.cases)


def report(model: Any, encoder: Encoder, num_cases: int) -> tuple[list[Rate], list[Rate]]:
    """Pass rates of a release: of the families, and of what is harder; failures are printed as they come."""
    parts: list[list[Rate]] = []
    for families, most in ((FAMILIES, num_cases), (HARDER, min(num_cases, _NUM_HARDER))):
        parts.append([])
        for family, passed, asked, wrong in pass_rates(model, encoder, families, most):
            print(f"{family} {passed}/{asked}", *wrong[:5], sep="\n  ", flush=True)
            parts[-1].append((family, passed, asked))
    return parts[0], parts[1]


def export(model: Any, plan: Plan, out: Path, num_cases: int) -> None:
    """Writes the release, its log and its card."""
    write_release(model, _peaks(model, plan.seed), TRAINED, out)
    shutil.copyfile(plan.out / "training.log", out / "training.log")
    tell(out, plan, num_cases)


def tell(release: Path, plan: Plan, num_cases: int) -> None:
    """Writes the card of a release."""
    rates, harder = report(read_release(release, TRAINED), Encoder(release / "tekken.json"), num_cases)
    write_readme(release, release / "training.log", plan.num_steps, plan.seed, _WHERE, rates, harder)


def _peaks(model: Any, seed: int) -> dict[str, float]:
    """Activation peaks over four dialogues of every family."""
    encoder, rng = _encoder(), Random(seed)

    def forward_all() -> None:
        with torch.no_grad():
            for family in FAMILIES:
                forward(model, [encoder.sample(training_case(family, rng)) for _ in range(4)])

    return activation_peaks(model, forward_all)


def _encoder() -> Encoder:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tekken.json"
        path.write_text(json.dumps(tekken_json(TRAINED), ensure_ascii=False), "utf-8")
        return Encoder(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.pocket.train", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/pocket"), help="checkpoints and log")
    parser.add_argument("--out", type=Path, default=Path("build/pocket/release"), help="the release")
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="more than one pays only on an idle machine")
    parser.add_argument("--cases", type=int, default=200, help="most held-out cases of each family")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    main()
