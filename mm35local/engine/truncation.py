"""Which tokens may be drawn at all: the likeliest k, those that make up p of all probability, those not too unlikely.

A sort of 131,072 logits takes longer than all else, so the few that matter are found first: all within some distance of
the highest, and within a larger one until they suffice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_DISTANCES = (8.0, 11.0, 14.0)
"""Below the highest logit: a token e^8 times less likely than the likeliest is rarely among those that matter."""


def top_k(logits: Float32Array, k: int) -> Ids:
    """The k highest, at most all, in no order; which ones of a tie is not said."""
    is_near = logits >= logits.max() - np.float32(_DISTANCES[0])
    if np.count_nonzero(is_near) < k:
        return _highest(logits, k)
    near = np.flatnonzero(is_near)
    return near[_highest(logits[near], k)]


def _highest(logits: Float32Array, k: int) -> Ids:
    return np.argpartition(logits, -k)[-k:] if k < len(logits) else np.arange(len(logits))


def top_p(logits: Float32Array, weights: Float32Array, p: float) -> Ids:
    """The fewest of the highest whose `weights` (exp(logits), in any unit) reach the part `p` of their sum; at least
    one. Highest first.
    """
    wanted = p * float(weights.sum())
    candidates = np.arange(len(logits))
    for near in _near(logits):
        if float(weights[near].sum(dtype=np.float64)) >= wanted:
            candidates = near
            break
    ordered = candidates[np.argsort(-logits[candidates], kind="stable")]
    reached = weights[ordered].cumsum(dtype=np.float64).searchsorted(wanted)
    return ordered[: int(reached) + 1]


def min_p(logits: Float32Array, p: float) -> Ids:
    """Those at least `p` times as likely as the likeliest."""
    return np.flatnonzero(logits >= logits.max() + np.float32(math.log(p)))


def _near(logits: Float32Array) -> Iterator[Ids]:
    highest = logits.max()
    for distance in _DISTANCES:
        yield np.flatnonzero(logits >= highest - np.float32(distance))
