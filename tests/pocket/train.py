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
from tests.pocket.training.families import FAMILIES, training_case
from tests.pocket.training.readme import Rate, rates_table, write_readme
from tests.pocket.training.released import TRAINED
from tests.pocket.training.torch_export import activation_peaks, read_release, write_release
from tests.pocket.training.torch_model import forward
from tests.pocket.training.torch_report import pass_rates
from tests.pocket.training.torch_train import Plan, Training

_WHERE = "one thread of a shared two-core machine"


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.report is not None:
        print(rates_table(report(arguments.report, arguments.cases)))
        return
    plan = Plan(arguments.work, arguments.steps, arguments.seed)
    training = Training(plan, TRAINED, _encoder())
    if arguments.resume:
        training.resume()
    training.run()
    export(training.model, plan, arguments.out, arguments.cases)


def report(release: Path, num_cases: int) -> list[Rate]:
    """Pass rates of a release, its failures printed as they come."""
    model, encoder = read_release(release, TRAINED), Encoder(release / "tekken.json")
    rates = []
    for family, passed, asked, wrong in pass_rates(model, encoder, num_cases):
        print(f"{family} {passed}/{asked}", *wrong[:5], sep="\n  ", flush=True)
        rates.append((family, passed, asked))
    return rates


def export(model: Any, plan: Plan, out: Path, num_cases: int) -> None:
    """Writes the release, its log and its card."""
    write_release(model, _peaks(model, plan.seed), TRAINED, out)
    log = out / "training.log"
    shutil.copyfile(plan.out / "training.log", log)
    write_readme(out, log, plan.num_steps, plan.seed, _WHERE, report(out, num_cases))


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
    parser.add_argument("--cases", type=int, default=40, help="held-out cases of each family")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--report", type=Path, metavar="DIR")
    return parser


if __name__ == "__main__":
    main()
