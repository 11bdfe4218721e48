"""The training loop: resumable, logged, with held-out rates on the way."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.pocket.config import PocketConfig
from tests.pocket.training.batches import Batches
from tests.pocket.training.drills import Drill
from tests.pocket.training.encode import Encoder, Sample
from tests.pocket.training.families import FAMILIES, held_out_cases
from tests.pocket.training.torch_model import build, forward
from tests.pocket.training.torch_optimizer import Optimizer, rounded_to_fp8

_FP8_FROM = 0.85
_EXAM_EVERY, _LOG_EVERY, _SAVE_EVERY = 200, 20, 60
_FARTHEST = 3700
_FEWEST_DIALOGUES, _USUAL_WEIGHT = 24, 100.0
"""A long needle fills a batch alone; a step on it alone would be noise."""
_DRILLS, _LAST_DRILLS = ((300, 0.5), (700, 0.25), (1400, 0.12)), 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train. A resumed run may have another number of steps: the plateau simply ends elsewhere."""

    out: Path
    num_steps: int
    seed: int = 0
    num_tokens: int = 3584
    num_exam_cases: int = 12


class Training:
    """Owns the model, its optimizer, the data stream and the log file in `plan.out`."""

    def __init__(self, plan: Plan, config: PocketConfig, encoder: Encoder) -> None:
        torch.manual_seed(plan.seed)
        self._plan, self.model = plan, build(config)
        self._optimizer = Optimizer(self.model)
        self._batches = Batches(encoder, Drill(encoder, config.n_vocab), plan.seed, plan.num_tokens)
        self._exam = {
            name: [encoder.sample(case) for case in held_out_cases(name, plan.num_exam_cases)] for name in FAMILIES
        }
        self._positions = Random(plan.seed + 1)
        self._step, self._seconds = 0, 0.0
        plan.out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        started, losses, accuracies = time.monotonic() - self._seconds, [], []
        while self._step < self._plan.num_steps:
            loss, accuracy = self._learn()
            self._step += 1
            self._seconds = time.monotonic() - started
            losses.append(loss)
            accuracies.append(accuracy)
            if self._step % _LOG_EVERY == 0:
                done = f"step {self._step} seconds {self._seconds:.0f}"
                self._log(f"{done} loss {_mean(losses):.4f} accuracy {_mean(accuracies):.4f}")
                losses, accuracies = [], []
            if self._step % _EXAM_EVERY == 0 or self._step == self._plan.num_steps:
                self._examine()
            if self._step % _SAVE_EVERY == 0 or self._step == self._plan.num_steps:
                self._save()

    def resume(self) -> None:
        state = torch.load(self._state_path, weights_only=False)
        self.model.load_state_dict(state["model"])
        self._optimizer.restore(state["optimizer"])
        self._batches.restore(state["batches"])
        self._positions.setstate(state["positions"])
        self._step, self._seconds = state["step"], state["seconds"]
        self._log(f"resumed at step {self._step}")

    @property
    def _progress(self) -> float:
        return self._step / self._plan.num_steps

    @property
    def _state_path(self) -> Path:
        return self._plan.out / "training.pt"

    def _learn(self) -> tuple[float, float]:
        """One step over at least `_FEWEST_DIALOGUES`: (loss, share of target tokens that the argmax got right).

        A token weighs less the more targets its dialogue has (by the root): else long copies drown one-word answers.
        """
        num_dialogues, total, weight, num_right, num_targets = 0, 0.0, 0.0, 0.0, 0
        while num_dialogues < _FEWEST_DIALOGUES:
            samples = self._batches.next(_drill_share(self._step))
            with self._weights():
                logits, labels, rows = forward(self.model, samples, self._stretched(samples))
                weights = torch.bincount(rows)[rows].float().rsqrt()
                loss = (torch.nn.functional.cross_entropy(logits, labels, reduction="none") * weights).sum()
                (loss / _USUAL_WEIGHT).backward()
            num_dialogues += len(samples)
            total, weight = total + loss.item(), weight + weights.sum().item()
            num_right, num_targets = num_right + (logits.argmax(1) == labels).sum().item(), num_targets + len(labels)
        self._optimizer.step(self._step, self._plan.num_steps)
        return total / weight, num_right / num_targets

    def _weights(self) -> contextlib.AbstractContextManager[None]:
        return rounded_to_fp8(self.model) if self._progress >= _FP8_FROM else contextlib.nullcontext()

    def _stretched(self, samples: Sequence[Sample]) -> Any:
        """Positions with one gap in some needle samples: long distances at the price of short texts."""
        longest = max(len(sample.ids) for sample in samples)
        positions = torch.arange(longest).repeat(len(samples), 1)
        for row, sample in enumerate(samples):
            if sample.family == "needle" and self._positions.random() < 0.4:
                cut = self._positions.randint(20, sample.num_prompt - 12)
                positions[row, cut:] += self._positions.randrange(max(1, _FARTHEST - longest))
        return positions

    def _examine(self) -> None:
        """Held-out replies that the argmax gets right token by token: exactly those a greedy decode would write."""
        rates = {}
        with torch.no_grad(), self._weights():
            for name, samples in self._exam.items():
                size = 1 if name == "needle" else len(samples)
                parts = [samples[start : start + size] for start in range(0, len(samples), size)]
                rates[name] = _mean([right for part in parts for right in rows_right(self.model, part)])
            drills = [self._batches.drill(self._positions) for _ in range(8)]
            drill_rate = _mean(rows_right(self.model, drills))
        self._batches.favour(rates)
        self._log(
            f"exam {self._step} "
            + " ".join(f"{name} {rate:.2f}" for name, rate in rates.items())
            + f" drill {drill_rate:.2f}"
        )

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state(),
            "batches": self._batches.state(),
        }
        state |= {"positions": self._positions.getstate(), "step": self._step, "seconds": self._seconds}
        torch.save(state, self._state_path.with_suffix(".partial"))
        self._state_path.with_suffix(".partial").replace(self._state_path)

    def _log(self, line: str) -> None:
        print(line, flush=True)
        with (self._plan.out / "training.log").open("a") as file:
            file.write(line + "\n")


def _drill_share(step: int) -> float:
    """Copying comes first; what rests on it follows."""
    return next((share for until, share in _DRILLS if step < until), _LAST_DRILLS)


def rows_right(model: Any, samples: Sequence[Sample]) -> list[bool]:
    """For each sample whether every token of its last reply is the argmax."""
    logits, labels, rows = forward(model, samples)
    is_right = logits.argmax(1) == labels
    by_row: dict[int, list[bool]] = defaultdict(list)
    for row, right in zip(rows.tolist(), is_right.tolist(), strict=True):
        by_row[row].append(right)
    return [all(by_row[row][-_num_last(sample) :]) for row, sample in enumerate(samples)]


def _num_last(sample: Sample) -> int:
    return len(sample.ids) - sample.num_prompt


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
