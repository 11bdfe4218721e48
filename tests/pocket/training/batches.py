"""An endless stream of batches: samples drawn by family weight, gathered by length so that little is padded."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from tests.pocket.training.drills import Drill
from tests.pocket.training.encode import Encoder, Sample
from tests.pocket.training.families import FAMILIES, training_case

_EDGES = (48, 72, 104, 144, 200, 280, 520, 1100, 2200, 4224)


class Batches:
    """Owns the random stream and the half-filled buckets; `state` and `restore` let training resume exactly."""

    def __init__(self, encoder: Encoder, drill: Drill, seed: int, num_tokens: int) -> None:
        self._encoder, self._drill, self._num_tokens = encoder, drill, num_tokens
        self._rng = Random(seed)
        self._buckets: dict[int, list[Sample]] = {edge: [] for edge in _EDGES}
        self._weights = {name: family.weight for name, family in FAMILIES.items()}

    def next(self, drill_share: float) -> list[Sample]:
        """The next full bucket: at most `num_tokens` ids when padded, never fewer than one sample."""
        for sample in self._samples(drill_share):
            edge = next(edge for edge in _EDGES if len(sample.ids) <= edge)
            bucket = self._buckets[edge]
            bucket.append(sample)
            if len(bucket) >= max(1, self._num_tokens // edge):
                self._buckets[edge] = []
                return bucket
        raise AssertionError("the stream of samples never ends")

    def favour(self, rates: dict[str, float]) -> None:
        """Draw a family up to five times as often while it lags."""
        for name, rate in rates.items():
            self._weights[name] = FAMILIES[name].weight * (1 + 4 * (1 - rate))

    def drill(self, rng: Random) -> Sample:
        """One more copying drill, from a random stream that is not training's."""
        return self._drill.sample(rng, is_easy=False)

    def state(self) -> tuple[Any, ...]:
        return self._rng.getstate(), self._buckets, self._weights

    def restore(self, state: tuple[Any, ...]) -> None:
        rng_state, self._buckets, self._weights = state
        self._rng.setstate(rng_state)

    def _samples(self, drill_share: float) -> Iterator[Sample]:
        while True:
            if self._rng.random() < drill_share:
                yield self._drill.sample(self._rng, is_easy=self._rng.random() < 0.5)
            else:
                (family,) = self._rng.choices(list(self._weights), list(self._weights.values()))
                yield self._encoder.sample(training_case(family, self._rng))
